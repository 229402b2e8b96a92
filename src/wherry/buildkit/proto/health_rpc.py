"""Methods of health.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import health_pb2
from wherry.rpc.methods import ServerStream, Unary


class Health:
    NAME = "grpc.health.v1.Health"
    Check = Unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest,
        health_pb2.HealthCheckResponse,
    )
    Watch = ServerStream(
        "/grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest,
        health_pb2.HealthCheckResponse,
    )
