"""Bodies too large for memory: a request's body as a file to read, a response's body as a file to write.

The engine reads and writes on a thread; the loop feeds and drains a pipe beside it, so that neither side
holds more than the pipe does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from io import RawIOBase
from typing import BinaryIO

from aiohttp import web

from wherry.api.pouring import pour, socket_of

_CHUNK = 1 << 18
_PIPE_SIZE = 1 << 20
_WIDE_MAX = 16
"""The maximum number of pipes of that size; any others have the kernel's default of 64 KiB."""
_F_SETPIPE_SZ = 1031


class _Wide:
    """Counts the large pipes; used on the loop."""

    taken = 0


def _pipe() -> tuple[int, int, bool]:
    """Both ends of the pipe, and whether it is one of the large pipes."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if _Wide.taken >= _WIDE_MAX:
        return read_end, write_end, False
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, _PIPE_SIZE)
    _Wide.taken += 1
    return read_end, write_end, True


@contextlib.asynccontextmanager
async def request_file(request: web.BaseRequest) -> AsyncIterator[BinaryIO]:
    """The body as a readable file for a thread. If the body breaks off, the file is short."""
    read_end, write_end, wide = _pipe()
    sink = os.fdopen(write_end, "wb", buffering=0)
    feeder = asyncio.create_task(_feed(request, sink))
    source = os.fdopen(read_end, "rb", buffering=_CHUNK)
    try:
        yield source
    finally:
        source.close()
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        sink.close()  # a task that is cancelled before its first step does not run its ``finally``
        _Wide.taken -= wide


async def _feed(request: web.BaseRequest, sink: RawIOBase) -> None:
    loop = asyncio.get_running_loop()
    write_end = sink.fileno()
    os.set_blocking(write_end, False)
    try:
        async for chunk in request.content.iter_any():
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(write_end, view) :]
                except BlockingIOError:
                    await _ready(loop, write_end, write=True)
    except BrokenPipeError:
        pass  # The reader has closed its end: it needs no more data.
    finally:
        sink.close()


async def _ready(loop: asyncio.AbstractEventLoop, fd: int, *, write: bool) -> None:
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    if write:
        loop.add_writer(fd, wake)
    else:
        loop.add_reader(fd, wake)
    try:
        await future
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)


class ResponseFile:
    """A file a thread writes to, whose bytes :meth:`chunks` yields on the loop."""

    def __init__(self) -> None:
        self._read_end, write_end, self._wide = _pipe()
        os.set_blocking(self._read_end, False)
        self.file: BinaryIO = os.fdopen(write_end, "wb", buffering=_CHUNK)

    async def send(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Send everything as the response's body; its head was sent, its end is the caller's.

        Those with a large pipe are sent by a thread, so their number is bounded; any others by the loop.
        """
        target = socket_of(request, response) if self._wide else -1
        if target < 0:
            async for chunk in self.chunks():
                await response.write(chunk)
            return
        try:
            await pour(self._read_end, target)
        finally:
            os.close(target)

    async def chunks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = os.read(self._read_end, _CHUNK)
            except BlockingIOError:
                await _ready(loop, self._read_end, write=False)
                continue
            if not chunk:
                return
            yield chunk

    def close_write(self) -> None:
        """The work has ended, successfully or not: close the writing end, so that the reader sees end of
        file. Blocks until the loop has read the rest."""
        with contextlib.suppress(OSError):
            self.file.close()

    def close(self) -> None:
        if self._read_end >= 0:
            os.close(self._read_end)
            self._read_end = -1
            _Wide.taken -= self._wide
        self.close_write()
