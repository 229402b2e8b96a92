"""Methods of ssh.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import ssh_pb2
from wherry.rpc.methods import BothStream, Unary


class SSH:
    NAME = "moby.sshforward.v1.SSH"
    CheckAgent = Unary(
        "/moby.sshforward.v1.SSH/CheckAgent",
        ssh_pb2.CheckAgentRequest,
        ssh_pb2.CheckAgentResponse,
    )
    ForwardAgent = BothStream(
        "/moby.sshforward.v1.SSH/ForwardAgent",
        ssh_pb2.BytesMessage,
        ssh_pb2.BytesMessage,
    )
