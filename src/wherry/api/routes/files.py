"""Files in and out of containers: ``archive``, ``export``, ``changes``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from aiohttp import web

from wherry import threads
from wherry.api.bodies import ResponseFile, request_file
from wherry.api.context import RequestContext, json_response
from wherry.api.router import Route
from wherry.api.server import begin_stream
from wherry.engine.containers.files import Job, PathStat
from wherry.errors import InvalidArgument
from wherry.wire.files import PATH_STAT, path_stat

_TAR = "application/x-tar"


def path_of(ctx: RequestContext) -> str:
    path = ctx.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def stat_header(stat: PathStat) -> dict[str, str]:
    value = path_stat(name=stat.name, size=stat.size, mode=stat.mode, mtime=stat.mtime, target=stat.target)
    return {PATH_STAT: value}


async def stat_archive(ctx: RequestContext) -> web.Response:
    stat = await ctx.engine.containers.files.stat(ctx.params["id"], path_of(ctx))
    return web.Response(headers=stat_header(stat), content_type=_TAR)


async def get_archive(ctx: RequestContext) -> web.StreamResponse:
    path = path_of(ctx)
    ready: asyncio.Future[PathStat] = asyncio.get_running_loop().create_future()

    async def produce(target: BinaryIO, job: Job) -> None:
        await ctx.engine.containers.files.read(ctx.params["id"], path, target, job, ready.set_result)

    return await stream_archive(ctx, produce, ready)


async def export(ctx: RequestContext) -> web.StreamResponse:
    ctx.engine.containers.service.find(ctx.params["id"])

    async def produce(target: BinaryIO, job: Job) -> None:
        await ctx.engine.containers.files.export(ctx.params["id"], target, job)

    return await stream_archive(ctx, produce, None, "application/octet-stream")


async def stream_archive(
    ctx: RequestContext,
    produce: Callable[[BinaryIO, Job], Awaitable[None]],
    ready: asyncio.Future[PathStat] | None,
    content_type: str = _TAR,
) -> web.StreamResponse:
    """Send what ``produce`` writes. A failure before ``ready`` is an HTTP error; a later one breaks the
    stream off."""
    out, job = ResponseFile(), Job()

    async def work() -> None:
        try:
            await produce(out.file, job)
        finally:
            await threads.waits(out.close_write)

    producer = asyncio.ensure_future(work())
    try:
        headers = {}
        if ready is not None:
            producer.add_done_callback(lambda _task: ready.done() or ready.cancel())
            await asyncio.wait([ready])
            if ready.cancelled():
                await producer
            headers = stat_header(ready.result())
        response = await begin_stream(ctx.request, content_type, headers)
        await out.send(ctx.request, response)
        # The response has begun, so break the stream off: the client must not take it for complete.
        await producer
    finally:
        job.end()
        out.close()
        await asyncio.gather(producer, return_exceptions=True)
    await response.write_eof()
    return response


async def put_archive(ctx: RequestContext) -> web.Response:
    path = path_of(ctx)
    job = Job()
    async with request_file(ctx.request) as source:
        await ctx.engine.containers.files.write(
            ctx.params["id"],
            path,
            source,
            job,
            keep_kinds=ctx.flag("noOverwriteDirNonDir"),
            for_user=ctx.flag("copyUIDGID"),
        )
    return web.Response()


async def changes(ctx: RequestContext) -> web.Response:
    found = await ctx.engine.containers.files.changes(ctx.params["id"])
    return json_response([{"Path": change.path, "Kind": change.kind} for change in found] or None)


ROUTES: list[Route] = [
    ("HEAD", "/containers/{id}/archive", stat_archive),
    ("GET", "/containers/{id}/archive", get_archive),
    ("PUT", "/containers/{id}/archive", put_archive),
    ("GET", "/containers/{id}/export", export),
    ("GET", "/containers/{id}/changes", changes),
]
