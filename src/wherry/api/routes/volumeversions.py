"""``/volumes/{name}/…``, additions: snapshots, clones, schedules, sizes, and files in and out."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

from aiohttp import web

from wherry.api.bodies import request_file
from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.router import Route
from wherry.api.routes.files import path_of, stat_header, stream_archive
from wherry.api.routes.volumes import encode
from wherry.engine.containers.files import Job, PathStat
from wherry.engine.volumes.versions import ScheduleRow, VolumeSnapshotRow
from wherry.model.base import Value
from wherry.wire.times import rfc3339

_TYPES = {"none": "application/x-tar", "gzip": "application/gzip", "zstd": "application/zstd"}


class SnapshotCreate(Value, frozen=True, kw_only=True):
    name: str = ""
    freeze: bool = False


class CloneCreate(Value, frozen=True, kw_only=True):
    """``labels`` None: the clone gets the volume's labels."""

    name: str
    snapshot: str = ""
    labels: dict[str, str] | None = None
    freeze: bool = False


class Schedule(Value, frozen=True, kw_only=True):
    """``every`` in seconds, 0 for no schedule any more."""

    every: int
    keep: int = 24
    freeze: bool = False


def _snapshot(row: VolumeSnapshotRow) -> dict[str, Any]:
    return {
        "Name": row.name,
        "CreatedAt": rfc3339(row.created),
        "Origin": row.origin,
        "Frozen": row.frozen,
    }


def _schedule(row: ScheduleRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"Every": row.every, "Keep": row.keep, "Freeze": row.freeze, "Due": rfc3339(row.due)}


async def list_snapshots(ctx: RequestContext) -> web.Response:
    name = ctx.params["name"]
    found = [_snapshot(row) for row in ctx.engine.volumes.versions.snapshots(name)]
    schedule = _schedule(ctx.engine.volumes.versions.schedule_of(name))
    return json_response({"Snapshots": found, "Schedule": schedule})


async def create_snapshot(ctx: RequestContext) -> web.Response:
    body = await ctx.optional_json(SnapshotCreate)
    row = await ctx.engine.volumes.versions.snapshot(ctx.params["name"], body.name, freeze=body.freeze)
    return json_response(_snapshot(row), status=201)


async def remove_snapshot(ctx: RequestContext) -> web.Response:
    await ctx.engine.volumes.versions.remove(ctx.params["name"], ctx.params["snapshot"])
    return no_content()


async def restore_snapshot(ctx: RequestContext) -> web.Response:
    kept = await ctx.engine.volumes.versions.restore(ctx.params["name"], ctx.params["snapshot"])
    return json_response({"Kept": _snapshot(kept)})


async def clone(ctx: RequestContext) -> web.Response:
    body = await ctx.json(CloneCreate)
    made = await ctx.engine.volumes.versions.clone(
        ctx.params["name"], body.name, snapshot=body.snapshot, labels=body.labels, freeze=body.freeze
    )
    return json_response(encode(made), status=201)


async def set_schedule(ctx: RequestContext) -> web.Response:
    body = await ctx.json(Schedule)
    row = ctx.engine.volumes.versions.schedule(
        ctx.params["name"], every=body.every, keep=body.keep, freeze=body.freeze
    )
    return json_response({"Schedule": _schedule(row)})


async def differences(ctx: RequestContext) -> web.Response:
    found = await ctx.engine.volumes.versions.differences(
        ctx.params["name"], ctx.text("from"), ctx.text("to")
    )
    return json_response([{"Path": change.path, "Kind": change.kind} for change in found])


async def sizes(ctx: RequestContext) -> web.Response:
    found = await ctx.engine.volumes.versions.sizes(
        ctx.params["name"], ctx.text("snapshot"), ctx.integer("depth", 1) or 0
    )
    return json_response([{"Path": s.path, "Size": s.size, "Entries": s.entries} for s in found])


async def export(ctx: RequestContext) -> web.StreamResponse:
    name, snapshot = ctx.params["name"], ctx.text("snapshot")
    compression = ctx.text("compression") or "none"
    ctx.engine.volumes.files.check_export(name, snapshot, compression)

    async def produce(target: BinaryIO, job: Job) -> None:
        files = ctx.engine.volumes.files
        await files.export(name, target, job, compression=compression, snapshot=snapshot)

    return await stream_archive(ctx, produce, None, _TYPES[compression])


async def import_(ctx: RequestContext) -> web.Response:
    labels = dict(label.partition("=")[::2] for label in ctx.query.getall("label", []))
    async with request_file(ctx.request) as source:
        volume = await ctx.engine.volumes.files.import_(
            ctx.params["name"], source, Job(), labels=labels, merge=ctx.flag("merge")
        )
    return json_response(encode(volume), status=201)


async def stat_archive(ctx: RequestContext) -> web.Response:
    stat = await ctx.engine.volumes.files.stat(ctx.params["name"], path_of(ctx), ctx.text("snapshot"))
    return web.Response(headers=stat_header(stat), content_type=_TYPES["none"])


async def get_archive(ctx: RequestContext) -> web.StreamResponse:
    name, path = ctx.params["name"], path_of(ctx)
    ready: asyncio.Future[PathStat] = asyncio.get_running_loop().create_future()

    async def produce(target: BinaryIO, job: Job) -> None:
        files = ctx.engine.volumes.files
        await files.read(name, path, target, job, ready.set_result, ctx.text("snapshot"))

    return await stream_archive(ctx, produce, ready)


async def put_archive(ctx: RequestContext) -> web.Response:
    name, path = ctx.params["name"], path_of(ctx)
    keep_kinds = ctx.flag("noOverwriteDirNonDir")
    async with request_file(ctx.request) as source:
        await ctx.engine.volumes.files.write(name, path, source, Job(), keep_kinds=keep_kinds)
    return web.Response()


ROUTES: list[Route] = [
    ("GET", "/volumes/{name}/snapshots", list_snapshots),
    ("POST", "/volumes/{name}/snapshots", create_snapshot),
    ("DELETE", "/volumes/{name}/snapshots/{snapshot}", remove_snapshot),
    ("POST", "/volumes/{name}/snapshots/{snapshot}/restore", restore_snapshot),
    ("POST", "/volumes/{name}/clone", clone),
    ("POST", "/volumes/{name}/schedule", set_schedule),
    ("GET", "/volumes/{name}/changes", differences),
    ("GET", "/volumes/{name}/sizes", sizes),
    ("GET", "/volumes/{name}/export", export),
    ("POST", "/volumes/{name}/import", import_),
    ("HEAD", "/volumes/{name}/archive", stat_archive),
    ("GET", "/volumes/{name}/archive", get_archive),
    ("PUT", "/volumes/{name}/archive", put_archive),
]
