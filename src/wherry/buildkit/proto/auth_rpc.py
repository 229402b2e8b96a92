"""Methods of auth.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import auth_pb2
from wherry.rpc.methods import Unary


class Auth:
    NAME = "moby.filesync.v1.Auth"
    Credentials = Unary(
        "/moby.filesync.v1.Auth/Credentials",
        auth_pb2.CredentialsRequest,
        auth_pb2.CredentialsResponse,
    )
    FetchToken = Unary(
        "/moby.filesync.v1.Auth/FetchToken",
        auth_pb2.FetchTokenRequest,
        auth_pb2.FetchTokenResponse,
    )
    GetTokenAuthority = Unary(
        "/moby.filesync.v1.Auth/GetTokenAuthority",
        auth_pb2.GetTokenAuthorityRequest,
        auth_pb2.GetTokenAuthorityResponse,
    )
    VerifyTokenAuthority = Unary(
        "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        auth_pb2.VerifyTokenAuthorityRequest,
        auth_pb2.VerifyTokenAuthorityResponse,
    )
