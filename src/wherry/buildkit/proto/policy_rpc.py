"""Methods of policy.proto. Made by scripts/protos; do not edit."""

from wherry.buildkit.proto import policy_pb2
from wherry.rpc.methods import Unary


class PolicyVerifier:
    NAME = "moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier"
    CheckPolicy = Unary(
        "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy",
        policy_pb2.CheckPolicyRequest,
        policy_pb2.CheckPolicyResponse,
    )
