"""``/containers/{id}/stats``, and all containers' at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from wherry.api.context import RequestContext
from wherry.api.router import Route
from wherry.api.server import begin_stream
from wherry.errors import InvalidArgument


async def stats(ctx: RequestContext) -> web.StreamResponse:
    stream, one_shot = ctx.flag("stream", default=True), ctx.flag("one-shot") and ctx.version >= (1, 41)
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    identifier = ctx.engine.processes.stats.check(ctx.params["id"])
    if not stream:
        data = await ctx.engine.processes.stats.once(identifier, one_shot=one_shot)
        return web.Response(body=data, content_type="application/json")
    return await _send(ctx, ctx.engine.processes.stats.stream(identifier))


async def all_stats(ctx: RequestContext) -> web.StreamResponse:
    """``GET /containers/stats`` (wherry's own): one array each second. ``all`` includes containers that do
    not run."""
    found = ctx.engine.processes.stats.everybody(
        stopped=ctx.flag("all"), stream=ctx.flag("stream", default=True)
    )
    return await _send(ctx, found)


async def _send(ctx: RequestContext, chunks: AsyncIterator[bytes]) -> web.StreamResponse:
    response = await begin_stream(ctx.request, "application/json")
    async for data in chunks:
        await response.write(data)
    await response.write_eof()
    return response


ROUTES: list[Route] = [
    ("GET", "/containers/stats", all_stats),
    ("GET", "/containers/{id}/stats", stats),
]
