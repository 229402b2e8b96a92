"""Send archives that the engine writes to a client, while they are being written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from aiohttp import web

from wherry import threads
from wherry.api.bodies import ResponseFile
from wherry.api.context import RequestContext
from wherry.api.server import begin_stream


async def _nothing() -> None:
    return


async def send_archive(
    ctx: RequestContext,
    write: Callable[[BinaryIO], Awaitable[None]],
    released: Callable[[], Awaitable[None]] = _nothing,
) -> web.StreamResponse:
    """Send the output of ``write``. Check everything before this call: the response begins here.

    :param released: called when the writing has ended, also if the client has disconnected.
    """
    out = ResponseFile()
    producers: list[asyncio.Task[None]] = []

    async def produce() -> None:
        try:
            await write(out.file)
        finally:
            await threads.waits(out.close_write)  # as long as the client takes to read the rest

    async def release() -> None:
        out.close()
        await asyncio.gather(*producers, return_exceptions=True)
        await released()

    try:
        response = await begin_stream(ctx.request, "application/x-tar")
        producers.append(asyncio.create_task(produce()))
        await out.send(ctx.request, response)
        # If this fails now, break the connection: otherwise the client would take half an archive for a
        # complete one.
        await producers[0]
    finally:
        # If the client disconnects, this is cancelled, also during the release.
        await asyncio.shield(asyncio.ensure_future(release()))
    await response.write_eof()
    return response
