"""Push volumes to registries and pull them. Docker has nothing like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from wherry.api.context import RequestContext
from wherry.api.progress import Reporter, registry_credentials, with_progress
from wherry.api.router import Route
from wherry.model import reference


async def push(ctx: RequestContext) -> web.StreamResponse:
    target, credentials = reference.parse(ctx.text("to")), registry_credentials(ctx)
    name, snapshot = ctx.params["name"], ctx.text("snapshot")

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        sent = await ctx.engine.volumes.registry.push(
            name, target, snapshot=snapshot, credentials=credentials, progress=progress.on_loop
        )
        return [{"progressDetail": {}, "aux": {"Digest": sent.digest, "Size": sent.size}}]

    return await with_progress(ctx, work, quiet=False, abandon=True)


async def pull(ctx: RequestContext) -> web.StreamResponse:
    source, credentials = reference.parse(ctx.text("from")), registry_credentials(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        volume = await ctx.engine.volumes.registry.pull(
            source, ctx.text("name"), credentials=credentials, progress=progress.on_loop
        )
        return [{"progressDetail": {}, "aux": {"Name": volume.name}}]

    return await with_progress(ctx, work, quiet=False, abandon=True)


ROUTES: list[Route] = [
    ("POST", "/volumes/pull", pull),
    ("POST", "/volumes/{name}/push", push),
]
