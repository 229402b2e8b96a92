"""``/system/lost`` (an addition): the data that was set aside because it had no row."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.router import Route
from wherry.engine.upkeep.lost import LostView
from wherry.wire.times import rfc3339


def encode(view: LostView) -> dict[str, Any]:
    one = view.lost
    return {
        "Id": one.id,
        "Kind": one.kind,
        "Name": one.name,
        "Was": one.was,
        "Why": one.why,
        "Since": rfc3339(one.since),
        "Path": str(one.path),
        "Size": view.size,
    }


async def listing(ctx: RequestContext) -> web.Response:
    return json_response({"Lost": [encode(view) for view in await ctx.engine.upkeep.lost.all()]})


async def restore(ctx: RequestContext) -> web.Response:
    volume = await ctx.engine.upkeep.lost.restore(ctx.params["id"], ctx.text("name"))
    return json_response({"Volume": volume.name}, status=201)


async def remove(ctx: RequestContext) -> web.Response:
    await ctx.engine.upkeep.lost.remove(ctx.params["id"])
    return no_content()


ROUTES: list[Route] = [
    ("GET", "/system/lost", listing),
    ("POST", "/system/lost/{id}/restore", restore),
    ("DELETE", "/system/lost/{id}", remove),
]
