"""``/volumes``: decode, one engine call, encode."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from wherry import threads
from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.router import Route
from wherry.api.routes.missing import no_manager
from wherry.engine.volumes.service import Volume
from wherry.errors import Unavailable
from wherry.model.base import Value
from wherry.wire import filters as wire_filters
from wherry.wire import objects as wire
from wherry.wire.times import rfc3339

LIST_FILTERS = frozenset({"dangling", "driver", "label", "label!", "name"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})


class VolumeCreate(Value, frozen=True, kw_only=True):
    """API ``VolumeCreateOptions``."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


def encode(volume: Volume) -> dict[str, Any]:
    return wire.volume(
        name=volume.name,
        driver=volume.driver,
        mountpoint=str(volume.mountpoint or ""),
        created=volume.created,
        labels=volume.labels,
        options=volume.options,
        scope=volume.scope,
    )


async def list_volumes(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    wire_filters.boolean(filters, "dangling")
    found = ctx.engine.volumes.service.select(filters)
    return json_response({"Volumes": [encode(v) for v in found], "Warnings": None})


async def create(ctx: RequestContext) -> web.Response:
    body = await ctx.optional_json(VolumeCreate)
    if body.cluster_volume_spec is not None:
        raise no_manager()
    volume = await ctx.engine.volumes.service.create(
        body.name, driver=body.driver, options=body.driver_opts or {}, labels=body.labels or {}
    )
    return json_response(encode(volume), status=201)


async def inspect(ctx: RequestContext) -> web.Response:
    """Docker's document, and ``Containers``: which containers use the volume, where, and since when."""
    volume = ctx.engine.volumes.service.get(ctx.params["name"])
    users = [
        {
            "Id": user.container_id,
            "Name": user.name,
            "Since": rfc3339(user.since) if user.since else "",
            "Destinations": list(user.destinations),
            "Status": user.status,
        }
        for user in ctx.engine.volumes.service.users(volume)
    ]
    status = await threads.runtime(ctx.engine.volumes.service.status, volume)
    answer = {**encode(volume), "Id": volume.id, "Containers": users}
    return json_response({**answer, "Status": status} if status else answer)


async def rename(ctx: RequestContext) -> web.Response:
    renamed = await ctx.engine.volumes.service.rename(ctx.params["name"], ctx.text("name"))
    return json_response(encode(renamed))


async def remove(ctx: RequestContext) -> web.Response:
    await ctx.engine.volumes.service.remove(ctx.params["name"], force=ctx.flag("force"))
    return no_content()


async def update(_ctx: RequestContext) -> web.Response:
    """Volumes of a swarm's cluster alone can be updated, so there is nothing to update here."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def prune(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    # Before 1.42 a prune removed named volumes as well.
    everything = bool(wire_filters.boolean(filters, "all")) or ctx.version < (1, 42)
    removed, freed = await ctx.engine.volumes.service.prune(filters, everything=everything)
    return json_response({"VolumesDeleted": removed, "SpaceReclaimed": freed})


ROUTES: list[Route] = [
    ("GET", "/volumes", list_volumes),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("POST", "/volumes/{name}/rename", rename),
    ("GET", "/volumes/{name}", inspect),
    ("PUT", "/volumes/{name}", update),
    ("DELETE", "/volumes/{name}", remove),
]
