"""``GET /system/df``: the disk usage of each kind of object, and of each object if the
client asks for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from wherry import threads
from wherry.api.context import RequestContext, json_response
from wherry.api.router import Route
from wherry.api.routes.volumes import encode as encode_volume
from wherry.engine.containers.listing import ListOptions
from wherry.errors import InvalidArgument
from wherry.wire import builds as wire_builds
from wherry.wire import containers as wire_containers
from wherry.wire import images as wire_images

if TYPE_CHECKING:
    from wherry.engine.builds.cache import CacheUsage

Part = tuple[dict[str, Any], dict[str, Any]]
"""The members of answers before 1.53, and the usage with its items."""


async def disk_usage(ctx: RequestContext) -> web.Response:
    """Before 1.53 everything is listed beside the sums, unless a client of 1.52 says which it wants."""
    if ctx.text("verbose") and ctx.version >= (1, 52):
        listed, legacy = ctx.truth("verbose"), False
    else:
        listed, legacy = False, ctx.version < (1, 53)
    types = ctx.query.getall("type", []) if ctx.version >= (1, 42) else []
    unknown = set(types) - set(_PARTS)
    if unknown:
        raise InvalidArgument(f"unknown object type: {min(unknown)}")
    out: dict[str, Any] = {}
    for kind, (name, measure) in _PARTS.items():
        if types and kind not in types:
            continue
        older, usage = await measure(ctx)
        if not listed:
            del usage["Items"]
        out |= {name: usage, **(older if legacy else {})}
    return json_response(out)


async def _images(ctx: RequestContext) -> Part:
    found = await ctx.engine.images.service.select({}, shared_size=True)
    items = [
        # The sums of every client come from these counts, so each version has them, unlike a list of images.
        wire_images.summary(image, count, ctx.version, with_manifests=False) | {"Containers": count}
        for image, count in found
    ]
    layers = await ctx.engine.images.service.disk_usage()
    # The bytes that removing all unused images would free, including those that only they share.
    used = await ctx.engine.images.service.disk_usage([image.id for image, count in found if count])
    active = sum(1 for _image, count in found if count)
    return {"LayersSize": layers, "Images": items}, _usage(items, active, layers, max(0, layers - used))


async def _containers(ctx: RequestContext) -> Part:
    views = await ctx.engine.containers.listing.listed(ListOptions(all=True, size=True))
    items = [wire_containers.summary(view, ctx.version) for view in views]
    stopped = sum(v.size_rw or 0 for v in views if v.state.status not in ("running", "paused"))
    running = sum(1 for v in views if v.state.status in ("running", "paused", "restarting"))
    total = sum(v.size_rw or 0 for v in views)
    return {"Containers": items}, _usage(items, running, total, stopped)


async def _volumes(ctx: RequestContext) -> Part:
    items, active, total, free = [], 0, 0, 0
    for volume in ctx.engine.volumes.service.select({}):
        size = await ctx.engine.volumes.service.usage(volume)
        references = ctx.engine.volumes.service.references(volume)
        items.append({**encode_volume(volume), "UsageData": {"Size": size, "RefCount": references}})
        active += bool(references)
        total += max(0, size)
        free += 0 if references else max(0, size)
    return {"Volumes": items}, _usage(items, active, total, free)


async def _build_cache(ctx: RequestContext) -> Part:
    await ctx.engine.open_builds()
    found = await threads.disk(ctx.engine.builds.cache.usage)
    items = [_cache_record(one) for one in found]
    if ctx.version < (1, 42):
        items = [{**item, "Parent": (item["Parents"] or [""])[0]} for item in items]
    own = [one for one in found if not one.shared]
    usage = _usage(
        items,
        sum(one.in_use for one in found),
        sum(one.row.size for one in own),
        sum(one.row.size for one in own if not one.in_use),
    )
    return {"BuildCache": items}, usage


def _cache_record(one: CacheUsage) -> dict[str, Any]:
    row = one.row
    return wire_builds.cache_record(
        identifier=row.id,
        parent=row.parent,
        kind=row.kind,
        description=row.description,
        in_use=one.in_use,
        shared=one.shared,
        size=row.size,
        created=row.created,
        used=row.used,
        uses=row.uses,
    )


def _usage(items: list[dict[str, Any]], active: int, total: int, free: int) -> dict[str, Any]:
    return {
        "ActiveCount": active,
        "TotalCount": len(items),
        "TotalSize": total,
        "Reclaimable": free,
        "Items": items,
    }


_PARTS = {
    "image": ("ImageUsage", _images),
    "container": ("ContainerUsage", _containers),
    "volume": ("VolumeUsage", _volumes),
    "build-cache": ("BuildCacheUsage", _build_cache),
}

ROUTES: list[Route] = [("GET", "/system/df", disk_usage)]
