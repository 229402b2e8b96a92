"""Shared by the handlers that pull, push and build images: progress streams, platforms, credentials."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from wherry.api.context import ABANDONED, RequestContext
from wherry.api.server import JsonStream
from wherry.engine.builds.runfailed import RunFailed
from wherry.errors import InvalidArgument, WherryError
from wherry.model import oci
from wherry.model.credentials import Credentials
from wherry.model.oci import Platform
from wherry.wire import auth as wire_auth
from wherry.wire.gojson import unmarshal

_BACKLOG = 1000


def platform(ctx: RequestContext) -> Platform | None:
    """``platform`` is an OCI platform as JSON, or ``os/arch[/variant]``."""
    text = ctx.text("platform")
    if not text:
        return None
    return parse_platform(text)


def parse_platform(text: str) -> Platform:
    if text.startswith("{"):
        found = unmarshal(text, Platform, "failed to parse platform")
        if not found.os or not found.architecture:
            raise InvalidArgument("both OS and Architecture must be provided")
        return found
    return oci.parse_platform(text)


def platforms(ctx: RequestContext, name: str = "platform") -> list[Platform]:
    return [parse_platform(text) for text in ctx.query.getall(name, []) if text]


def registry_credentials(ctx: RequestContext) -> list[Credentials]:
    """From ``X-Registry-Config`` and ``X-Registry-Auth``; the latter has precedence."""
    headers = ctx.request.headers
    found = wire_auth.parse_config(headers.get("X-Registry-Config", ""))
    return [*found, wire_auth.parse_auth(headers.get("X-Registry-Auth", ""))]


def _detail(error: WherryError) -> dict[str, Any]:
    """The error's details; for a build's command also its exit code, which CI systems read."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if isinstance(cause, RunFailed):
            return {"code": cause.exit_code, "message": error.message}
        seen.append(cause)
        cause = cause.__cause__
    return {"message": error.message}


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
        """Called on the loop's own thread. If the client does not read, messages that contain only numbers
        are dropped."""
        if self._queue.qsize() < _BACKLOG or not message.get("progressDetail"):
            self._queue.put_nowait(message)


async def with_progress(
    ctx: RequestContext, work: Any, *, quiet: bool, abandon: bool = False
) -> web.StreamResponse:
    """Run ``work`` and send its progress. A failure at the start is an HTTP error; later it is a line of the
    stream.

    :param abandon: whether the work ends when the client disconnects; otherwise it is completed.
    """
    if abandon:
        ctx.request[ABANDONED] = True
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
            await stream.send({"errorDetail": _detail(e), "error": e.message})
        return stream.response
    finally:
        if abandon:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
