"""``/build``: decode, one engine call, encode. ``building`` has the routes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from wherry import threads
from wherry.api import buildquery
from wherry.api.archives import send_archive
from wherry.api.bodies import request_file
from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.progress import Reporter, registry_credentials, with_progress
from wherry.engine.builds.given import Given
from wherry.engine.builds.reports import LegacyReport, QuietReport, Report, StepReport
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.service import Built
from wherry.errors import InvalidArgument, NotImplemented_, WherryError
from wherry.model.credentials import Credentials
from wherry.wire import builds as wire
from wherry.wire import filters as wire_filters

_MANIFEST_MAX = 128 << 20
_HELD_MOST = 10_000
"""Messages."""
PRUNE_FILTERS = frozenset(
    {"until", "id", "parent", "type", "description", "inuse", "shared", "private", "label"}
)


async def build(ctx: RequestContext) -> web.StreamResponse:
    if ctx.text("version") not in ("", "1", "2"):
        raise InvalidArgument(f'invalid version "{ctx.text("version")[:80]}"')
    if ctx.text("version") == "2":
        raise NotImplemented_(
            "building with BuildKit's protocol (version=2) is not implemented: use version=1"
        )
    request, known = buildquery.build_request(ctx.query), registry_credentials(ctx)
    if request.remote:
        return await _run(ctx, request, Given(known=known))
    if ctx.text("session"):
        return await _with_session(ctx, request, known)
    builds = ctx.engine.builds
    async with request_file(ctx.request) as source, builds.received(source.fileno(), known) as given:
        return await _run(ctx, request, given)


async def _with_session(
    ctx: RequestContext, request: BuildRequest, known: Sequence[Credentials]
) -> web.StreamResponse:
    sessions = ctx.engine.builds.sessions
    try:
        given = sessions.take(ctx.text("session"))
        given.known = known
        return await _run(ctx, request, given)
    finally:
        await asyncio.shield(sessions.close(ctx.text("session")))


async def _run(ctx: RequestContext, request: BuildRequest, given: Given) -> web.StreamResponse:
    quiet, call = ctx.flag("q"), ctx.text("call", "build")

    async def describe(_progress: Reporter) -> Sequence[dict[str, Any]]:
        return [{"aux": {"Call": await ctx.engine.builds.describe(call, request, given)}}]

    if call != "build":
        return await with_progress(ctx, describe, quiet=True)

    async def work(progress: Reporter) -> Sequence[dict[str, Any]]:
        held = _Held()
        try:
            built = await ctx.engine.builds.build(request, given, _report(ctx, progress, held))
        except WherryError:
            held.tell(progress)
            raise
        return _last_lines(request, built, quiet=quiet, steps=ctx.text("progress") == "steps")

    return await with_progress(ctx, work, quiet=False, abandon=True)


class _Held:
    """What a quiet build says only if it fails: the last of its steps and their output."""

    def __init__(self) -> None:
        self._messages: deque[dict[str, Any]] = deque(maxlen=_HELD_MOST)

    def keep(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def tell(self, progress: Reporter) -> None:
        for message in self._messages:
            progress.on_loop(message)


def _report(ctx: RequestContext, progress: Reporter, held: _Held) -> Report:
    if ctx.flag("q"):
        return QuietReport(progress.on_loop) if ctx.text("progress") == "steps" else LegacyReport(held.keep)
    if ctx.text("progress") == "steps":
        return StepReport(progress.on_loop)
    return LegacyReport(progress.on_loop)


def _last_lines(request: BuildRequest, built: Built, *, quiet: bool, steps: bool) -> Sequence[dict[str, Any]]:
    if quiet and not steps:
        return [{"stream": f"{built.image}\n"}]
    lines: list[dict[str, Any]] = [{"stream": f"{warning}\n"} for warning in built.warnings]
    more = {"Build": built.build, "Metadata": built.metadata} if steps else {}
    lines.append({"aux": {"ID": built.image, **more}})
    if not steps and built.image:
        lines.append({"stream": f"Successfully built {built.image.removeprefix('sha256:')[:12]}\n"})
        lines += [{"stream": f"Successfully tagged {tag.familiar()}\n"} for tag in request.tags]
    return lines


# ---- sessions: additions of this engine --------------------------------------------------------------------


class _Open(msgspec.Struct, rename="pascal"):
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    agents: dict[str, str] = msgspec.field(default_factory=dict)
    dockerfile: str | None = None


async def open_session(ctx: RequestContext) -> web.Response:
    """Secrets by id, each in base64; sockets of SSH agents on the daemon's host by id."""
    body = await ctx.optional_json(_Open)
    try:
        values = {key: base64.b64decode(text, validate=True) for key, text in body.secrets.items()}
    except binascii.Error as e:
        raise InvalidArgument("invalid secret: not base64") from e
    text = None if body.dockerfile is None else body.dockerfile.encode()
    return json_response({"Id": await ctx.engine.builds.sessions.open(values, body.agents, text)}, status=201)


async def close_session(ctx: RequestContext) -> web.Response:
    await ctx.engine.builds.sessions.close(ctx.params["id"])
    return no_content()


async def compare_context(ctx: RequestContext) -> web.Response:
    """The body is a manifest (see ``storage.contexts``); the answer says which of its entries are needed."""
    manifest = await ctx.whole(_MANIFEST_MAX)
    need = await ctx.engine.builds.sessions.compare(
        ctx.params["id"], ctx.text("name"), ctx.text("key"), manifest
    )
    return json_response({"Current": True} if need is None else {"Need": need})


async def receive_context(ctx: RequestContext) -> web.Response:
    async with request_file(ctx.request) as source:
        await ctx.engine.builds.sessions.receive(ctx.params["id"], ctx.text("name"), source.fileno())
    return no_content()


async def prune(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    bounds = buildquery.bounds(ctx.integer)
    everything = ctx.flag("all")
    gone, freed = await threads.disk(
        ctx.engine.builds.cache.prune, buildquery.prune_test(filters, everything=everything), bounds
    )
    return json_response({"CachesDeleted": gone or None, "SpaceReclaimed": freed})


async def output(ctx: RequestContext) -> web.StreamResponse:
    """An addition: an output of a build that has just ended, as a tar archive. It can be fetched once."""
    number = ctx.integer("number", 0) or 0
    outputs, identifier = ctx.engine.builds.outputs, ctx.params["id"]
    produce = outputs.take(identifier, number)
    return await send_archive(
        ctx, lambda file: threads.waits(produce, file), released=lambda: outputs.done(identifier)
    )


async def history(ctx: RequestContext) -> web.Response:
    """An addition: builds, newest first."""
    rows = await threads.short(ctx.engine.builds.rows.history)
    return json_response([_history(row) for row in rows])


async def history_of(ctx: RequestContext) -> web.Response:
    return json_response(_history(ctx.engine.builds.rows.history_of(ctx.params["id"])))


async def forget(ctx: RequestContext) -> web.Response:
    row = ctx.engine.builds.rows.history_of(ctx.params["id"])
    ctx.engine.builds.rows.delete_history(row.id)
    return no_content()


def _history(row: Any) -> dict[str, Any]:
    return wire.history(
        identifier=row.id,
        started=row.started,
        finished=row.finished,
        status=row.status,
        document=msgspec.json.decode(row.document),
    )


async def cancel(ctx: RequestContext) -> web.Response:
    """By the id that the client chose; a build ends with its connection as well."""
    if not ctx.text("id"):
        raise InvalidArgument("build ID not provided")
    ctx.engine.builds.cancel(ctx.text("id"))
    return no_content()
