"""Methods of filesync.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import filesync_pb2, fsutil_pb2
from wherry.rpc.methods import BothStream


class FileSync:
    NAME = "moby.filesync.v1.FileSync"
    DiffCopy = BothStream(
        "/moby.filesync.v1.FileSync/DiffCopy",
        fsutil_pb2.Packet,
        fsutil_pb2.Packet,
    )
    TarStream = BothStream(
        "/moby.filesync.v1.FileSync/TarStream",
        fsutil_pb2.Packet,
        fsutil_pb2.Packet,
    )


class FileSend:
    NAME = "moby.filesync.v1.FileSend"
    DiffCopy = BothStream(
        "/moby.filesync.v1.FileSend/DiffCopy",
        filesync_pb2.BytesMessage,
        filesync_pb2.BytesMessage,
    )
