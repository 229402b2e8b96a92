"""A service of all four kinds over bytes; our server and client on sockets; grpcio's as independent peers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from patience import patiently

from wherry.errors import NotFound
from wherry.rpc.client import Client
from wherry.rpc.connection import Connection
from wherry.rpc.limits import ConnectionLimits
from wherry.rpc.metadata import Metadata
from wherry.rpc.methods import BothStream, ClientStream, ServerStream, Unary
from wherry.rpc.server import Route, Server, ServerCall, on
from wherry.rpc.status import Code, Detail, RpcError

T = TypeVar("T")


class Demo:
    """Methods by which everything of a call can be seen."""

    Echo = Unary("/test.Demo/Echo", BytesValue, BytesValue)
    Fail = Unary("/test.Demo/Fail", StringValue, BytesValue)
    Hang = Unary("/test.Demo/Hang", BytesValue, BytesValue)
    Count = ServerStream("/test.Demo/Count", BytesValue, BytesValue)
    Sum = ClientStream("/test.Demo/Sum", BytesValue, BytesValue)
    Mirror = BothStream("/test.Demo/Mirror", BytesValue, BytesValue)
    Early = BothStream("/test.Demo/Early", BytesValue, BytesValue)


DETAIL = Detail("example.org/demo.Source+json", b'{"line": 3}')


class DemoService:
    """Answers ``Demo``. What became of its handlers is in ``log``."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.changed = asyncio.Event()

    def note(self, text: str) -> None:
        self.log.append(text)
        self.changed.set()

    async def noted(self, text: str, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while text not in self.log:
                self.changed.clear()
                await self.changed.wait()

    def routes(self) -> list[Route]:
        return [
            on(Demo.Echo, self.echo),
            on(Demo.Fail, self.fail),
            on(Demo.Hang, self.hang),
            on(Demo.Count, self.count),
            on(Demo.Sum, self.sum),
            on(Demo.Mirror, self.mirror),
            on(Demo.Early, self.early),
        ]

    async def echo(self, request: BytesValue, call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
        if text := call.metadata.all("x-text"):
            call.send_headers(Metadata([("x-text", t) for t in text]))
        if raw := call.metadata.get_bytes("x-raw-bin"):
            call.set_trailers(Metadata({"x-raw-bin": raw}))
        return BytesValue(value=request.value)

    async def fail(self, request: StringValue, call: ServerCall[StringValue, BytesValue]) -> BytesValue:
        match request.value:
            case "detail":
                raise RpcError(Code.FAILED_PRECONDITION, "grün 100% \n", [DETAIL])
            case "tree":
                raise NotFound("no such thing")
            case "defect":
                raise ZeroDivisionError("division by zero")
            case "large":
                raise RpcError(Code.ABORTED, "x" * 100_000, [Detail("a/b", b"y" * 1_000_000)])
        return BytesValue()

    async def hang(self, request: BytesValue, call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
        self.note("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.note("expired" if call.expired else "cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            self.note("cleaned")
        return BytesValue()

    async def count(self, request: BytesValue, call: ServerCall[BytesValue, BytesValue]) -> None:
        """As many messages of a megabyte, or of a byte for "small", as the request says."""
        number, _, size = request.value.decode().partition(" ")
        try:
            for i in range(int(number)):
                await call.send(BytesValue(value=b"x" * int(size or 1)))
                self.log.append(f"sent {i}")
        finally:
            self.note("count ends")

    async def sum(self, call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
        total = 0
        async for message in call:
            total += len(message.value)
        return BytesValue(value=str(total).encode())

    async def mirror(self, call: ServerCall[BytesValue, BytesValue]) -> None:
        async for message in call:
            await call.send(message)

    async def early(self, call: ServerCall[BytesValue, BytesValue]) -> None:
        """Ends after the first message, whatever else the client wants to send."""
        await call.receive()
        await call.send(BytesValue(value=b"enough"))


def run(work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
    return asyncio.run(asyncio.wait_for(work, patiently(seconds)))


@contextlib.asynccontextmanager
async def served(
    path: Path, routes: list[Route], limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[Server, str]]:
    """Our server, listening on a unix socket."""
    server = Server(routes, limits)
    where = str(path / "rpc.sock")
    listener = await asyncio.get_running_loop().create_unix_server(server.protocol, where)
    try:
        yield server, where
    finally:
        listener.close()
        await server.close(grace=0)


@contextlib.asynccontextmanager
async def connected(where: str, limits: ConnectionLimits | None = None) -> AsyncIterator[Client]:
    """Our client, on a unix socket."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_unix_connection(lambda: Connection(limits=limits), where)
    try:
        yield Client(connection)
    finally:
        connection.close()
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def pair(
    routes: list[Route], limits: ConnectionLimits | None = None, client_limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[Client, Server]]:
    """Our client and our server on the two ends of a socket pair, as taken over from something else."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    server = Server(routes, limits)
    at_server, _ = await loop.create_connection(asyncio.Protocol, sock=theirs)
    at_client, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    server.serve(at_server)
    client = Client.over(at_client, limits=client_limits)
    try:
        yield client, server
    finally:
        client.connection.close()
        await client.connection.wait_closed()
        await server.close(grace=0)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Let the loop run until something is so that nothing announces."""
    async with asyncio.timeout(patiently(seconds)):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def settled(value: Callable[[], int]) -> int:
    """What does not change any more. Everything that could change it runs in this loop, which looks at its
    sockets before each of our turns."""
    last, same = value(), 0
    while same < 60:
        await asyncio.sleep(0.005)
        same, last = (same + 1 if value() == last else 0), value()
    return last


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait for its socket to be closed too."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def grpcio_channel(where: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{where}", options=OPTIONS)


class Stubs:
    """grpcio's client for ``Demo``."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        pack, unpack = BytesValue.SerializeToString, BytesValue.FromString
        self.echo = channel.unary_unary(Demo.Echo.path, pack, unpack)
        self.fail = channel.unary_unary(Demo.Fail.path, StringValue.SerializeToString, unpack)
        self.hang = channel.unary_unary(Demo.Hang.path, pack, unpack)
        self.count = channel.unary_stream(Demo.Count.path, pack, unpack)
        self.sum = channel.stream_unary(Demo.Sum.path, pack, unpack)
        self.mirror = channel.stream_stream(Demo.Mirror.path, pack, unpack)
        self.early = channel.stream_stream(Demo.Early.path, pack, unpack)
        self.unknown = channel.unary_unary("/test.Demo/Nothing", pack, unpack)
        self.elsewhere = channel.unary_unary("/test.Other/Nothing", pack, unpack)


def _handlers(service: GrpcioDemo) -> grpc.GenericRpcHandler:
    pack, unpack = BytesValue.SerializeToString, BytesValue.FromString
    return grpc.method_handlers_generic_handler(
        "test.Demo",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(service.echo, unpack, pack),
            "Fail": grpc.unary_unary_rpc_method_handler(service.fail, StringValue.FromString, pack),
            "Hang": grpc.unary_unary_rpc_method_handler(service.hang, unpack, pack),
            "Count": grpc.unary_stream_rpc_method_handler(service.count, unpack, pack),
            "Sum": grpc.stream_unary_rpc_method_handler(service.sum, unpack, pack),
            "Mirror": grpc.stream_stream_rpc_method_handler(service.mirror, unpack, pack),
            "Early": grpc.stream_stream_rpc_method_handler(service.early, unpack, pack),
        },
    )


class GrpcioDemo:
    """The same service, written for grpcio."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def echo(self, request: BytesValue, context: Any) -> BytesValue:
        sent = list(context.invocation_metadata())
        if text := [(k, v) for k, v in sent if k == "x-text"]:
            await context.send_initial_metadata(text)
        context.set_trailing_metadata([(k, v) for k, v in sent if k == "x-raw-bin"])
        return request

    async def fail(self, request: StringValue, context: Any) -> BytesValue:
        packed = StringValue(value="not a status").SerializeToString()
        context.set_trailing_metadata([("grpc-status-details-bin", packed)] if request.value == "odd" else [])
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "grün 100% \n")
        raise AssertionError

    async def hang(self, request: BytesValue, context: Any) -> BytesValue:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def count(self, request: BytesValue, context: Any) -> AsyncIterator[BytesValue]:
        number, _, size = request.value.decode().partition(" ")
        for _ in range(int(number)):
            yield BytesValue(value=b"x" * int(size or 1))

    async def sum(self, requests: AsyncIterator[BytesValue], context: Any) -> BytesValue:
        total = 0
        async for message in requests:
            total += len(message.value)
        return BytesValue(value=str(total).encode())

    async def mirror(self, requests: AsyncIterator[BytesValue], context: Any) -> AsyncIterator[BytesValue]:
        async for message in requests:
            yield message

    async def early(self, requests: AsyncIterator[BytesValue], context: Any) -> AsyncIterator[BytesValue]:
        async for _ in requests:
            yield BytesValue(value=b"enough")
            return


@contextlib.asynccontextmanager
async def grpcio_served(path: Path, compression: Any = None) -> AsyncIterator[tuple[GrpcioDemo, str]]:
    service = GrpcioDemo()
    server = grpc.aio.server(options=OPTIONS, compression=compression)
    server.add_generic_rpc_handlers((_handlers(service),))
    where = str(path / "grpcio.sock")
    server.add_insecure_port(f"unix:{where}")
    await server.start()
    try:
        yield service, where
    finally:
        await server.stop(0)
