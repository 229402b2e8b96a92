"""Authenticate and authorise requests.

Every request is checked separately: the repository and the action follow from its path and method, and must
be in the token's list with the exact name. A principal without the right to read a repository gets the same
answer whether it exists or not.
"""

from __future__ import annotations

from aiohttp import web

from wherry.hub.auth import login
from wherry.hub.auth.bearer import Invalid
from wherry.hub.core import rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import ANYBODY, Principal
from wherry.hub.registry.context import Hub
from wherry.hub.store import repositories

_ASKED = {rights.PULL: "pull", rights.PUSH: "pull,push", rights.DELETE: "delete"}


async def caller_of(hub: Hub, request: web.BaseRequest) -> Principal:
    """The principal in the ``Authorization`` header.

    :raises Refusal: 401: the credentials are not valid; ``TOOMANYREQUESTS``: they were wrong too often.
    """
    header = request.headers.get("Authorization")
    if header is None:
        return ANYBODY
    scheme, _, value = header.partition(" ")
    try:
        if scheme.lower() == "bearer":
            return hub.tokens.check(value.strip())
        if scheme.lower() == "basic":
            return await hub.logins.caller(login.basic(value.strip()), hub.trusted.network(request))
    except Invalid as e:
        raise unauthorized(hub, request, "", f"invalid token: {e}", error="invalid_token") from e
    except login.Wrong as e:
        raise unauthorized(hub, request, "", "authentication required: wrong name or password") from e
    except login.TooMany as e:
        raise Refusal(
            "TOOMANYREQUESTS", "too many wrong passwords", headers={"Retry-After": str(e.args[0])}
        ) from e
    raise unauthorized(hub, request, "", "authentication required: Bearer or Basic")


def unauthorized(
    hub: Hub, request: web.BaseRequest, scope: str, text: str = "authentication required", error: str = ""
) -> Refusal:
    """401 with the challenge, which names the token service and the scope."""
    base = hub.url or hub.trusted.base(request)
    challenge = f'Bearer realm="{base}/token",service="{hub.tokens.service}"'
    if scope:
        challenge += f',scope="{scope}"'
    if error:
        challenge += f',error="{error}"'
    return Refusal("UNAUTHORIZED", text, headers={"WWW-Authenticate": challenge})


async def require(hub: Hub, request: web.BaseRequest, caller: Principal, name: str, action: str) -> None:
    """:raises Refusal: the principal does not have this right there."""
    if caller.access is not None and action in caller.access.get(name, rights.NOTHING):
        return
    allowed = await hub.db.read(lambda tx: repositories.allowed_to(tx, caller, name))
    if action in allowed:
        return
    if caller.access is not None:
        raise unauthorized(hub, request, scope_for(request, name, action), error="insufficient_scope")
    if not caller.known:
        raise unauthorized(hub, request, scope_for(request, name, action))
    if rights.PULL not in allowed and action == rights.PULL:
        raise repositories.unknown(name)
    raise Refusal("DENIED", f"requested access to the resource is denied: {action} of {name}")


def scope_for(request: web.BaseRequest, name: str, action: str) -> str:
    """The scopes that a client should request; for a mount also the right to read its source."""
    scope = f"repository:{name}:{_ASKED[action]}"
    source = request.query.get("from", "")
    if action == rights.PUSH and source and len(source) <= 255 and '"' not in source:
        scope += f" repository:{source}:pull"
    return scope
