"""The routes of builds. Their handlers (``build``) are imported with the first request, and so is what
they use: a daemon that starts does not wait for it."""

from __future__ import annotations

from aiohttp import web

from wherry import threads
from wherry.api.context import Handler, RequestContext
from wherry.api.router import Route


def _later(name: str) -> Handler:
    """The handler of this name."""

    async def handler(ctx: RequestContext) -> web.StreamResponse:
        await ctx.engine.open_builds()
        found: Handler = await threads.short(_import, name)
        return await found(ctx)

    return handler


def _import(name: str) -> Handler:
    from wherry.api.routes import build

    found: Handler = getattr(build, name)
    return found


ROUTES: list[Route] = [
    ("POST", "/build", _later("build")),
    ("POST", "/build/prune", _later("prune")),
    ("POST", "/build/cancel", _later("cancel")),
    ("GET", "/build/history", _later("history")),
    ("GET", "/build/history/{id}", _later("history_of")),
    ("DELETE", "/build/history/{id}", _later("forget")),
    ("GET", "/build/outputs/{id}", _later("output")),
    ("POST", "/build/sessions", _later("open_session")),
    ("DELETE", "/build/sessions/{id}", _later("close_session")),
    ("POST", "/build/sessions/{id}/context", _later("compare_context")),
    ("PUT", "/build/sessions/{id}/context", _later("receive_context")),
]
