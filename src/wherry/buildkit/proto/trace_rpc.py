"""Methods of trace.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import trace_pb2
from wherry.rpc.methods import Unary


class TraceService:
    NAME = "opentelemetry.proto.collector.trace.v1.TraceService"
    Export = Unary(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        trace_pb2.ExportTraceServiceRequest,
        trace_pb2.ExportTraceServiceResponse,
    )
