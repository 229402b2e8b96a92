"""Methods of exporter.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import exporter_pb2
from wherry.rpc.methods import Unary


class Exporter:
    NAME = "moby.exporter.v1.Exporter"
    FindExporters = Unary(
        "/moby.exporter.v1.Exporter/FindExporters",
        exporter_pb2.FindExportersRequest,
        exporter_pb2.FindExportersResponse,
    )
