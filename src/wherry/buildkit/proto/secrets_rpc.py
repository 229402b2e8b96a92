"""Methods of secrets.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import secrets_pb2
from wherry.rpc.methods import Unary


class Secrets:
    NAME = "moby.buildkit.secrets.v1.Secrets"
    GetSecret = Unary(
        "/moby.buildkit.secrets.v1.Secrets/GetSecret",
        secrets_pb2.GetSecretRequest,
        secrets_pb2.GetSecretResponse,
    )
