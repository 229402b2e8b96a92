"""The token endpoint: GET of Docker's token protocol, POST of its OAuth2 form.

A token lists the requested rights that are allowed. A request for more is not an error; the token just does
not contain it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from wherry.hub.auth import login, secrets
from wherry.hub.auth.bearer import LIFE
from wherry.hub.auth.login import Basic, TooMany, Wrong
from wherry.hub.core import names, rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import ANYBODY, Actions, Principal
from wherry.hub.registry.answers import document
from wherry.hub.registry.bodies import read
from wherry.hub.registry.context import Hub
from wherry.hub.store import accounts, repositories
from wherry.hub.store.sql import Tx, now

_SCOPE = re.compile(r"repository(?:\([a-z0-9]{1,20}\))?:(.{1,255}):([a-z*,]{1,60})")
_SCOPES_MAX = 20
_REFRESH_LIFE = 90 * 86400
CATALOG = "registry:catalog:*"


async def handle(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """``/token``."""
    if request.method == "GET":
        return await _get(hub, request)
    if request.method == "POST":
        return await _post(hub, request)
    raise Refusal("UNSUPPORTED", "method not allowed", headers={"Allow": "GET, POST"})


async def _get(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    _check_service(hub, request.query.get("service", ""))
    header = request.headers.get("Authorization", "")
    caller = ANYBODY
    if header:
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            raise _wrong()
        caller = await _login(hub, request, value)
    scopes = request.query.getall("scope", [])
    answer = await _token(hub, caller, scopes)
    answer["token"] = answer["access_token"]
    if request.query.get("offline_token", "") in ("true", "1") and caller.known:
        answer["refresh_token"] = await _refresh_token(hub, request, caller)
    return document(answer, Cache_Control="no-store")


async def _login(hub: Hub, request: web.BaseRequest, value: str) -> Principal:
    try:
        return await hub.logins.caller(login.basic(value), hub.trusted.network(request))
    except Wrong as e:
        raise _wrong() from e
    except TooMany as e:
        raise _too_many(e) from e


def _wrong() -> Refusal:
    return Refusal(
        "UNAUTHORIZED", "incorrect username or password",
        headers={"WWW-Authenticate": 'Basic realm="wherry-hub"'},
    )  # fmt: skip


def _too_many(error: TooMany) -> Refusal:
    return Refusal("TOOMANYREQUESTS", "too many wrong passwords", headers={"Retry-After": str(error.args[0])})


def _check_service(hub: Hub, service: str) -> None:
    if service and service != hub.tokens.service:
        raise Refusal("UNSUPPORTED", f"no such service: {service[:140]!r}", status=400)


async def _post(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """OAuth2 (RFC 6749): ``password`` and ``refresh_token`` grants."""
    body = await read(request, 64 << 10, "UNSUPPORTED")
    try:
        form = {name: values[-1] for name, values in parse_qs(body.decode(), max_num_fields=32).items()}
    except ValueError:
        return _oauth_error("invalid_request", "the form cannot be read")
    if form.get("service", hub.tokens.service) != hub.tokens.service:
        return _oauth_error("invalid_request", "no such service")
    refresh = ""
    try:
        if form.get("grant_type") == "password":
            credentials = Basic(form.get("username", ""), form.get("password", ""))
            caller = await hub.logins.caller(credentials, hub.trusted.network(request))
            if form.get("access_type") == "offline":
                refresh = await _refresh_token(hub, request, caller)
        elif form.get("grant_type") == "refresh_token":
            refresh = form.get("refresh_token", "")
            caller = await hub.logins.by_refresh(refresh)
        else:
            return _oauth_error("unsupported_grant_type", "password or refresh_token")
    except Wrong:
        return _oauth_error("invalid_grant", "incorrect username or password", status=401)
    except TooMany as e:
        raise _too_many(e) from e
    answer = await _token(hub, caller, form.get("scope", "").split())
    answer["scope"] = form.get("scope", "")
    if refresh:
        answer["refresh_token"] = refresh
    return document(answer, Cache_Control="no-store")


def _oauth_error(error: str, text: str, status: int = 400) -> web.StreamResponse:
    return document({"error": error, "error_description": text}, status=status, Cache_Control="no-store")


async def _token(hub: Hub, caller: Principal, scopes: list[str]) -> dict[str, Any]:
    asked: dict[str, Actions] = {}
    texts = [one for text in scopes for one in text.split()]
    if len(texts) > _SCOPES_MAX:
        raise Refusal("DENIED", f"more than {_SCOPES_MAX} scopes", status=400)
    for text in texts:
        found = _SCOPE.fullmatch(text)
        if found is None:
            continue  # according to the specification, unknown scopes are not granted
        name = names.check_repository(found[1])
        wanted = found[2].split(",")
        actions = rights.ADMIN if "*" in wanted else rights.ADMIN & frozenset(wanted)
        asked[name] = asked.get(name, rights.NOTHING) | actions

    def allowed(tx: Tx) -> dict[str, Actions]:
        return {name: repositories.allowed(tx, caller, name) & actions for name, actions in asked.items()}

    access = await hub.db.read(allowed)
    catalog = CATALOG in texts
    return {
        "access_token": hub.tokens.make(caller, access, catalog=catalog),
        "expires_in": LIFE,
        "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


async def _refresh_token(hub: Hub, request: web.BaseRequest, caller: Principal) -> str:
    """A token that a client stores instead of the password; it has the rights of the credential it was made
    with."""
    secret = secrets.make()
    address = hub.trusted.client(request)
    account = caller.account
    assert account is not None

    def add(tx: Tx) -> None:
        accounts.add_token(
            tx, account, kind="refresh", name=request.headers.get("User-Agent", "")[:100],
            hashed=secrets.hashed(secret), prefix=secrets.shown(secret), scope=caller.scope,
            patterns=caller.patterns, expires=now() + _REFRESH_LIFE, address=address,
        )  # fmt: skip

    await hub.db.write(add)
    return secret
