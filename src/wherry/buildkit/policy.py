"""Source policies of the client: each source is checked before it is used; a denial fails the build.

A client sends the id of a session that decides (``SourcePolicySession``), or rules (``SourcePolicy``), or
neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from wherry.buildkit.proto import gateway_pb2, ops_pb2, policy_pb2, sourcepolicy_pb2
from wherry.buildkit.proto.policy_rpc import PolicyVerifier
from wherry.buildkit.sessions import ClientSession
from wherry.engine.builds.clients import Source
from wherry.errors import Forbidden, InvalidArgument, NotImplemented_
from wherry.model import patterns

_ROUNDS = 8
"""How often a policy may ask for more metadata of one source."""
_TIMEOUT = 60.0


class BuildPolicy:
    """The policy of one build."""

    def __init__(self, session: ClientSession | None, rules: Iterable[sourcepolicy_pb2.Policy] = ()) -> None:
        """:raises NotImplemented_: an unsupported rule."""
        self._session = session
        self._rules = [rule for policy in rules for rule in policy.rules]
        for rule in self._rules:
            if rule.action == sourcepolicy_pb2.CONVERT or rule.HasField("updates"):
                raise NotImplemented_("source policies that convert sources are not supported")
            if rule.selector.constraints:
                raise NotImplemented_("source policies with constraints on attributes are not supported")
        if session is not None and not session.supports(PolicyVerifier.CheckPolicy):
            raise InvalidArgument("the session that is to decide about sources does not serve policies")

    async def check(self, source: Source, more: Callable[[], Awaitable[Source]]) -> None:
        """:raises Forbidden: it is denied. :raises NotImplemented_: the policy replaces the source with
        another one."""
        self._by_rules(source)
        if self._session is None:
            return
        request = policy_pb2.CheckPolicyRequest(Platform=_platform(source), Source=_described(source))
        for _ in range(_ROUNDS):
            answer = await self._session.client.unary(PolicyVerifier.CheckPolicy, request, timeout=_TIMEOUT)
            if answer.WhichOneof("result") == "request":
                request.Source.CopyFrom(_described(await more()))
                continue
            decision = answer.decision
            if decision.action == sourcepolicy_pb2.ALLOW:
                return
            if decision.action == sourcepolicy_pb2.CONVERT:
                raise NotImplemented_(
                    f"cannot use {source.identifier}: policies that convert sources are not supported"
                )
            reasons = "; ".join(one.message for one in decision.denyMessages)
            raise _denied(source, reasons)
        raise Forbidden(f"cannot use {source.identifier}: the policy came to no decision")

    def _by_rules(self, source: Source) -> None:
        """The last matching rule decides."""
        action = sourcepolicy_pb2.ALLOW
        for rule in self._rules:
            if _matches(rule.selector, source.identifier):
                action = rule.action
        if action == sourcepolicy_pb2.DENY:
            raise _denied(source, "")


def _denied(source: Source, reasons: str) -> Forbidden:
    text = f"source {source.identifier} not allowed by policy"
    return Forbidden(f"{text}: {reasons}" if reasons else f"{text}: source denied by policy")


def _matches(selector: sourcepolicy_pb2.Selector, identifier: str) -> bool:
    if selector.match_type == sourcepolicy_pb2.EXACT:
        return selector.identifier == identifier
    if selector.match_type == sourcepolicy_pb2.REGEX:
        return patterns.compiled(selector.identifier).search(identifier)
    parts = [patterns.escaped(part) for part in selector.identifier.split("*")]
    return patterns.one_of([".*".join(parts)]).fullmatch(identifier)


def _platform(source: Source) -> ops_pb2.Platform | None:
    if source.platform is None:
        return None
    one = source.platform.normalised()
    return ops_pb2.Platform(Architecture=one.architecture, OS=one.os or "linux", Variant=one.variant or "")


def _described(source: Source) -> gateway_pb2.ResolveSourceMetaResponse:
    found = gateway_pb2.ResolveSourceMetaResponse()
    found.Source.identifier = source.identifier
    if source.identifier.startswith("docker-image://") and source.digest:
        found.Image.Digest, found.Image.Config = source.digest, source.config
    elif source.identifier.startswith("git://") and source.checksum:
        found.Git.Checksum = found.Git.CommitChecksum = source.checksum
    elif source.identifier.startswith(("http://", "https://")) and source.checksum:
        found.HTTP.Checksum = source.checksum
    return found
