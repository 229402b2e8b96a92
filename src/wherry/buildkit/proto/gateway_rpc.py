"""Methods of gateway.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import gateway_pb2
from wherry.rpc.methods import Unary


class LLBBridge:
    NAME = "moby.buildkit.v1.frontend.LLBBridge"
    ResolveImageConfig = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
        gateway_pb2.ResolveImageConfigRequest,
        gateway_pb2.ResolveImageConfigResponse,
    )
    ResolveSourceMeta = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
        gateway_pb2.ResolveSourceMetaRequest,
        gateway_pb2.ResolveSourceMetaResponse,
    )
    Solve = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Solve",
        gateway_pb2.SolveRequest,
        gateway_pb2.SolveResponse,
    )
    ReadFile = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
        gateway_pb2.ReadFileRequest,
        gateway_pb2.ReadFileResponse,
    )
    ReadDir = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/ReadDir",
        gateway_pb2.ReadDirRequest,
        gateway_pb2.ReadDirResponse,
    )
    StatFile = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/StatFile",
        gateway_pb2.StatFileRequest,
        gateway_pb2.StatFileResponse,
    )
    Evaluate = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Evaluate",
        gateway_pb2.EvaluateRequest,
        gateway_pb2.EvaluateResponse,
    )
    Ping = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Ping",
        gateway_pb2.PingRequest,
        gateway_pb2.PongResponse,
    )
    Return = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Return",
        gateway_pb2.ReturnRequest,
        gateway_pb2.ReturnResponse,
    )
    Inputs = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Inputs",
        gateway_pb2.InputsRequest,
        gateway_pb2.InputsResponse,
    )
    Warn = Unary(
        "/moby.buildkit.v1.frontend.LLBBridge/Warn",
        gateway_pb2.WarnRequest,
        gateway_pb2.WarnResponse,
    )
