"""Answers: the protocol's errors as JSON, and common headers."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from wherry.hub.core.refusals import Refusal
from wherry.hub.store.objects import Away, Full

COMMON = {
    "Docker-Distribution-Api-Version": "registry/2.0",
    "Server": "wherry-hub",
    "X-Content-Type-Options": "nosniff",
}
# If a browser shows a blob or a manifest, it must not run any of it.
SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox"}
JSON = "application/json"


def document(value: Any, *, status: int = 200, kind: str = JSON, **headers: str) -> web.Response:
    """:param headers: with ``_`` for ``-``."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return web.Response(
        body=json.dumps(value, separators=(",", ":")).encode(),
        status=status,
        headers={**COMMON, **SANDBOX, "Content-Type": kind, **named},
    )


def refusal(error: Refusal) -> web.Response:
    return web.Response(
        body=errors(error.code, error.message, error.detail),
        status=error.status,
        headers={**COMMON, **SANDBOX, "Content-Type": JSON, **error.headers},
    )


def no_room(error: Full) -> Refusal:
    """507 for a full store, 503 for one that does not answer."""
    if isinstance(error, Away):
        return Refusal("UNAVAILABLE", "the objects cannot be reached now", headers={"Retry-After": "5"})
    return Refusal("UNAVAILABLE", f"no room: {error}", status=507, headers={"Retry-After": "300"})


def errors(code: str, message: str, detail: Any = None) -> bytes:
    """The body of an error (distribution-spec, "Error Codes"); one entry for each of a list of details."""
    details = detail if isinstance(detail, list) else [detail]
    entries: list[dict[str, Any]] = []
    for one in details:
        entry: dict[str, Any] = {"code": code, "message": message}
        if one is not None:
            entry["detail"] = one
        entries.append(entry)
    return json.dumps({"errors": entries}).encode()


def empty(status: int, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return web.Response(status=status, headers={**COMMON, "Content-Length": "0", **named})
