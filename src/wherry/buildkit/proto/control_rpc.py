"""Methods of control.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import control_pb2
from wherry.rpc.methods import BothStream, ServerStream, Unary


class Control:
    NAME = "moby.buildkit.v1.Control"
    DiskUsage = Unary(
        "/moby.buildkit.v1.Control/DiskUsage",
        control_pb2.DiskUsageRequest,
        control_pb2.DiskUsageResponse,
    )
    Prune = ServerStream(
        "/moby.buildkit.v1.Control/Prune",
        control_pb2.PruneRequest,
        control_pb2.UsageRecord,
    )
    Solve = Unary(
        "/moby.buildkit.v1.Control/Solve",
        control_pb2.SolveRequest,
        control_pb2.SolveResponse,
    )
    Status = ServerStream(
        "/moby.buildkit.v1.Control/Status",
        control_pb2.StatusRequest,
        control_pb2.StatusResponse,
    )
    Session = BothStream(
        "/moby.buildkit.v1.Control/Session",
        control_pb2.BytesMessage,
        control_pb2.BytesMessage,
    )
    ListWorkers = Unary(
        "/moby.buildkit.v1.Control/ListWorkers",
        control_pb2.ListWorkersRequest,
        control_pb2.ListWorkersResponse,
    )
    Info = Unary(
        "/moby.buildkit.v1.Control/Info",
        control_pb2.InfoRequest,
        control_pb2.InfoResponse,
    )
    ListenBuildHistory = ServerStream(
        "/moby.buildkit.v1.Control/ListenBuildHistory",
        control_pb2.BuildHistoryRequest,
        control_pb2.BuildHistoryEvent,
    )
    UpdateBuildHistory = Unary(
        "/moby.buildkit.v1.Control/UpdateBuildHistory",
        control_pb2.UpdateBuildHistoryRequest,
        control_pb2.UpdateBuildHistoryResponse,
    )
