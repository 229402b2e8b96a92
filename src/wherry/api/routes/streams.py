"""Attach and exec: the endpoints whose connection becomes a two-way stream."""

from __future__ import annotations

import struct
from contextlib import AsyncExitStack

from aiohttp import HttpVersion11, web

from wherry.api.context import STREAMING, RequestContext, json_response, no_content
from wherry.api.hijack import MULTIPLEXED, RAW, HijackedResponse, HijackedStream, WebSocketStream
from wherry.api.router import Route
from wherry.api.routes.containers import terminal_size
from wherry.engine.containers.service import ContainerRow
from wherry.engine.logs.service import LogOptions
from wherry.engine.processes.attach import AttachOptions, AttachStream, parse_detach_keys
from wherry.errors import InvalidArgument, WherryError
from wherry.model.exec import ExecConfig, ExecStart
from wherry.wire import compat
from wherry.wire import containers as wire

_STDOUT = 1
_FRAME = struct.Struct(">B3xL")
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def _detach_keys(text: str, *, tty: bool, called: str) -> bytes:
    """None without a terminal: there the same bytes are data.

    :param called: what Docker calls these keys here, where they are invalid.
    """
    try:
        keys = parse_detach_keys(text or DEFAULT_DETACH_KEYS)
    except ValueError as e:
        raise InvalidArgument(f"Invalid {called} keys ({text[:80]}) provided") from e
    return keys if tty else b""


def _attach_options(ctx: RequestContext, row: ContainerRow) -> AttachOptions:
    config = row.record.config
    return AttachOptions(
        stdin=ctx.flag("stdin") and config.open_stdin,
        stdout=ctx.flag("stdout"),
        stderr=ctx.flag("stderr"),
        framed=not config.tty,
        stdin_once=config.stdin_once,
        detach_keys=_detach_keys(ctx.text("detachKeys"), tty=config.tty, called="detach"),
    )


def _content_type(ctx: RequestContext, *, tty: bool) -> str:
    return RAW if tty or ctx.version < (1, 42) else MULTIPLEXED


async def attach(ctx: RequestContext) -> web.StreamResponse:
    row = ctx.engine.containers.service.find(ctx.params["id"])
    options = _attach_options(ctx, row)
    async with AsyncExitStack() as stack:
        session = None
        if ctx.flag("stream"):
            row, session = ctx.engine.processes.attach.attach(row.id, options)
            stack.enter_context(session)
        content_type = _content_type(ctx, tty=row.record.config.tty)
        client = await stack.enter_async_context(HijackedStream(ctx.request, content_type))
        try:
            if ctx.flag("logs"):
                await _replay(ctx, row, options, client)
            if session is not None:
                await session.run(client)
        except ConnectionError:
            pass  # The client has gone; its session is over.
    return HijackedResponse()


async def _replay(
    ctx: RequestContext, row: ContainerRow, options: AttachOptions, client: AttachStream
) -> None:
    """Send what the container printed before, from its log."""
    if not ctx.engine.logs.service.is_readable(row):
        return
    log_options = LogOptions(stdout=options.stdout, stderr=options.stderr, framed=options.framed)
    async for data in ctx.engine.logs.service.stream(row, log_options):
        await client.send(data)


async def attach_ws(ctx: RequestContext) -> web.StreamResponse:
    row = ctx.engine.containers.service.find(ctx.params["id"])
    socket = web.WebSocketResponse()
    # This must come before the attach: nothing would detach it after a failure here.
    if ctx.request.version < HttpVersion11 or not socket.can_prepare(ctx.request):
        raise InvalidArgument("this endpoint needs a WebSocket handshake of version 13 (RFC 6455)")
    options = _attach_options(ctx, row)
    # Docker's framing is not used on a web socket: its messages contain the plain bytes.
    everything = ctx.version < (1, 42)  # they did not select single streams yet
    options = AttachOptions(
        stdin=options.stdin or (everything and row.record.config.open_stdin),
        stdout=options.stdout or everything or ctx.flag("stream"),
        stderr=options.stderr or everything or ctx.flag("stream"),
        framed=False,
        stdin_once=options.stdin_once,
        detach_keys=options.detach_keys,
    )
    row, session = ctx.engine.processes.attach.attach(row.id, options)
    with session:
        ctx.request[STREAMING] = True
        await socket.prepare(ctx.request)
        client = WebSocketStream(socket)
        try:
            if ctx.flag("logs"):
                await _replay(ctx, row, options, client)
            await session.run(client)
        except ConnectionError:
            pass
        await socket.close()
    return socket


async def exec_create(ctx: RequestContext) -> web.Response:
    config = compat.exec_create(await ctx.optional_json(ExecConfig), ctx.version)
    exec_id = await ctx.engine.processes.execs.create(
        ctx.params["id"], config, _detach_keys(config.detach_keys, tty=config.tty, called="escape")
    )
    return json_response({"Id": exec_id}, status=201)


async def exec_start(ctx: RequestContext) -> web.StreamResponse:
    options = compat.exec_start(await ctx.optional_json(ExecStart), ctx.version)
    execution = ctx.engine.processes.execs.prepare_start(ctx.params["id"])
    if options.detach:
        await ctx.engine.processes.execs.start_detached(execution, options.console_size)
        return web.Response(status=200)
    async with HijackedStream(ctx.request, _content_type(ctx, tty=options.tty)) as client:
        try:
            await ctx.engine.processes.execs.start_attached(
                execution, client, options.console_size, framed=not options.tty
            )
        except ConnectionError:
            pass
        except WherryError as e:
            # The connection is a stream by now, so send the reason as output.
            data = f"{e.message}\r\n".encode()
            await client.send(data if options.tty else _FRAME.pack(_STDOUT, len(data)) + data)
    return HijackedResponse()


async def exec_resize(ctx: RequestContext) -> web.Response:
    height, width = terminal_size(ctx)
    await ctx.engine.processes.execs.resize(ctx.params["id"], height=height, width=width)
    return web.Response(status=200)


async def exec_inspect(ctx: RequestContext) -> web.Response:
    return json_response(wire.exec_inspect(ctx.engine.processes.execs.inspect(ctx.params["id"])))


async def exec_list(ctx: RequestContext) -> web.Response:
    found = await ctx.engine.processes.exec_control.listing(ctx.params["id"])
    return json_response([wire.exec_listing(entry) for entry in found])


async def exec_stop(ctx: RequestContext) -> web.Response:
    await ctx.engine.processes.exec_control.stop(ctx.params["id"], ctx.integer("t"))
    return no_content()


async def exec_kill(ctx: RequestContext) -> web.Response:
    await ctx.engine.processes.exec_control.kill(ctx.params["id"], ctx.text("signal"))
    return no_content()


ROUTES: list[Route] = [
    ("POST", "/containers/{id}/attach", attach),
    ("GET", "/containers/{id}/attach/ws", attach_ws),
    ("POST", "/containers/{id}/exec", exec_create),
    ("POST", "/exec/{id}/start", exec_start),
    ("POST", "/exec/{id}/resize", exec_resize),
    ("GET", "/exec/{id}/json", exec_inspect),
    ("GET", "/containers/{id}/execs", exec_list),
    ("POST", "/exec/{id}/stop", exec_stop),
    ("POST", "/exec/{id}/kill", exec_kill),
]
