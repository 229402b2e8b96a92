"""``/_ping``, ``/version``, ``/info``, ``/events``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from aiohttp import web

from wherry import threads
from wherry.api import about
from wherry.api.context import RequestContext, json_response
from wherry.api.progress import Reporter, registry_credentials, with_progress
from wherry.api.router import API_VERSION, MIN_VERSION, Route, version_text
from wherry.api.server import SEQUENCE, JsonStream
from wherry.errors import InvalidArgument
from wherry.model.base import to_builtins
from wherry.model.events import Event
from wherry.wire import filters as wire_filters
from wherry.wire import system as wire
from wherry.wire.times import parse_timestamp

_LINES = "application/x-ndjson"
_OFFERED = ("application/jsonl", SEQUENCE)


async def ping(ctx: RequestContext) -> web.Response:
    headers = {
        "Builder-Version": "2",
        "Swarm": "inactive",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    body = b"" if ctx.request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")


async def version(ctx: RequestContext) -> web.Response:
    value = ctx.engine.upkeep.system.version()
    components: list[dict[str, Any]] = [
        {
            "Name": "Engine",
            "Version": value.version,
            "Details": {
                "ApiVersion": version_text(API_VERSION),
                "Arch": value.arch,
                "MinAPIVersion": version_text(MIN_VERSION),
                "Os": value.os,
                "KernelVersion": value.kernel,
                "PythonVersion": value.python,
            },
        }
    ]
    components += [{"Name": c.name, "Version": c.version, "Details": {}} for c in value.components]
    return json_response(
        {
            "Platform": {"Name": "wherry"},
            "Components": components,
            "Version": value.version,
            "ApiVersion": version_text(API_VERSION),
            "MinAPIVersion": version_text(MIN_VERSION),
            "GitCommit": "",
            "GoVersion": "",
            "Os": value.os,
            "Arch": value.arch,
            "KernelVersion": value.kernel,
            "BuildTime": "",
        }
    )


async def info(ctx: RequestContext) -> web.Response:
    value = await threads.runtime(ctx.engine.upkeep.system.info)
    return json_response(about.document(value, ctx))


def _stream_type(accept: str) -> str:
    """The media type that the client prefers, lines or a JSON sequence; the original one if
    it prefers none."""
    best, found = 0.0, "application/json"
    for text in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in text.split(";"))
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        offered = _LINES if kind == "*/*" else kind
        if offered not in (*_OFFERED, _LINES) or not re.fullmatch(r"[01](\.\d{0,3})?", quality):
            continue
        if float(quality) > best:
            best, found = float(quality), offered
    return found


_EVENTS_AT_ONCE = 200


async def events(ctx: RequestContext) -> web.StreamResponse:
    """Past events from ``since``, then live ones up to ``until`` (or for as long as the client stays)."""
    filters = wire_filters.parse(ctx.text("filters"), None)
    since, until = parse_timestamp(ctx.text("since")), parse_timestamp(ctx.text("until"))
    if since is not None and until is not None and since > until:
        raise InvalidArgument(
            f"`since` time ({ctx.text('since')}) cannot be after `until` time ({ctx.text('until')})"
        )

    def shown(value: Event) -> bool:
        is_new = ctx.version < (1, 46) and (value.type, value.action) == ("image", "create")
        return not is_new and wire.event_matches(value, filters)

    bus = ctx.engine.events
    async with bus.subscribe() as live:
        stream = await JsonStream.begin(ctx.request, _stream_type(ctx.request.headers.get("Accept", "")))
        last = 0
        if since is not None or until is not None:
            past = bus.past(since, until)
            # Read them in portions on a thread: there may be many, and the filters may drop most of them.
            while values := await threads.short(lambda: list(islice(past, _EVENTS_AT_ONCE))):
                last = values[-1].time
                for value in values:
                    if shown(value):
                        await stream.send(wire.event(value, ctx.version))
        async for value in live.until(until):
            if value.time > last and shown(value):
                await stream.send(wire.event(value, ctx.version))
        return stream.response


async def on_disk(ctx: RequestContext) -> web.Response:
    """An addition: the disk usage of each kind of object; together they are everything below the root."""
    parts = await ctx.engine.upkeep.disk.usage()
    listed = [{"What": part.what, "Size": part.size} for part in parts]
    return json_response({"Parts": listed, "Total": sum(part.size for part in parts)})


async def fsck(ctx: RequestContext) -> web.StreamResponse:
    """An addition: check the store, and repair it if ``repair`` is set. One line for each finding, and a last
    line with the sums."""
    credentials = registry_credentials(ctx)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        found = await ctx.engine.upkeep.fsck.check(
            repair=ctx.flag("repair"),
            credentials=credentials,
            tell=lambda one: progress.on_loop({"Finding": to_builtins(one)}),
        )
        return [{"Found": len(found), "Failed": sum(one.failed for one in found)}]

    return await with_progress(ctx, work, quiet=False)


ROUTES: list[Route] = [
    ("GET", "/_ping", ping),
    ("HEAD", "/_ping", ping),
    ("GET", "/version", version),
    ("GET", "/info", info),
    ("GET", "/events", events),
    ("GET", "/system/disk", on_disk),
    ("POST", "/system/fsck", fsck),
]
