"""Attach and exec: the endpoints whose connection becomes a two-way stream."""

from __future__ import annotations

from aiohttp import web

from wherry.api.context import STREAMING, Context, json_response, no_content
from wherry.api.hijack import MULTIPLEXED, RAW, HijackedResponse, HijackedStream, WebSocketStream
from wherry.api.router import Route
from wherry.api.routes.containers import terminal_size
from wherry.engine.attach import AttachOptions, ClientStream, parse_detach_keys
from wherry.engine.containers import ContainerRow
from wherry.engine.logs import LogOptions
from wherry.errors import InvalidArgument, WherryError
from wherry.model.exec import ExecConfig, ExecStart
from wherry.wire import containers as wire

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def _detach_keys(text: str, *, tty: bool) -> bytes:
    """None without a terminal: there the same bytes are data."""
    try:
        keys = parse_detach_keys(text or DEFAULT_DETACH_KEYS)
    except ValueError as e:
        raise InvalidArgument(f"Invalid escape keys ({text[:80]}) provided") from e
    return keys if tty else b""


def _attach_options(ctx: Context, row: ContainerRow) -> AttachOptions:
    config = row.record.config
    return AttachOptions(
        stdin=ctx.flag("stdin") and config.open_stdin,
        stdout=ctx.flag("stdout"),
        stderr=ctx.flag("stderr"),
        framed=not config.tty,
        stdin_once=config.stdin_once,
        detach_keys=_detach_keys(ctx.text("detachKeys"), tty=config.tty),
    )


def _content_type(ctx: Context, *, tty: bool) -> str:
    return RAW if tty or ctx.version < (1, 42) else MULTIPLEXED


async def attach(ctx: Context) -> web.StreamResponse:
    row = ctx.services.containers.find(ctx.params["id"])
    options = _attach_options(ctx, row)
    session = None
    if ctx.flag("stream"):
        row, session = ctx.services.containers.attach(row.id, options)
    tty = row.record.config.tty
    async with HijackedStream(ctx.request, _content_type(ctx, tty=tty)) as client:
        try:
            if ctx.flag("logs"):
                await _replay(ctx, row, options, client)
            if session is not None:
                await session.run(client)
        except ConnectionError:
            pass  # The client has gone; its session is over.
    return HijackedResponse()


async def _replay(ctx: Context, row: ContainerRow, options: AttachOptions, client: ClientStream) -> None:
    """What was printed before, from the log."""
    if not ctx.services.logs.is_readable(row):
        return
    log_options = LogOptions(stdout=options.stdout, stderr=options.stderr, framed=options.framed)
    async for data in ctx.services.logs.stream(row, log_options):
        await client.send(data)


async def attach_ws(ctx: Context) -> web.StreamResponse:
    row = ctx.services.containers.find(ctx.params["id"])
    if "Sec-WebSocket-Key" not in ctx.request.headers:
        raise InvalidArgument("this endpoint needs a WebSocket handshake")
    options = _attach_options(ctx, row)
    # A web socket has no frames of Docker's: its messages are the bytes themselves.
    options = AttachOptions(
        stdin=options.stdin,
        stdout=options.stdout or ctx.flag("stream"),
        stderr=options.stderr or ctx.flag("stream"),
        framed=False,
        stdin_once=options.stdin_once,
        detach_keys=options.detach_keys,
    )
    row, session = ctx.services.containers.attach(row.id, options)
    ctx.request[STREAMING] = True
    socket = web.WebSocketResponse()
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


async def exec_create(ctx: Context) -> web.Response:
    config = await ctx.json(ExecConfig)
    exec_id = ctx.services.execs.create(
        ctx.params["id"], config, _detach_keys(config.detach_keys, tty=config.tty)
    )
    return json_response({"Id": exec_id}, status=201)


async def exec_start(ctx: Context) -> web.StreamResponse:
    options = await ctx.optional_json(ExecStart)
    execution = ctx.services.execs.prepare_start(ctx.params["id"])
    if options.detach:
        await ctx.services.execs.start_detached(execution, options.console_size)
        return web.Response(status=200)
    content_type = _content_type(ctx, tty=execution.config.tty)
    async with HijackedStream(ctx.request, content_type) as client:
        try:
            await ctx.services.execs.start_attached(execution, client, options.console_size)
        except ConnectionError:
            pass
        except WherryError as e:
            # The connection is a stream by now, so the reason goes where the output would have gone.
            await client.send(f"{e.message}\r\n".encode() if execution.config.tty else _frame(e.message))
    return HijackedResponse()


def _frame(message: str) -> bytes:
    data = f"{message}\n".encode()
    return b"\x02\0\0\0" + len(data).to_bytes(4, "big") + data


async def exec_resize(ctx: Context) -> web.Response:
    height, width = terminal_size(ctx)
    ctx.services.execs.resize(ctx.params["id"], height=height, width=width)
    return web.Response(status=200)


async def exec_inspect(ctx: Context) -> web.Response:
    return json_response(wire.exec_inspect(ctx.services.execs.inspect(ctx.params["id"])))


async def exec_list(ctx: Context) -> web.Response:
    found = await ctx.services.exec_control.listing(ctx.params["id"])
    return json_response([wire.exec_listing(entry) for entry in found])


async def exec_stop(ctx: Context) -> web.Response:
    await ctx.services.exec_control.stop(ctx.params["id"], ctx.integer("t"))
    return no_content()


async def exec_kill(ctx: Context) -> web.Response:
    await ctx.services.exec_control.kill(ctx.params["id"], ctx.text("signal"))
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
