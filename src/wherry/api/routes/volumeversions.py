"""``/volumes/{name}/…`` beyond Docker's: snapshots, clones, schedules, sizes, and files in and out."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

from aiohttp import web

from wherry.api.bodies import request_file
from wherry.api.context import Context, json_response, no_content
from wherry.api.router import Route
from wherry.api.routes.files import path_of, stat_header, stream_archive
from wherry.api.routes.volumes import encode
from wherry.engine.files import Job, PathStat
from wherry.engine.volumeversions import ScheduleRow, SnapshotRow
from wherry.model.base import Value
from wherry.wire.times import rfc3339

_TYPES = {"none": "application/x-tar", "gzip": "application/gzip", "zstd": "application/zstd"}


class SnapshotCreate(Value, frozen=True, kw_only=True):
    name: str = ""
    freeze: bool = False


class CloneCreate(Value, frozen=True, kw_only=True):
    """``labels`` None takes over those of the volume."""

    name: str
    snapshot: str = ""
    labels: dict[str, str] | None = None
    freeze: bool = False


class Schedule(Value, frozen=True, kw_only=True):
    """``every`` in seconds, 0 for no schedule any more."""

    every: int
    keep: int = 24
    freeze: bool = False


def _snapshot(row: SnapshotRow) -> dict[str, Any]:
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


async def list_snapshots(ctx: Context) -> web.Response:
    name = ctx.params["name"]
    found = [_snapshot(row) for row in ctx.services.volume_versions.snapshots(name)]
    schedule = _schedule(ctx.services.volume_versions.schedule_of(name))
    return json_response({"Snapshots": found, "Schedule": schedule})


async def create_snapshot(ctx: Context) -> web.Response:
    body = await ctx.optional_json(SnapshotCreate)
    row = await ctx.services.volume_versions.snapshot(ctx.params["name"], body.name, freeze=body.freeze)
    return json_response(_snapshot(row), status=201)


async def remove_snapshot(ctx: Context) -> web.Response:
    await ctx.services.volume_versions.remove(ctx.params["name"], ctx.params["snapshot"])
    return no_content()


async def restore_snapshot(ctx: Context) -> web.Response:
    kept = await ctx.services.volume_versions.restore(ctx.params["name"], ctx.params["snapshot"])
    return json_response({"Kept": _snapshot(kept)})


async def clone(ctx: Context) -> web.Response:
    body = await ctx.json(CloneCreate)
    made = await ctx.services.volume_versions.clone(
        ctx.params["name"], body.name, snapshot=body.snapshot, labels=body.labels, freeze=body.freeze
    )
    return json_response(encode(made), status=201)


async def set_schedule(ctx: Context) -> web.Response:
    body = await ctx.json(Schedule)
    row = ctx.services.volume_versions.schedule(
        ctx.params["name"], every=body.every, keep=body.keep, freeze=body.freeze
    )
    return json_response({"Schedule": _schedule(row)})


async def differences(ctx: Context) -> web.Response:
    found = await ctx.services.volume_versions.differences(
        ctx.params["name"], ctx.text("from"), ctx.text("to")
    )
    return json_response([{"Path": change.path, "Kind": change.kind} for change in found])


async def sizes(ctx: Context) -> web.Response:
    found = await ctx.services.volume_versions.sizes(
        ctx.params["name"], ctx.text("snapshot"), ctx.integer("depth", 1) or 0
    )
    return json_response([{"Path": s.path, "Size": s.size, "Entries": s.entries} for s in found])


async def export(ctx: Context) -> web.StreamResponse:
    name, snapshot = ctx.params["name"], ctx.text("snapshot")
    compression = ctx.text("compression") or "none"
    ctx.services.volume_files.check_export(name, snapshot, compression)

    async def produce(target: BinaryIO, job: Job) -> None:
        files = ctx.services.volume_files
        await files.export(name, target, job, compression=compression, snapshot=snapshot)

    return await stream_archive(ctx, produce, None, _TYPES[compression])


async def import_(ctx: Context) -> web.Response:
    labels = dict(label.partition("=")[::2] for label in ctx.query.getall("label", []))
    async with request_file(ctx.request) as source:
        volume = await ctx.services.volume_files.import_(
            ctx.params["name"], source, Job(), labels=labels, merge=ctx.flag("merge")
        )
    return json_response(encode(volume), status=201)


async def stat_archive(ctx: Context) -> web.Response:
    stat = await ctx.services.volume_files.stat(ctx.params["name"], path_of(ctx), ctx.text("snapshot"))
    return web.Response(headers=stat_header(stat), content_type=_TYPES["none"])


async def get_archive(ctx: Context) -> web.StreamResponse:
    name, path = ctx.params["name"], path_of(ctx)
    ready: asyncio.Future[PathStat] = asyncio.get_running_loop().create_future()

    async def produce(target: BinaryIO, job: Job) -> None:
        files = ctx.services.volume_files
        await files.read(name, path, target, job, ready.set_result, ctx.text("snapshot"))

    return await stream_archive(ctx, produce, ready)


async def put_archive(ctx: Context) -> web.Response:
    name, path = ctx.params["name"], path_of(ctx)
    keep_kinds = ctx.flag("noOverwriteDirNonDir")
    async with request_file(ctx.request) as source:
        await ctx.services.volume_files.write(name, path, source, Job(), keep_kinds=keep_kinds)
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
