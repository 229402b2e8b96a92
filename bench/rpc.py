"""gRPC's transport by itself: calls a second and megabytes a second, ours and grpcio's in both roles.

    .venv/bin/python bench/rpc.py [--megabytes 200] [--calls 3000]

Client and server are a process each, joined by a unix socket. "tunnel" is our client within a stream of our
own connection, which is how a session of a client that has one connection only comes.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from wherry.rpc.client import Client
from wherry.rpc.connection import Connection
from wherry.rpc.methods import BothStream, ClientStream, ServerStream, Unary
from wherry.rpc.server import Server, ServerCall, on
from wherry.rpc.tunnel import Tunnel

ECHO = Unary("/bench.Bench/Echo", BytesValue, BytesValue)
UP = ClientStream("/bench.Bench/Up", BytesValue, BytesValue)
DOWN = ServerStream("/bench.Bench/Down", BytesValue, BytesValue)
TUNNEL = BothStream("/bench.Bench/Tunnel", BytesValue, BytesValue)

PIECE = 32 << 10  # What clients send files in.
_PACK, _UNPACK = BytesValue.SerializeToString, BytesValue.FromString
_OPTIONS = [("grpc.max_receive_message_length", -1)]


def _packed(data: bytes) -> BytesValue:
    return BytesValue(value=data)


def _bytes(message: BytesValue) -> bytes:
    return message.value


async def _echo(request: BytesValue, _: Any) -> BytesValue:
    return request


async def _up(call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
    total = 0
    async for message in call:
        total += len(message.value)
    return BytesValue(value=b"%d" % total)


async def _down(request: BytesValue, call: ServerCall[BytesValue, BytesValue]) -> None:
    piece = BytesValue(value=bytes(PIECE))
    for _ in range(int(request.value)):
        await call.send(piece)


def _ours() -> Server:
    async def tunnelled(call: ServerCall[BytesValue, BytesValue]) -> None:
        tunnel = Tunnel(call, _packed, _bytes)
        within = Server(routes)
        within.serve(tunnel)
        await tunnel.carry()

    routes = [on(ECHO, _echo), on(UP, _up), on(DOWN, _down), on(TUNNEL, tunnelled)]
    return Server(routes)


async def _grpcio_up(requests: AsyncIterator[BytesValue], _: Any) -> BytesValue:
    total = 0
    async for message in requests:
        total += len(message.value)
    return BytesValue(value=b"%d" % total)


async def _grpcio_down(request: BytesValue, _: Any) -> AsyncIterator[BytesValue]:
    piece = BytesValue(value=bytes(PIECE))
    for _number in range(int(request.value)):
        yield piece


async def _serve(kind: str, where: str, ready: Event) -> None:
    if kind == "ours":
        await asyncio.get_running_loop().create_unix_server(_ours().protocol, where)
    else:
        server = grpc.aio.server(options=_OPTIONS)
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo, _UNPACK, _PACK),
            "Up": grpc.stream_unary_rpc_method_handler(_grpcio_up, _UNPACK, _PACK),
            "Down": grpc.unary_stream_rpc_method_handler(_grpcio_down, _UNPACK, _PACK),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
        server.add_insecure_port(f"unix:{where}")
        await server.start()
    ready.set()
    await asyncio.Event().wait()


def _server(kind: str, where: str, ready: Event) -> None:
    asyncio.run(_serve(kind, where, ready))


class _Ours:
    """What is measured, by our client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def echo(self) -> None:
        await self._client.unary(ECHO, BytesValue(value=b"x"))

    async def up(self, pieces: int) -> None:
        async with self._client.stream(UP) as call:
            piece = BytesValue(value=bytes(PIECE))
            for _ in range(pieces):
                await call.send(piece)
            await call.end()
            await call.response()

    async def down(self, pieces: int) -> None:
        async with self._client.stream(DOWN) as call:
            await call.send(BytesValue(value=b"%d" % pieces), end=True)
            async for message in call:
                assert len(message.value) == PIECE


class _Grpcio:
    """The same, by grpcio's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._echo = channel.unary_unary(ECHO.path, _PACK, _UNPACK)
        self._up = channel.stream_unary(UP.path, _PACK, _UNPACK)
        self._down = channel.unary_stream(DOWN.path, _PACK, _UNPACK)

    async def echo(self) -> None:
        await self._echo(BytesValue(value=b"x"))

    async def up(self, pieces: int) -> None:
        async def requests() -> AsyncIterator[BytesValue]:
            piece = BytesValue(value=bytes(PIECE))
            for _ in range(pieces):
                yield piece

        await self._up(requests())

    async def down(self, pieces: int) -> None:
        async for message in self._down(BytesValue(value=b"%d" % pieces)):
            assert len(message.value) == PIECE


async def _measure(client: _Ours | _Grpcio, calls: int, pieces: int) -> list[str]:
    await client.echo()
    figures = []

    async def timed(amount: float, unit: str, work: Callable[[], Awaitable[None]]) -> None:
        cpu, began = time.process_time(), time.monotonic()
        await work()
        took = time.monotonic() - began
        figures.append(f"{amount / took:8.0f} {unit} ({time.process_time() - cpu:4.2f} s)")

    async def one_by_one() -> None:
        for _ in range(calls):
            await client.echo()

    async def at_once() -> None:
        async def some() -> None:
            for _ in range(calls // 50):
                await client.echo()

        await asyncio.gather(*[some() for _ in range(50)])

    await timed(calls, "/s", one_by_one)
    await timed(calls // 50 * 50, "/s", at_once)
    await timed(pieces * PIECE / 1e6, "MB/s", lambda: client.up(pieces))
    await timed(pieces * PIECE / 1e6, "MB/s", lambda: client.down(pieces))
    return figures


async def _case(kind: str, where: str, calls: int, pieces: int) -> list[str]:
    if kind == "grpcio":
        async with grpc.aio.insecure_channel(f"unix:{where}", options=_OPTIONS) as channel:
            return await _measure(_Grpcio(channel), calls, pieces)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_unix_connection(Connection, where)
    client = Client(connection)
    if kind == "ours":
        figures = await _measure(_Ours(client), calls, pieces)
    else:
        async with client.stream(TUNNEL) as call:
            tunnel = Tunnel(call, _packed, _bytes)
            within = Client.over(tunnel)
            carrying = loop.create_task(tunnel.carry())
            figures = await _measure(_Ours(within), calls, pieces)
            within.connection.close()
            await carrying
    connection.close()
    await connection.wait_closed()
    return figures


def _client(kind: str, where: str, calls: int, pieces: int) -> None:
    figures = asyncio.run(_case(kind, where, calls, pieces))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("  ".join(figures), f" {peak:4.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--calls", type=int, default=3000)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    print(
        "client  server     one by one             50 at once            "
        "client sends            server sends         (client's CPU)"
    )
    cases = [
        ("ours", "ours"),
        ("ours", "grpcio"),
        ("grpcio", "ours"),
        ("grpcio", "grpcio"),
        ("tunnel", "ours"),
    ]
    for client, server in cases:
        with tempfile.TemporaryDirectory() as room:
            where = str(Path(room) / "sock")
            ready = spawn.Event()
            serving = spawn.Process(target=_server, args=(server, where, ready))
            serving.start()
            ready.wait(30)
            print(f"{client:7} {server:7}", end=" ", flush=True)
            pieces = options.megabytes * 1_000_000 // PIECE
            asking = spawn.Process(target=_client, args=(client, where, options.calls, pieces))
            asking.start()
            asking.join()
            serving.terminate()
            serving.join()


if __name__ == "__main__":
    main()
