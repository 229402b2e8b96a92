"""``/images``: decode, one engine call, encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from aiohttp import web

from wherry.api.archives import send_archive
from wherry.api.bodies import request_file
from wherry.api.context import RequestContext, json_response
from wherry.api.progress import Reporter, platform, platforms, registry_credentials, with_progress
from wherry.api.router import Route
from wherry.engine.images.changes import parse_changes
from wherry.errors import InvalidArgument, NotFound
from wherry.model import reference
from wherry.model.oci import Platform
from wherry.wire import filters as wire_filters
from wherry.wire import images as wire
from wherry.wire.times import parse_timestamp

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "until", "label", "label!", "versions"})


async def list_images(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    with_manifests = ctx.flag("manifests") and ctx.version >= (1, 47)
    shared_size = ctx.flag("shared-size") and ctx.version >= (1, 42)
    with_identity = ctx.flag("identity") and ctx.version >= (1, 54)
    if with_identity and not with_manifests:
        raise InvalidArgument("conflicting options: identity requires manifests=1")
    found = await ctx.engine.images.service.select(
        filters,
        manifests=with_manifests,
        shared_size=shared_size,
        until=parse_timestamp(filters["until"][0]) if "until" in filters else None,
    )
    shown = [image.id for image, _ in found] if with_identity else ()
    pulled = await ctx.engine.images.service.pulled(shown)
    return json_response(
        [
            wire.summary(
                image, uses, ctx.version, with_manifests=with_manifests, pulled=pulled.get(image.id, ())
            )
            for image, uses in found
        ]
    )


async def inspect(ctx: RequestContext) -> web.Response:
    wanted = platform(ctx) if ctx.version >= (1, 49) else None
    with_manifests = ctx.flag("manifests") and ctx.version >= (1, 48)
    if wanted is not None and with_manifests:
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    details = await ctx.engine.images.service.inspect(ctx.params["name"], wanted)
    return json_response(
        wire.inspect(
            details.image,
            details.size,
            details.manifests,
            ctx.version,
            driver=ctx.engine.upkeep.system.driver,
            with_manifests=with_manifests,
            pulled=details.pulled,
        )
    )


async def history(ctx: RequestContext) -> web.Response:
    wanted = platform(ctx) if ctx.version >= (1, 48) else None
    entries = await ctx.engine.images.service.history(ctx.params["name"], wanted)
    return json_response(wire.history(entries))


async def versions(ctx: RequestContext) -> web.Response:
    """An addition: the targets that a name had, newest first."""
    found = await ctx.engine.images.service.versions(ctx.params["name"])
    return json_response([wire.version(one) for one in found])


async def rollback(ctx: RequestContext) -> web.Response:
    """An addition: point a name at an earlier version. ``to`` is a number that counts back, or a digest."""
    version, before = await ctx.engine.images.service.rollback(ctx.params["name"], ctx.text("to") or "1")
    return json_response({"Id": version.target, "From": before.target, "Version": version.number})


async def compare(ctx: RequestContext) -> web.Response:
    """An addition: the differences between this image and the image ``to``."""
    found = await ctx.engine.images.service.compare(ctx.params["name"], ctx.text("to"), platform(ctx))
    return json_response(wire.comparison(found))


async def attestations(ctx: RequestContext) -> web.Response:
    if ctx.version < (1, 55):
        raise NotFound("page not found")
    if len(ctx.query.getall("platform", [])) > 1:
        raise InvalidArgument("only one platform value is currently supported")
    found = await ctx.engine.images.service.attestations(
        ctx.params["name"], platform(ctx), ctx.query.getall("type", []), bodies=ctx.flag("statement")
    )
    return json_response([wire.statement(one) for one in found])


async def tag(ctx: RequestContext) -> web.Response:
    await ctx.engine.images.service.tag(ctx.params["name"], ctx.text("repo"), ctx.text("tag"))
    return web.Response(status=201)


async def delete(ctx: RequestContext) -> web.Response:
    wanted = platforms(ctx, "platforms") if ctx.version >= (1, 50) else ()
    removed = await ctx.engine.images.service.delete(
        ctx.params["name"], force=ctx.flag("force"), platforms=wanted
    )
    return json_response(wire.removed(removed))


async def prune(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    dangling = wire_filters.boolean(filters, "dangling")
    until = wire_filters.until(filters)
    removed, freed = await ctx.engine.images.service.prune(
        dangling=True if dangling is None else dangling,
        until=None if until is None else until // 10**9,
        labels=lambda labels: wire_filters.label_filters_match(filters, labels),
        versions=bool(wire_filters.boolean(filters, "versions")),
    )
    return json_response({"ImagesDeleted": wire.removed(removed) or None, "SpaceReclaimed": freed})


def _archived(ctx: RequestContext) -> list[Platform]:
    """The platforms to save or load: one from API 1.48 on, several from 1.52 on. Empty for all."""
    if ctx.version < (1, 48):
        return []
    if ctx.version < (1, 52) and len(ctx.query.getall("platform", [])) > 1:
        raise InvalidArgument(
            "multiple platform parameters are not supported in this API version; "
            "use API version 1.52 or later"
        )
    return platforms(ctx)


async def save(ctx: RequestContext) -> web.StreamResponse:
    names = [ctx.params["name"]] if "name" in ctx.params else _names(ctx)
    if not names:
        raise InvalidArgument("no image names given")
    chosen = _archived(ctx)
    await ctx.engine.images.service.check_names(names, chosen)
    service = ctx.engine.images.service
    return await send_archive(ctx, lambda file: service.save(names, file, platforms=chosen))


def _names(ctx: RequestContext) -> list[str]:
    return [name for text in ctx.query.getall("names", []) for name in text.split(",") if name]


async def load(ctx: RequestContext) -> web.StreamResponse:
    chosen = _archived(ctx)
    async with request_file(ctx.request) as source:

        async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
            lines = await ctx.engine.images.service.load(source, platforms=chosen, progress=progress)
            # The progress stream, if it was asked for, has reported each image already.
            return [{"stream": f"{line}\n"} for line in lines] if ctx.flag("quiet") else []

        return await with_progress(ctx, work, quiet=ctx.flag("quiet"))


async def create(ctx: RequestContext) -> web.StreamResponse:
    """Pull an image (``fromImage``), or import a root file system (``fromSrc``)."""
    if ctx.text("fromImage"):
        return await pull(ctx)
    source_name = ctx.text("fromSrc")
    if not source_name:
        raise InvalidArgument("neither fromImage nor fromSrc says what to create an image from")
    config = parse_changes(ctx.query.getall("changes", []))
    name = ctx.text("repo")
    if name and ctx.text("tag"):
        name = f"{name}:{ctx.text('tag')}"
    service = ctx.engine.images.service

    async def imported(source: BinaryIO) -> Sequence[dict[str, Any]]:
        image = await service.import_rootfs(
            source, name=name, message=ctx.text("message"), config=config, platform=platform(ctx)
        )
        return [{"status": image.id}]

    async def fetched(progress: Reporter) -> Sequence[dict[str, Any]]:
        async with service.fetched(source_name, progress.on_loop) as source:
            return await imported(source)

    if source_name != "-":
        return await with_progress(ctx, fetched, quiet=False)
    async with request_file(ctx.request) as source:
        return await with_progress(ctx, lambda _: imported(source), quiet=True)


async def pull(ctx: RequestContext) -> web.StreamResponse:
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
        await ctx.engine.images.pulls.pull(
            wanted, platform=chosen, credentials=credentials, progress=progress.on_loop
        )
        return []

    return await with_progress(ctx, work, quiet=False, abandon=True)


async def bootstrap(ctx: RequestContext) -> web.StreamResponse:
    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        image = await ctx.engine.images.service.bootstrap(
            ctx.text("name"),
            progress=progress,
            mirror=ctx.text("mirror"),
            variant=ctx.text("variant"),
            force=ctx.flag("force"),
        )
        return [{"status": f"Image {ctx.text('name')} is ready", "aux": {"ID": image.id}}]

    return await with_progress(ctx, work, quiet=False, abandon=True)


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
    ("GET", "/images/{name:path}/attestations", attestations),
    ("GET", "/images/{name:path}/diff", compare),
    ("GET", "/images/{name:path}/versions", versions),
    ("POST", "/images/{name:path}/rollback", rollback),
    ("POST", "/images/{name:path}/tag", tag),
    ("DELETE", "/images/{name:path}", delete),
]
