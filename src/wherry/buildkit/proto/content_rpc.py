"""Methods of content.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import content_pb2
from wherry.rpc.methods import BothStream, ServerStream, Unary


class Content:
    NAME = "containerd.services.content.v1.Content"
    Info = Unary(
        "/containerd.services.content.v1.Content/Info",
        content_pb2.InfoRequest,
        content_pb2.InfoResponse,
    )
    Update = Unary(
        "/containerd.services.content.v1.Content/Update",
        content_pb2.UpdateRequest,
        content_pb2.UpdateResponse,
    )
    List = ServerStream(
        "/containerd.services.content.v1.Content/List",
        content_pb2.ListContentRequest,
        content_pb2.ListContentResponse,
    )
    Delete = Unary(
        "/containerd.services.content.v1.Content/Delete",
        content_pb2.DeleteContentRequest,
        content_pb2.Empty,
    )
    Read = ServerStream(
        "/containerd.services.content.v1.Content/Read",
        content_pb2.ReadContentRequest,
        content_pb2.ReadContentResponse,
    )
    Status = Unary(
        "/containerd.services.content.v1.Content/Status",
        content_pb2.StatusRequest,
        content_pb2.StatusResponse,
    )
    ListStatuses = Unary(
        "/containerd.services.content.v1.Content/ListStatuses",
        content_pb2.ListStatusesRequest,
        content_pb2.ListStatusesResponse,
    )
    Write = BothStream(
        "/containerd.services.content.v1.Content/Write",
        content_pb2.WriteContentRequest,
        content_pb2.WriteContentResponse,
    )
    Abort = Unary(
        "/containerd.services.content.v1.Content/Abort",
        content_pb2.AbortRequest,
        content_pb2.Empty,
    )
