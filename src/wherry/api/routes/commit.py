"""``POST /commit``: decode, one engine call, encode."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import RequestContext, json_response
from wherry.api.router import Route
from wherry.engine.containers.commit import CommitRequest
from wherry.model.container import ContainerConfig
from wherry.wire.gojson import decode


async def commit(ctx: RequestContext) -> web.Response:
    """Without a body, or with ``null``, the image gets the container's configuration."""
    container = ctx.text("container")
    body = (await ctx.body()).strip()
    request = CommitRequest(
        repository=ctx.text("repo"),
        tag=ctx.text("tag"),
        comment=ctx.text("comment"),
        author=ctx.text("author"),
        pause=ctx.flag("pause", default=True),
        changes=ctx.query.getall("changes", []),
        config=None if body in (b"", b"null", b"{}") else decode(body, ContainerConfig),
    )
    return json_response({"Id": await ctx.engine.containers.commit.commit(container, request)}, status=201)


ROUTES: list[Route] = [("POST", "/commit", commit)]
