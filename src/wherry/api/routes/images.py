"""``/images``: decode, one engine call, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from wherry.api.bodies import ResponseFile, request_file
from wherry.api.context import Context, json_response
from wherry.api.progress import Reporter, platform, platforms, registry_credentials, with_progress
from wherry.api.router import Route
from wherry.api.server import begin_stream
from wherry.engine.changes import parse_changes
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model import reference
from wherry.wire import filters as wire_filters
from wherry.wire import images as wire
from wherry.wire.times import parse_timestamp

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "until", "label", "label!", "versions"})


async def list_images(ctx: Context) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    with_manifests = ctx.flag("manifests")
    found = await ctx.services.images.select(
        filters, manifests=with_manifests, shared_size=ctx.flag("shared-size")
    )
    until = parse_timestamp(filters["until"][0]) if "until" in filters else None
    return json_response(
        [
            wire.summary(image, containers, with_manifests=with_manifests)
            for image, containers in found
            if until is None or image.created * 10**9 < until
        ]
    )


async def inspect(ctx: Context) -> web.Response:
    details = await ctx.services.images.inspect(ctx.params["name"], platform(ctx))
    info = ctx.services.system.driver
    return json_response(
        wire.inspect(
            details.image, details.size, details.manifests, driver=info, with_manifests=ctx.flag("manifests")
        )
    )


async def history(ctx: Context) -> web.Response:
    entries = await ctx.services.images.history(ctx.params["name"], platform(ctx))
    return json_response(wire.history(entries))


async def versions(ctx: Context) -> web.Response:
    """An addition: what a name has pointed at, newest first."""
    found = await ctx.services.images.versions(ctx.params["name"])
    return json_response([wire.version(one) for one in found])


async def rollback(ctx: Context) -> web.Response:
    """An addition: point a name at an earlier version, ``to`` counted back or a digest."""
    version, before = await ctx.services.images.rollback(ctx.params["name"], ctx.text("to") or "1")
    return json_response({"Id": version.target, "From": before.target, "Version": version.number})


async def compare(ctx: Context) -> web.Response:
    """An addition: what makes the image ``to`` differ from this one."""
    found = await ctx.services.images.compare(ctx.params["name"], ctx.text("to"), platform(ctx))
    return json_response(wire.comparison(found))


async def tag(ctx: Context) -> web.Response:
    await ctx.services.images.tag(ctx.params["name"], ctx.text("repo"), ctx.text("tag"))
    return web.Response(status=201)


async def delete(ctx: Context) -> web.Response:
    if platforms(ctx):
        raise NotImplemented_("removing single platforms of an image is not implemented yet")
    removed = await ctx.services.images.delete(ctx.params["name"], force=ctx.flag("force"))
    return json_response(wire.removed(removed))


async def prune(ctx: Context) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    dangling = wire_filters.boolean(filters, "dangling")
    until = parse_timestamp(filters["until"][0]) if "until" in filters else None
    removed, freed = await ctx.services.images.prune(
        dangling=True if dangling is None else dangling,
        until=None if until is None else until // 10**9,
        labels=lambda labels: wire_filters.label_filters_match(filters, labels),
        versions=bool(wire_filters.boolean(filters, "versions")),
    )
    return json_response({"ImagesDeleted": wire.removed(removed) or None, "SpaceReclaimed": freed})


async def save(ctx: Context) -> web.StreamResponse:
    names = [ctx.params["name"]] if "name" in ctx.params else _names(ctx)
    if not names:
        raise InvalidArgument("no image names given")
    await ctx.services.images.check_names(names)
    out = ResponseFile()
    response = await begin_stream(ctx.request, "application/x-tar")

    async def produce() -> None:
        try:
            await ctx.services.images.save(names, out.file, platforms=platforms(ctx))
        finally:
            await asyncio.to_thread(out.close_write)

    producer = asyncio.create_task(produce())
    try:
        async for chunk in out.chunks():
            await response.write(chunk)
        # A failure by now can only break the stream off: the client must not take half for whole.
        await producer
    finally:
        out.close()
        await asyncio.gather(producer, return_exceptions=True)
    await response.write_eof()
    return response


def _names(ctx: Context) -> list[str]:
    return [name for text in ctx.query.getall("names", []) for name in text.split(",") if name]


async def load(ctx: Context) -> web.StreamResponse:
    async with request_file(ctx.request) as source:

        async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
            lines = await ctx.services.images.load(source, platforms=platforms(ctx), progress=progress)
            # The progress has told of each image already, where it was asked for.
            return [{"stream": f"{line}\n"} for line in lines] if ctx.flag("quiet") else []

        return await with_progress(ctx, work, quiet=ctx.flag("quiet"))


async def create(ctx: Context) -> web.StreamResponse:
    """Pull an image (``fromImage``), or import a root file system (``fromSrc``)."""
    if ctx.text("fromImage"):
        return await pull(ctx)
    source_name = ctx.text("fromSrc")
    if not source_name:
        raise InvalidArgument("neither fromImage nor fromSrc says what to create an image from")
    if source_name != "-":
        raise NotImplemented_("importing from a URL is not implemented yet: send the archive as the body")
    config = parse_changes(ctx.query.getall("changes", []))
    name = ctx.text("repo")
    if name and ctx.text("tag"):
        name = f"{name}:{ctx.text('tag')}"
    async with request_file(ctx.request) as source:

        async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
            image = await ctx.services.images.import_rootfs(
                source, name=name, message=ctx.text("message"), config=config, platform=platform(ctx)
            )
            return [{"status": image.id}]

        return await with_progress(ctx, work, quiet=True)


async def pull(ctx: Context) -> web.StreamResponse:
    wanted = reference.parse(ctx.text("fromImage"))
    if wanted.digest is None and (tag_or_digest := ctx.text("tag")):
        wanted = (
            reference.parse(f"{wanted.name}@{tag_or_digest}")
            if ":" in tag_or_digest
            else wanted.with_tag(tag_or_digest)
        )
    credentials = registry_credentials(ctx)
    chosen = platform(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        await ctx.services.pulls.pull(
            wanted, platform=chosen, credentials=credentials, progress=progress.on_loop
        )
        return []

    return await with_progress(ctx, work, quiet=False, abandon=True)


async def bootstrap(ctx: Context) -> web.StreamResponse:
    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        image = await ctx.services.images.bootstrap(
            ctx.text("name"),
            progress=progress,
            mirror=ctx.text("mirror"),
            variant=ctx.text("variant"),
            force=ctx.flag("force"),
        )
        return [{"status": f"Image {ctx.text('name')} is ready", "aux": {"ID": image.id}}]

    return await with_progress(ctx, work, quiet=False)


ROUTES: list[Route] = [
    ("GET", "/images/json", list_images),
    ("GET", "/images/get", save),
    ("POST", "/images/load", load),
    ("POST", "/images/create", create),
    ("POST", "/images/bootstrap", bootstrap),
    ("POST", "/images/prune", prune),
    ("GET", "/images/{name:path}/json", inspect),
    ("GET", "/images/{name:path}/history", history),
    ("GET", "/images/{name:path}/get", save),
    ("GET", "/images/{name:path}/diff", compare),
    ("GET", "/images/{name:path}/versions", versions),
    ("POST", "/images/{name:path}/rollback", rollback),
    ("POST", "/images/{name:path}/tag", tag),
    ("DELETE", "/images/{name:path}", delete),
]
