"""Methods of upload.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import upload_pb2
from wherry.rpc.methods import BothStream


class Upload:
    NAME = "moby.upload.v1.Upload"
    Pull = BothStream(
        "/moby.upload.v1.Upload/Pull",
        upload_pb2.BytesMessage,
        upload_pb2.BytesMessage,
    )
