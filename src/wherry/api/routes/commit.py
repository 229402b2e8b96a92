"""``POST /commit``: decode, one engine call, encode."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import Context, json_response
from wherry.api.router import Route
from wherry.engine.commit import CommitRequest
from wherry.errors import InvalidArgument
from wherry.model.base import decode
from wherry.model.container import ContainerConfig


async def commit(ctx: Context) -> web.Response:
    """A body of ``null`` or nothing leaves the configuration to the container."""
    container = ctx.text("container")
    if not container:
        raise InvalidArgument("bad parameter: container cannot be empty")
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
    return json_response({"Id": await ctx.services.commit.commit(container, request)}, status=201)


ROUTES: list[Route] = [("POST", "/commit", commit)]
