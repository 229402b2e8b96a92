"""Calls between our own client and server: backpressure, ends, tunnels, taking over, detection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from patience import patiently
from rpc_tools import Demo, DemoService, Stubs, closed, grpcio_channel, pair, run, served, settled, until

from wherry.daemon.tls import TlsProtocol
from wherry.rpc import frames
from wherry.rpc.client import Client, ClientCall
from wherry.rpc.connection import Connection
from wherry.rpc.detect import ALPN, Detector, Loader
from wherry.rpc.limits import ConnectionLimits
from wherry.rpc.methods import BothStream
from wherry.rpc.server import Server, ServerCall, on
from wherry.rpc.status import Code, RpcError
from wherry.rpc.tunnel import Tunnel

TUNNEL = BothStream("/test.Demo/Tunnel", BytesValue, BytesValue)


def packed(data: bytes) -> BytesValue:
    return BytesValue(value=data)


def unpacked(message: BytesValue) -> bytes:
    return message.value


# Backpressure.


def test_a_slow_reader_stops_the_server() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, _), client.stream(Demo.Count) as call:
            await call.send(BytesValue(value=b"200 1000000"), end=True)
            await call.receive()
            # What is sent and not read fits into the windows, here and in the sockets between.
            assert await settled(lambda: len(service.log)) < 12
            total = 1
            async for message in call:
                total += 1
                assert len(message.value) == 1_000_000
            assert total == 200

    run(scenario())


def test_a_slow_server_stops_the_client() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def slow(call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
            await call.receive()
            await go.wait()
            total = 1
            async for _ in call:
                total += 1
            return BytesValue(value=b"%d" % total)

        sent = 0

        async def send(call: ClientCall[BytesValue, BytesValue]) -> None:
            nonlocal sent
            for _ in range(100):
                await call.send(BytesValue(value=bytes(1_000_000)))
                sent += 1
            await call.end()

        async with pair([on(Demo.Sum, slow)]) as (client, _), client.stream(Demo.Sum) as call:
            sending = asyncio.create_task(send(call))
            assert await settled(lambda: sent) < 12
            go.set()
            assert (await call.response()).value == b"100"
            await sending

    run(scenario())


def test_calls_that_nobody_reads_hold_up_no_other() -> None:
    async def scenario() -> None:
        service = DemoService()
        limits = ConnectionLimits(windows=1 << 20)
        async with (
            pair(service.routes(), client_limits=limits) as (client, _),
            contextlib.AsyncExitStack() as s,
        ):
            for _ in range(100):
                call = await s.enter_async_context(client.stream(Demo.Count))
                await call.send(BytesValue(value=b"10 1000000"), end=True)
            await settled(lambda: len(service.log))
            answer = await client.unary(Demo.Echo, BytesValue(value=bytes(3_000_000)), timeout=patiently(20))
            assert len(answer.value) == 3_000_000

    run(scenario())


def test_windows_come_back_with_the_end_of_a_call() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes()) as (client, _):
            whole = client.connection.windows.left
            for _ in range(5):
                await client.unary(Demo.Echo, BytesValue(value=bytes(8_000_000)))
                async with client.stream(Demo.Count) as call:
                    await call.send(BytesValue(value=b"50 1000000"), end=True)
                    await call.receive()
            await until(lambda: client.connection.windows.left == whole)
            assert client.connection.assembling.left == client.connection.limits.assembling
            assert not client.connection.streams

    run(scenario())


# Ends.


def test_an_end_by_the_client_reaches_the_handler() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, _):
            task = asyncio.create_task(client.unary(Demo.Hang, BytesValue()))
            await service.noted("began")
            task.cancel()
            await service.noted("cleaned")
            assert service.log == ["began", "cancelled", "cleaned"]

    run(scenario())


def test_the_servers_own_clock_ends_a_call() -> None:
    """A client that says a time and then does not keep it itself."""

    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, _):
            call = client.stream(Demo.Hang, timeout=0.1)
            async with call:
                assert call._timer is not None
                call._timer.cancel()
                await call.send(BytesValue(), end=True)
                with pytest.raises(RpcError) as caught:
                    await call.response()
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            await service.noted("cleaned")
            assert service.log == ["began", "expired", "cleaned"]

    run(scenario())


def test_a_writer_that_waits_is_cancelled_with_its_call() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, _):
            async with client.stream(Demo.Count) as call:
                await call.send(BytesValue(value=b"1000 1000000"), end=True)
                await call.receive()
            await service.noted("count ends")
        assert "count ends" in service.log

    run(scenario())


def test_a_lost_connection_ends_calls_on_both_sides() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, _):
            task = asyncio.create_task(client.unary(Demo.Hang, BytesValue()))
            await service.noted("began")
            transport = client.connection._transport
            assert transport is not None
            transport.abort()
            with pytest.raises(RpcError) as caught:
                await task
            assert caught.value.code is Code.UNAVAILABLE
            await service.noted("cleaned")
            with pytest.raises(RpcError):
                await client.unary(Demo.Echo, BytesValue())
            with pytest.raises(RpcError):
                await client.connection.ping()

    run(scenario())


def test_a_server_that_closes_lets_calls_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(request: BytesValue, call: ServerCall[BytesValue, BytesValue]) -> BytesValue:
            began.set()
            await go.wait()
            return request

        began = asyncio.Event()
        async with pair([on(Demo.Echo, wait)]) as (client, server):
            task = asyncio.create_task(client.unary(Demo.Echo, BytesValue(value=b"1")))
            await began.wait()
            closing = asyncio.create_task(server.close(grace=10))
            await until(lambda: client.connection.closing)
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Echo, BytesValue(value=b"2"))
            assert caught.value.code is Code.UNAVAILABLE
            go.set()
            assert (await task).value == b"1"
            await closing
            await client.connection.wait_closed()

    run(scenario())


def test_a_server_that_closes_ends_what_does_not_end() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes()) as (client, server):
            task = asyncio.create_task(client.unary(Demo.Hang, BytesValue()))
            await service.noted("began")
            await server.close(grace=0.1)
            assert service.log[-1] == "cleaned"
            with pytest.raises(RpcError) as caught:
                await task
            assert caught.value.code is Code.UNAVAILABLE

    run(scenario())


def test_a_client_waits_for_a_free_stream() -> None:
    async def scenario() -> None:
        service = DemoService()
        async with pair(service.routes(), ConnectionLimits(streams=3)) as (client, _):
            await client.unary(Demo.Echo, BytesValue())  # The server's settings are known now.
            answers = await asyncio.gather(
                *[
                    client.unary(Demo.Echo, BytesValue(value=b"%d" % i), timeout=patiently(20))
                    for i in range(50)
                ]
            )
            assert [int(a.value) for a in answers] == list(range(50))
            hanging = [asyncio.create_task(client.unary(Demo.Hang, BytesValue())) for _ in range(3)]
            await until(lambda: service.log.count("began") == 3)
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Echo, BytesValue(), timeout=0.2)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
            for task in hanging:
                task.cancel()
            await client.unary(Demo.Echo, BytesValue(), timeout=patiently(20))

    run(scenario())


def test_pings_are_answered() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes()) as (client, _):
            pings = [client.connection.ping() for _ in range(20)]
            answered = await asyncio.wait_for(asyncio.gather(*pings), patiently(10))
            assert len(answered) == 20 and not client.connection.closing

    run(scenario())


def test_a_message_that_is_too_large_is_refused() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes(), ConnectionLimits(message=1000)) as (client, _):
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Echo, BytesValue(value=bytes(2000)))
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            assert len((await client.unary(Demo.Echo, BytesValue(value=bytes(900)))).value) == 900

    run(scenario())


def test_half_read_messages_are_bounded_together() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes(), ConnectionLimits(assembling=1 << 20)) as (client, _):
            with pytest.raises(RpcError) as caught:
                await client.unary(Demo.Echo, BytesValue(value=bytes(3 << 20)))
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            await client.unary(Demo.Echo, BytesValue(value=bytes(1 << 19)))

    run(scenario())


def test_a_unary_call_with_two_requests_is_refused() -> None:
    async def scenario() -> None:
        async with pair(DemoService().routes()) as (client, _):
            async with client.stream(Demo.Echo) as call:
                await call.send(BytesValue())
                await call.send(BytesValue(), end=True)
                with pytest.raises(RpcError, match="more than one request"):
                    await call.response()
            async with client.stream(Demo.Echo) as call:
                await call.end()
                with pytest.raises(RpcError, match="no request"):
                    await call.response()

    run(scenario())


# Tunnels.


def tunnelling(inner: Server) -> Any:
    async def tunnelled(call: ServerCall[BytesValue, BytesValue]) -> None:
        tunnel = Tunnel(call, packed, unpacked)
        inner.serve(tunnel)
        await tunnel.carry()

    return on(TUNNEL, tunnelled)


@contextlib.asynccontextmanager
async def through(client: Client):  # type: ignore[no-untyped-def]
    """A client within a stream of another one."""
    async with client.stream(TUNNEL) as call:
        tunnel = Tunnel(call, packed, unpacked)
        within = Client.over(tunnel)
        carrying = asyncio.create_task(tunnel.carry())
        try:
            yield within
        finally:
            within.connection.close()
            await asyncio.wait([carrying])
            if not carrying.cancelled() and (error := carrying.exception()) is not None:
                assert isinstance(error, RpcError)


def test_a_tunnel_in_a_tunnel() -> None:
    async def scenario() -> None:
        service = DemoService()
        innermost = Server(service.routes())
        middle = Server([*service.routes(), tunnelling(innermost)])
        async with pair([tunnelling(middle)]) as (outer, _), through(outer) as one, through(one) as two:
            for client in (one, two):
                answer = await client.unary(
                    Demo.Echo, BytesValue(value=bytes(5_000_000)), timeout=patiently(30)
                )
                assert len(answer.value) == 5_000_000
            async with two.stream(Demo.Mirror) as call:
                for size in (0, 1, 100_000):
                    await call.send(BytesValue(value=bytes(size)))
                    message = await call.receive()
                    assert message is not None and len(message.value) == size
                await call.end()
                assert await call.receive() is None
        await innermost.close(0)
        await middle.close(0)

    run(scenario())


def test_the_server_is_the_client_within() -> None:
    """As BuildKit's sessions through the one connection: who called serves, who was called asks."""

    async def scenario() -> None:
        answers: asyncio.Queue[bytes] = asyncio.Queue()

        async def session(call: ServerCall[BytesValue, BytesValue]) -> None:
            tunnel = Tunnel(call, packed, unpacked)
            client = Client.over(tunnel)

            async def ask() -> None:
                answers.put_nowait((await client.unary(Demo.Echo, BytesValue(value=b"hello"))).value)
                await client.close()

            asking = asyncio.create_task(ask())
            await tunnel.carry()
            await asking

        async with pair([on(TUNNEL, session)]) as (outer, _), outer.stream(TUNNEL) as call:
            tunnel = Tunnel(call, packed, unpacked)
            Server(DemoService().routes()).serve(tunnel)
            carrying = asyncio.create_task(tunnel.carry())
            assert await asyncio.wait_for(answers.get(), patiently(10)) == b"hello"
            await asyncio.wait_for(carrying, patiently(10))

    run(scenario())


def test_a_tunnel_that_is_cut_ends_both_sides() -> None:
    async def scenario() -> None:
        service = DemoService()
        inner = Server(service.routes())
        async with pair([tunnelling(inner)]) as (outer, _), through(outer) as within:
            task = asyncio.create_task(within.unary(Demo.Hang, BytesValue()))
            await service.noted("began")
            assert outer.connection._transport is not None
            outer.connection._transport.abort()
            with pytest.raises(RpcError) as caught:
                await task
            assert caught.value.code is Code.UNAVAILABLE
            await service.noted("cleaned")

    run(scenario())


def test_a_slow_reader_within_stops_the_writer() -> None:
    async def scenario() -> None:
        service = DemoService()
        inner = Server(service.routes())
        async with (
            pair([tunnelling(inner)]) as (outer, _),
            through(outer) as within,
            within.stream(Demo.Count) as call,
        ):
            await call.send(BytesValue(value=b"100 1000000"), end=True)
            await call.receive()
            assert await settled(lambda: len(service.log)) < 20
            assert len([m async for m in call]) == 99

    run(scenario())


# Taking connections over.


def test_bytes_that_came_along_are_used() -> None:
    """A client that says everything at once, which whoever had the connection before has read."""

    async def scenario() -> None:
        recorded = bytearray()
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        at_client, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        client = Client.over(at_client)
        task = asyncio.create_task(client.unary(Demo.Echo, BytesValue(value=b"early")))
        theirs.setblocking(False)
        while b"early" not in recorded:
            recorded += await loop.sock_recv(theirs, 65536)
        at_server, _ = await loop.create_connection(asyncio.Protocol, sock=theirs)
        server = Server(DemoService().routes())
        server.serve(at_server, bytes(recorded))
        assert (await asyncio.wait_for(task, patiently(10))).value == b"early"
        client.connection.close()
        await server.close(0)

    run(scenario())


def test_a_connection_closed_without_a_byte_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        at_server, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=theirs)
        server = Server([])
        connection = server.serve(at_server)
        ours.close()
        await asyncio.wait_for(connection.wait_closed(), patiently(10))
        await server.close()

    run(scenario())
    assert not caplog.records


# One listener for HTTP/1.1 and HTTP/2.


class Http1(asyncio.Protocol):
    """Answers with what it was sent, once a ``~`` has come."""

    seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if self.seen.endswith(b"~"):
            self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.seen)
            self.transport.close()


def loaded(server: Server, after: asyncio.Event | None = None) -> Loader:
    """As in the daemon, where the first connection waits for the imports."""

    async def load() -> asyncio.BaseProtocol:
        await (asyncio.sleep(0) if after is None else after.wait())
        return server.protocol()

    return load


def test_what_comes_while_http2_is_loaded(tmp_path: Path) -> None:
    async def scenario() -> None:
        server, ready = Server(DemoService().routes()), asyncio.Event()
        where = str(tmp_path / "both.sock")
        loop = asyncio.get_running_loop()
        second, count = asyncio.Event(), itertools.count(1)

        def detector() -> Detector:
            if next(count) == 2:
                second.set()
            return Detector(Http1, loaded(server, ready))

        listener = await loop.create_unix_server(detector, where)
        _, gone = await asyncio.open_unix_connection(where)
        gone.write(frames.PREFACE)
        await closed(gone)
        async with grpcio_channel(where) as channel:
            answer = asyncio.ensure_future(Stubs(channel).echo(BytesValue(value=bytes(1_000_000))))
            await second.wait()
            assert not answer.done()
            ready.set()
            assert len((await answer).value) == 1_000_000
        listener.close()
        await server.close(0)

    run(scenario())


def test_http2_that_cannot_be_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> asyncio.BaseProtocol:
        raise ImportError("no h2")

    async def scenario() -> None:
        where = str(tmp_path / "both.sock")
        listener = await asyncio.get_running_loop().create_unix_server(lambda: Detector(Http1, broken), where)
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(frames.PREFACE)
        assert await asyncio.wait_for(reader.read(), patiently(10)) == b""
        await closed(writer)
        listener.close()

    run(scenario())
    assert "cannot speak HTTP/2" in caplog.text


@pytest.mark.parametrize(
    "first", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"PRI", b"P", b"PRI * HTTP/2.0\r\n\r\nXX"]
)
def test_http1_on_the_same_listener(tmp_path: Path, first: bytes) -> None:
    async def scenario() -> None:
        server = Server(DemoService().routes())
        where = str(tmp_path / "both.sock")
        listener = await asyncio.get_running_loop().create_unix_server(
            lambda: Detector(Http1, loaded(server)), where
        )
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"~")
        whole = await asyncio.wait_for(reader.read(), patiently(10))
        assert whole == b"HTTP/1.1 200 OK\r\n\r\n" + first + b"~"
        await closed(writer)
        listener.close()

    run(scenario())


def test_prior_knowledge_on_the_same_listener(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = Server(DemoService().routes())
        where = str(tmp_path / "both.sock")
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(lambda: Detector(Http1, loaded(server)), where)
        async with grpcio_channel(where) as channel:
            assert (await Stubs(channel).echo(BytesValue(value=b"1"))).value == b"1"
        # The preface in pieces.
        _, writer = await asyncio.open_unix_connection(where)
        for byte in frames.PREFACE[:10]:
            writer.write(bytes([byte]))
            await writer.drain()
        await closed(writer)
        listener.close()
        await server.close(0)

    run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    room = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    command += f" -addext subjectAltName=DNS:localhost -keyout {room}/key -out {room}/cert"
    subprocess.run(command.split(), check=True, capture_output=True)
    return room / "cert", room / "key"


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1"], None])
@pytest.mark.parametrize("ours", [True, False])
def test_tls(certificate: tuple[Path, Path], alpn: list[str] | None, ours: bool) -> None:
    """With h2 agreed on, and without a word about it, the client being one of HTTP/2; and one of HTTP/1.1.

    Over the daemon's own TLS and over asyncio's.
    """

    async def scenario() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.set_alpn_protocols(ALPN)
        server = Server(DemoService().routes())
        loop = asyncio.get_running_loop()

        def detector() -> Detector:
            return Detector(Http1, loaded(server))

        if ours:
            listener = await loop.create_server(lambda: TlsProtocol(context, detector), "127.0.0.1", 0)
        else:
            listener = await loop.create_server(detector, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        if alpn:
            trusting.set_alpn_protocols(alpn)
        if alpn == ["http/1.1"]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
            )
            writer.write(frames.PREFACE + b"~")  # It has been said that this is HTTP/1.1.
            assert (await asyncio.wait_for(reader.readuntil(b"~"), patiently(10))).startswith(b"HTTP/1.1")
            await closed(writer)
        else:
            _, connection = await loop.create_connection(
                Connection, "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
            )
            client = Client(connection)
            answer = await client.unary(Demo.Echo, BytesValue(value=bytes(3_000_000)), timeout=patiently(20))
            assert len(answer.value) == 3_000_000
            await client.close()
        listener.close()
        await server.close(0)

    run(scenario())


def test_closing_does_not_wait_for_a_peer_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        service = DemoService()
        async with served(tmp_path, service.routes()) as (server, where), grpcio_channel(where) as channel:
            call = Stubs(channel).count(BytesValue(value=b"1000 1000000"))
            await call.read()
            ours = next(iter(server._connections))
            await until(lambda: ours._paused)
            await asyncio.wait_for(server.close(grace=0.05), patiently(20))
            call.cancel()

    monkeypatch.setattr("wherry.rpc.connection._LINGER", 0.1)
    run(scenario())


def test_two_clients_share_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = DemoService()
        async with served(tmp_path, service.routes()) as (_, where), grpcio_channel(where) as channel:
            hanging = Stubs(channel).hang(BytesValue())
            await asyncio.sleep(0)
            await service.noted("began")
            async with pair(service.routes()) as (client, _):
                assert (await client.unary(Demo.Echo, BytesValue(value=b"1"))).value == b"1"
            assert "cancelled" not in service.log
            hanging.cancel()

    run(scenario())
