"""What the Engine API has and this daemon does not have yet: 501 by name, never a 404."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import Context, Handler, json_response
from wherry.api.router import Route
from wherry.errors import NotFound, NotImplemented_

_MISSING: tuple[tuple[str, str, str], ...] = (
    ("GET", "/containers/{id}/checkpoints", "checkpoints, which need CRIU"),
    ("POST", "/containers/{id}/checkpoints", "checkpoints, which need CRIU"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpoints, which need CRIU"),
    ("POST", "/session", "build sessions"),
    ("POST", "/grpc", "build sessions"),
    ("GET", "/images/{name:path}/attestations", "image attestations"),
)
_GROUPS = (
    ("/plugins", "plugins"),
    ("/nodes", "swarm nodes"),
    ("/swarm", "swarm mode"),
    ("/services", "swarm services"),
    ("/tasks", "swarm tasks"),
    ("/configs", "configs"),
)


async def no_plugins(_ctx: Context) -> web.Response:
    """None can be installed, so the list is empty."""
    return json_response([])


async def no_such_plugin(ctx: Context) -> web.Response:
    """``docker inspect NAME`` asks here last, and takes anything but "not found" for a failure."""
    raise NotFound(f'plugin "{ctx.params["name"]}" not found')


def _refuse(what: str) -> Handler:
    async def handler(_ctx: Context) -> web.StreamResponse:
        raise NotImplemented_(f"{what}: this feature is not implemented yet")

    return handler


ROUTES: list[Route] = [
    ("GET", "/plugins", no_plugins),
    ("GET", "/plugins/{name:path}/json", no_such_plugin),
    *((method, path, _refuse(what)) for method, path, what in _MISSING),
]
for _method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
    for _prefix, _what in _GROUPS:
        if (_method, _prefix) != ("GET", "/plugins"):
            ROUTES.append((_method, _prefix, _refuse(_what)))
        ROUTES.append((_method, _prefix + "/{rest:path}", _refuse(_what)))
