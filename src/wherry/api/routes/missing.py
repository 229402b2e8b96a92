"""The parts of the Engine API that this daemon does not implement: they are answered with 501, never with
404."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import Handler, RequestContext, json_response
from wherry.api.router import Route
from wherry.errors import NotFound, NotImplemented_, Unavailable
from wherry.wire import filters as wire_filters

_MISSING: tuple[tuple[str, str, str], ...] = (
    ("GET", "/containers/{id}/checkpoints", "checkpoints, which need CRIU"),
    ("POST", "/containers/{id}/checkpoints", "checkpoints, which need CRIU"),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "checkpoints, which need CRIU"),
)
_GROUPS = (("/plugins", "plugins"),)
_SWARM = ("/nodes", "/swarm", "/services", "/tasks", "/configs")


async def no_plugins(ctx: RequestContext) -> web.Response:
    """None can be installed, so the list is empty."""
    filters = wire_filters.parse(ctx.text("filters"), ("capability", "enabled"))
    wire_filters.boolean(filters, "enabled")
    return json_response([])


async def no_such_plugin(ctx: RequestContext) -> web.Response:
    """``docker inspect NAME`` asks here last, and treats every answer except "not found" as a failure."""
    raise NotFound(f'plugin "{ctx.params["name"]}" not found')


def _refuse(what: str) -> Handler:
    async def handler(_ctx: RequestContext) -> web.StreamResponse:
        raise NotImplemented_(f"{what}: this feature is not implemented yet")

    return handler


def no_manager() -> Unavailable:
    return Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
        "node to swarm and try again."
    ).as_expected()


async def no_swarm(ctx: RequestContext) -> web.StreamResponse:
    """Clients tell from the status and the text that this engine is not part of a swarm."""
    path = (ctx.request.method, ctx.request.path.rpartition("/swarm/")[2])
    if path in (("POST", "init"), ("POST", "join")):
        raise NotImplemented_(f"swarm {path[1]}: swarm mode is not implemented yet")
    if path == ("POST", "leave"):
        raise Unavailable("This node is not part of a swarm").as_expected()
    raise no_manager()


_OF_ONE_PLUGIN = ("enable", "disable", "set", "push", "upgrade")

ROUTES: list[Route] = [
    ("GET", "/plugins", no_plugins),
    ("GET", "/plugins/{name:path}/json", no_such_plugin),
    ("DELETE", "/plugins/{name:path}", no_such_plugin),
    *(("POST", f"/plugins/{{name:path}}/{action}", no_such_plugin) for action in _OF_ONE_PLUGIN),
    *((method, path, _refuse(what)) for method, path, what in _MISSING),
]
for _method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
    for _prefix, _what in _GROUPS:
        if (_method, _prefix) != ("GET", "/plugins"):
            ROUTES.append((_method, _prefix, _refuse(_what)))
        if (_method, _prefix) != ("DELETE", "/plugins"):
            ROUTES.append((_method, _prefix + "/{rest:path}", _refuse(_what)))
    for _prefix in _SWARM:
        ROUTES += [(_method, _prefix, no_swarm), (_method, _prefix + "/{rest:path}", no_swarm)]
