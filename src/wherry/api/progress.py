"""What the handlers that fetch, send and make images share: progress as a stream, platforms, credentials."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from wherry.api.context import Context
from wherry.api.server import JsonStream
from wherry.errors import InvalidArgument, WherryError
from wherry.model import oci
from wherry.model.base import convert
from wherry.model.credentials import Credentials
from wherry.model.oci import Platform
from wherry.wire import auth as wire_auth

_BACKLOG = 1000


def platform(ctx: Context) -> Platform | None:
    """``platform`` is an OCI platform as JSON, or ``os/arch[/variant]``."""
    text = ctx.text("platform")
    if not text:
        return None
    return parse_platform(text)


def parse_platform(text: str) -> Platform:
    if text.startswith("{"):
        try:
            return convert(msgspec.json.decode(text), Platform)
        except msgspec.DecodeError as e:
            raise InvalidArgument(f"failed to parse platform: {e}") from e
    return oci.parse_platform(text)


def platforms(ctx: Context) -> list[Platform]:
    return [parse_platform(text) for text in ctx.query.getall("platform", []) if text]


def registry_credentials(ctx: Context) -> list[Credentials]:
    """Of ``X-Registry-Config``, then of ``X-Registry-Auth``, which counts more."""
    headers = ctx.request.headers
    found = wire_auth.parse_config(headers.get("X-Registry-Config", ""))
    return [*found, wire_auth.parse_auth(headers.get("X-Registry-Auth", ""))]


class Reporter:
    """Called on a thread with progress messages; the loop sends them."""

    def __init__(self, queue: asyncio.Queue[dict[str, Any] | None], *, quiet: bool) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._quiet = quiet

    def __call__(self, message: dict[str, Any]) -> None:
        if not self._quiet:
            self._loop.call_soon_threadsafe(self.on_loop, message)

    def on_loop(self, message: dict[str, Any]) -> None:
        """From the loop's own thread. To a client that does not read, no numbers are told."""
        if self._queue.qsize() < _BACKLOG or not message.get("progressDetail"):
            self._queue.put_nowait(message)


async def with_progress(ctx: Context, work: Any, *, quiet: bool, abandon: bool = False) -> web.StreamResponse:
    """Run ``work`` and send what it reports. What fails at once is an HTTP error; later, a line says so.

    :param abandon: whether a client that goes away ends the work; otherwise it comes to its end.
    """
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(Reporter(queue, quiet=quiet)))
    task.add_done_callback(lambda _task: queue.put_nowait(None))
    try:
        first = await queue.get()
        if first is None and task.exception() is not None:
            raise task.exception()
        stream = await JsonStream.begin(ctx.request)
        message = first
        while message is not None:
            await stream.send(message)
            message = await queue.get()
        try:
            for line in await task:
                await stream.send(line)
        except WherryError as e:
            await stream.send({"errorDetail": {"message": e.message}, "error": e.message})
        return stream.response
    finally:
        if abandon:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
