"""Peers that break rules or flood: they are sent away, what they make us hold is bounded, others go on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hpack import Decoder, Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import patiently
from rpc_tools import Demo, DemoService, closed, connected, run, served, until

from wherry.rpc import frames
from wherry.rpc.frames import PREFACE, ConnectionFault, Splitter
from wherry.rpc.limits import ConnectionLimits
from wherry.rpc.server import ServerCall, on
from wherry.rpc.status import Code, RpcError

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", Demo.Echo.path),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
MESSAGE = b"\0\0\0\0\3\x0a\1x"  # BytesValue(value=b"x")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(stream: int, headers: Iterable[tuple[str, str]] = HEADERS, end: bool = False) -> bytes:
    block = Encoder().encode(list(headers), huffman=False)
    return frame(frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if end else 0), stream, block)


class Peer:
    """Bytes to and from our server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.received = b""

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def sent_away(self) -> tuple[int, str]:
        """Read to the end; the GOAWAY's code and text. Fails if the connection goes on."""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(self.reader.read(1 << 16), patiently(10)):
                self.received += data
        for kind, _, _, payload in self.frames():
            if kind == frames.GOAWAY:
                return struct.unpack(">I", payload[4:8])[0], payload[8:].decode()
        return -1, "no GOAWAY"

    async def until_frame(self, kind: int, stream: int) -> bytes:
        """Read up to such a frame; returns its payload."""
        while True:
            for found, flags, where, payload in self.frames():
                if found == kind and where == stream and (kind != frames.SETTINGS or flags & frames.ACK):
                    return payload
            data = await asyncio.wait_for(self.reader.read(1 << 16), patiently(10))
            assert data, f"the connection ended: {list(self.frames())[-1:]}"
            self.received += data

    def frames(self) -> Iterable[tuple[int, int, int, bytes]]:
        at = 0
        while at + 9 <= len(self.received):
            length = int.from_bytes(self.received[at : at + 3])
            kind, flags, stream = struct.unpack_from(">BBI", self.received, at + 3)
            yield kind, flags, stream, self.received[at + 9 : at + 9 + length]
            at += 9 + length


@contextlib.asynccontextmanager
async def peer(
    path: Path, limits: ConnectionLimits | None = None, service: DemoService | None = None
) -> AsyncIterator[tuple[Peer, str]]:
    async with served(path, (service or DemoService()).routes(), limits) as (_, where):
        reader, writer = await asyncio.open_unix_connection(where)
        there = Peer(reader, writer)
        there.send(PREFACE, SETTINGS)
        try:
            yield there, where
        finally:
            await closed(writer)


async def still_serves(where: str) -> None:
    async with connected(where) as client:
        assert (await client.unary(Demo.Echo, BytesValue(value=b"1"), timeout=patiently(10))).value == b"1"


# The usual number at once, and next to none later: a slow machine gives them time.
STRICT = ConnectionLimits(idle_rate=0.1)

FLOODS = {
    "pings": frame(frames.PING, 0, 0, bytes(8)),
    "settings": SETTINGS,
    "empty data": frame(frames.DATA, 0, 1),
    "padding": frame(frames.DATA, frames.PADDED, 1, b"\3\0\0\0"),
    "windows": frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
    "windows of a stream": frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
    "priorities": frame(frames.PRIORITY, 0, 3, b"\0\0\0\0\1"),
    "unknown frames": frame(0x77, 0, 0, b"xyz"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with peer(tmp_path, STRICT) as (there, where):
            there.send(head(1), FLOODS[kind] * 5000)
            code, text = await there.sent_away()
            assert (code, text) == (frames.ENHANCE_YOUR_CALM, "too many frames that bring nothing")
            await still_serves(where)

    run(scenario())


def test_rapid_reset(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = DemoService()
        async with peer(tmp_path, STRICT, service) as (there, where):
            for stream in range(1, 6001, 2):
                there.send(head(stream), frame(frames.RST_STREAM, 0, stream, b"\0\0\0\x08"))
            code, _ = await there.sent_away()
            assert code == frames.ENHANCE_YOUR_CALM
            await still_serves(where)

    run(scenario())


def test_moderate_resets_are_fine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with peer(tmp_path) as (there, _):
            for stream in range(1, 1001, 2):
                there.send(head(stream), frame(frames.RST_STREAM, 0, stream, b"\0\0\0\x08"))
            there.send(frame(frames.PING, 0, 0, b"12345678"))
            assert await there.until_frame(frames.PING, 0) == b"12345678"

    run(scenario())


def test_endless_headers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with peer(tmp_path) as (there, where):
            there.send(frame(frames.HEADERS, 0, 1, Encoder().encode(HEADERS)))
            for _ in range(30):
                there.send(frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x7f\xff\x07" + bytes(5000)))
            assert (await there.sent_away())[0] == frames.ENHANCE_YOUR_CALM
        async with peer(tmp_path) as (there, _):
            there.send(frame(frames.HEADERS, 0, 1), frame(frames.CONTINUATION, 0, 1) * 500)
            assert (await there.sent_away())[0] != -1
            await still_serves(where)

    run(scenario())


def test_a_header_bomb(tmp_path: Path) -> None:
    """A few bytes that name a large header of the table again and again."""

    async def scenario() -> None:
        async with peer(tmp_path) as (there, where):
            encoder = Encoder()
            block = encoder.encode([*HEADERS, ("x-large", "y" * 3000)], huffman=False)
            block += encoder.encode([("x-large", "y" * 3000)] * 10_000, huffman=False)
            assert len(block) < 20_000
            there.send(frame(frames.HEADERS, frames.END_HEADERS, 1, block))
            assert (await there.sent_away())[0] != -1
            await still_serves(where)

    run(scenario())


def test_more_than_the_window(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def deaf(call: ServerCall[BytesValue, BytesValue]) -> None:
            await asyncio.Event().wait()

        async with served(tmp_path, [on(Demo.Mirror, deaf), *DemoService().routes()[:1]]) as (_, where):
            there = Peer(*await asyncio.open_unix_connection(where))
            mirror = [(n, Demo.Mirror.path if n == ":path" else v) for n, v in HEADERS]
            there.send(PREFACE, SETTINGS, head(1, mirror), frame(frames.DATA, 0, 1, bytes(16384)) * 5)
            assert await there.sent_away() == (frames.FLOW_CONTROL_ERROR, "more than the stream's window")
            await still_serves(where)
            await closed(there.writer)

    run(scenario())


BROKEN = {
    "not http/2": b"",
    "data for a stream that is not open": frame(frames.DATA, 0, 1, b"x"),
    "data for the connection": frame(frames.DATA, 0, 0, b"x"),
    "data for one of our streams": frame(frames.DATA, 0, 2, b"x"),
    "too much padding": head(1) + frame(frames.DATA, frames.PADDED, 1, b"\x09x"),
    "padding without a length": head(1) + frame(frames.DATA, frames.PADDED, 1) + b"\0" * 9,
    "a frame within headers": frame(frames.HEADERS, 0, 1, b"\x82") + frame(frames.DATA, 0, 1, b"x"),
    "another stream's headers within": frame(frames.HEADERS, 0, 1, b"\x82") + head(3),
    "a continuation of nothing": frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x82"),
    "a push": frame(5, frames.END_HEADERS, 1, b"\0\0\0\2\x82"),
    "broken hpack": frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
    "upper case": head(1, [*HEADERS, ("X-Upper", "1")]),
    "no path": head(1, HEADERS[:2]),
    "a large frame": frame(frames.SETTINGS, 0, 0, bytes(6 * 20_000)),
    "a large data frame": head(1) + b"\x20\0\0\0\0\0\0\0\1",
    "a short goaway": frame(frames.GOAWAY, 0, 0, b"\0"),
    "a stream that goes back": head(5) + head(3),
    "a window of nothing": frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
    "a window beyond all": frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "odd settings": frame(frames.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "a ping of four bytes": frame(frames.PING, 0, 0, bytes(4)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_rules(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (_, where):
            there = Peer(*await asyncio.open_unix_connection(where))
            there.send(PREFACE + SETTINGS + BROKEN[kind] if BROKEN[kind] else b"GET / HTTP/1.1\r\n\r\n")
            code, text = await there.sent_away()
            assert code > 0, text
            await closed(there.writer)
            await still_serves(where)

    run(scenario())


def test_a_message_that_is_announced_and_does_not_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path, DemoService().routes()) as (server, where):
            there = Peer(*await asyncio.open_unix_connection(where))
            there.send(PREFACE, SETTINGS)
            for stream in range(1, 401, 2):
                there.send(head(stream), frame(frames.DATA, 0, stream, b"\0\0\xff\xff\xff"))
            await until(lambda: bool(server._connections))
            connection = next(iter(server._connections))
            await until(lambda: len(connection.streams) == 200)
            # What was announced is not counted, what came is: nothing yet.
            assert connection.assembling.left == connection.limits.assembling
            there.send(frame(frames.DATA, frames.END_STREAM, 1))
            await there.until_frame(frames.HEADERS, 1)
            assert (await _status(there, 1))[b"grpc-message"].endswith(b"it ends too early")
            await closed(there.writer)
            await until(lambda: not server._tasks)

    run(scenario())


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\0\0\xff\xff\xff" + bytes(10), Code.INTERNAL),  # Less than announced.
        (b"\0\x7f\xff\xff\xff" + bytes(10), Code.RESOURCE_EXHAUSTED),  # More than is taken.
        (b"\1\0\0\0\3\x0a\1x", Code.INTERNAL),  # Packed without a word about it.
        (b"\7\0\0\0\3\x0a\1x", Code.INTERNAL),
        (b"\0\0\0\0\3\x0a\x7fx", Code.INTERNAL),  # No message.
        (b"\0\0\0", Code.INTERNAL),
        (b"", Code.INTERNAL),
        (MESSAGE + MESSAGE, Code.INTERNAL),
    ],
)
def test_broken_messages(tmp_path: Path, message: bytes, code: Code) -> None:
    async def scenario() -> None:
        async with peer(tmp_path) as (there, where):
            there.send(head(1), frame(frames.DATA, frames.END_STREAM, 1, message))
            await there.until_frame(frames.HEADERS, 1)
            headers = await _status(there, 1)
            assert headers[b"grpc-status"] == b"%d" % code
            await still_serves(where)

    run(scenario())


async def _status(there: Peer, stream: int) -> dict[bytes, bytes]:
    decoder = Decoder()
    found: dict[bytes, bytes] = {}
    for kind, _, where, payload in there.frames():
        if kind == frames.HEADERS:
            decoded = decoder.decode(payload, raw=True)
            if where == stream:
                found.update({bytes(n): bytes(v) for n, v in decoded})
    return found


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        ((":method", "GET"), b":status", b"405"),
        (("content-type", "text/html"), b":status", b"415"),
        (("content-length", "8"), b"grpc-status", b"13"),
        (("grpc-timeout", "soon"), b"grpc-status", b"3"),
        (("grpc-timeout", "123456789S"), b"grpc-status", b"3"),
        (("x-odd-bin", "*"), b"grpc-status", b"3"),
        (("grpc-encoding", "snappy"), b"grpc-status", b"12"),
        ((":path", "/nowhere"), b"grpc-status", b"12"),
        ((":path", "*"), b"grpc-status", b"12"),
    ],
)
def test_broken_calls(tmp_path: Path, change: tuple[str, str], name: bytes, value: bytes) -> None:
    async def scenario() -> None:
        async with peer(tmp_path) as (there, where):
            headers = [(n, v) for n, v in HEADERS if n != change[0]]
            at = 0 if change[0].startswith(":") else len(headers)
            headers.insert(at, change)
            there.send(head(1, headers), frame(frames.DATA, frames.END_STREAM, 1, MESSAGE))
            await there.until_frame(frames.HEADERS, 1)
            assert (await _status(there, 1))[name] == value
            # The connection is as good as before.
            there.send(frame(frames.PING, 0, 0, b"12345678"))
            await there.until_frame(frames.PING, 0)
            await still_serves(where)

    run(scenario())


def test_a_peer_that_does_not_read(tmp_path: Path) -> None:
    """Its answers pile up to a limit, then it is cut off."""

    async def scenario() -> None:
        limits = ConnectionLimits(unsent=100_000, idle_frames=10**9)
        async with served(tmp_path, DemoService().routes(), limits) as (server, where):
            reader, writer = await asyncio.open_unix_connection(where)
            transport = writer.transport
            transport.pause_reading()
            writer.write(PREFACE + SETTINGS)
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(frame(frames.PING, 0, 0, bytes(8)) * 2000)
                    await writer.drain()
            assert not server._connections
            await closed(writer)
            del reader

    run(scenario())


def test_streams_are_limited(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with peer(tmp_path, ConnectionLimits(streams=10)) as (there, where):
            there.send(*[head(stream) for stream in range(1, 41, 2)])
            assert (await there.sent_away())[0] > 0
            await still_serves(where)

    run(scenario())


# A server that breaks rules, seen by our client.


@contextlib.asynccontextmanager
async def answered(path: Path, *answer: bytes) -> AsyncIterator[str]:
    """A server that says the same whatever it is asked."""
    asked: list[tuple[asyncio.Task[None] | None, asyncio.StreamWriter]] = []

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((asyncio.current_task(), writer))
        writer.write(SETTINGS)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(MESSAGE)
            writer.write(b"".join(answer))
            while await reader.read(1 << 16):
                pass
        await closed(writer)

    where = str(path / "answer.sock")
    server = await asyncio.start_unix_server(answer_all, where)
    try:
        yield where
    finally:
        server.close()
        for task, writer in asked:
            writer.close()
            if task is not None:
                await task


OK = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]
DATA = frame(frames.DATA, 0, 1, MESSAGE)
GOAWAY = frame(frames.GOAWAY, 0, 0, b"\0\0\0\1\0\0\0\0")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ([head(1, OK), DATA, head(1, TRAILERS, end=True)], None),
        # Go's servers: the end of a handler before the end of the request.
        ([head(1, OK), DATA, head(1, TRAILERS, end=True), frame(frames.RST_STREAM, 0, 1, bytes(4))], None),
        ([head(1, OK), DATA, head(1, [("grpc-status", "5")], end=True)], Code.NOT_FOUND),
        ([head(1, [*OK, ("grpc-status", "5")], end=True)], Code.NOT_FOUND),
        ([head(1, [*OK, ("grpc-status", "0")], end=True)], Code.INTERNAL),  # No response.
        ([head(1, OK), DATA, DATA, head(1, TRAILERS, end=True)], Code.INTERNAL),
        ([head(1, OK), DATA, frame(frames.DATA, frames.END_STREAM, 1)], Code.INTERNAL),  # No status.
        ([head(1, OK), DATA, head(1, [("grpc-status", "nine")], end=True)], Code.UNKNOWN),
        ([head(1, OK), DATA, head(1, [("grpc-status", "99")], end=True)], Code.UNKNOWN),
        ([head(1, [(":status", "503")], end=True)], Code.UNAVAILABLE),
        ([head(1, [(":status", "404"), ("content-type", "text/html")]), DATA], Code.UNIMPLEMENTED),
        ([head(1, [(":status", "200"), ("content-type", "text/html")]), DATA], Code.UNKNOWN),
        ([head(1, [*OK, ("grpc-encoding", "br")]), DATA], Code.UNIMPLEMENTED),
        ([head(1, OK), frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x07")], Code.UNAVAILABLE),
        ([head(1, OK), frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")], Code.CANCELLED),
        ([head(1, OK), frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x0b")], Code.RESOURCE_EXHAUSTED),
        ([head(1, OK), frame(frames.RST_STREAM, 0, 1, bytes(4))], Code.INTERNAL),
        ([frame(frames.GOAWAY, 0, 0, bytes(8))], Code.UNAVAILABLE),
        ([GOAWAY, head(1, OK), DATA, head(1, TRAILERS, end=True)], None),
        ([frame(frames.DATA, 0, 3, b"x")], Code.INTERNAL),
        ([frame(5, 4, 1, b"\0\0\0\2\x82")], Code.INTERNAL),
    ],
)  # fmt: skip
def test_servers_of_all_sorts(tmp_path: Path, answer: list[bytes], code: Code | None) -> None:
    async def scenario() -> None:
        async with answered(tmp_path, *answer) as where, connected(where) as client:
            try:
                response = await client.unary(Demo.Echo, BytesValue(value=b"x"), timeout=patiently(10))
            except RpcError as e:
                assert e.code is code, e
            else:
                assert code is None
                assert response.value == b"x"

    run(scenario())


def test_an_answer_counts_though_the_connection_ends(tmp_path: Path) -> None:
    """A server that ends the call before the requests do, and then the connection."""

    async def scenario() -> None:
        answer = [head(1, OK), DATA, head(1, TRAILERS, end=True)]
        async with (
            answered(tmp_path, *answer) as where,
            connected(where) as client,
            client.stream(Demo.Mirror) as call,
        ):
            await call.send(BytesValue(value=b"x"))
            await until(lambda: call._stream.received_all)
            client.connection.close()
            await client.connection.wait_closed()
            assert [m.value async for m in call] == [b"x"]

    run(scenario())


# Fuzzing.


class Kept:
    """What a splitter said, pieces of DATA put together."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []
        self.padding = 0

    def take_data(self, stream_id: int, data: bytes, padding: int, end: bool) -> None:
        self.padding += padding
        if self.said and self.said[-1][:2] == ("data", stream_id) and not self.said[-1][3]:
            _, _, before, _ = self.said.pop()
            assert isinstance(before, bytes)
            data = before + data
        self.said.append(("data", stream_id, data, end))

    def take_frame(self, kind: int, flags: int, stream_id: int, whole: bytes) -> None:
        assert whole == frame(kind, flags, stream_id, whole[9:])
        self.said.append(("frame", whole))


@st.composite
def frame_streams(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[object, ...]], int]:
    """Frames, what is to be made of them, and the padding among them."""
    whole: list[bytes] = []
    expected = Kept()
    padded = 0
    for _ in range(draw(st.integers(1, 12))):
        stream = draw(st.integers(1, 5))
        payload = draw(st.binary(max_size=300))
        if draw(st.booleans()):
            end = draw(st.booleans())
            flags = frames.END_STREAM if end else 0
            if draw(st.booleans()):
                padding = draw(st.integers(0, 255))
                whole.append(
                    frame(0, flags | frames.PADDED, stream, bytes([padding]) + payload + bytes(padding))
                )
                padded += padding + 1
            else:
                whole.append(frame(0, flags, stream, payload))
            expected.take_data(stream, payload, 0, end)
        else:
            kind = draw(st.sampled_from([3, 4, 6, 7, 8, 0x20]))
            whole.append(frame(kind, 0, stream, payload))
            expected.take_frame(kind, 0, stream, whole[-1])
    return whole, expected.said, padded


@given(made=frame_streams(), cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_frames_are_the_same_however_they_are_cut(
    made: tuple[list[bytes], list[tuple[object, ...]], int], cuts: list[int]
) -> None:
    whole, expected, padded = made
    data = b"".join(whole)
    kept = Kept()
    splitter = Splitter(kept, 1 << 16)
    edges = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        splitter.feed(data[start:end])
    assert kept.said == expected
    assert kept.padding == padded


@given(data=st.binary(max_size=2000))
def test_a_splitter_never_fails_otherwise(data: bytes) -> None:
    try:
        Splitter(Kept(), 1000).feed(data)
    except ConnectionFault as fault:
        assert str(fault)


fuzzed_frames = st.one_of(
    st.builds(
        frame,
        st.integers(0, 11),
        st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0xFF]),
        st.sampled_from([0, 1, 2, 3, 5, 7, 1 << 20]),
        st.binary(max_size=60),
    ),
    st.sampled_from([1, 3, 5, 7]).map(head),
    st.sampled_from([1, 3, 5, 7]).map(lambda s: head(s, end=True)),
    st.builds(lambda s, e: frame(0, e, s, MESSAGE), st.sampled_from([1, 3, 5, 7]), st.sampled_from([0, 1])),
    st.sampled_from([1, 3, 5, 7]).map(lambda s: frame(3, 0, s, b"\0\0\0\x08")),
    st.sampled_from([1, 3]).map(lambda s: frame(0, 0, s, b"\0\0\0\0\5")),
    st.just(SETTINGS),
    st.binary(max_size=40),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(fuzzed_frames, max_size=25), prefaced=st.booleans())
def test_any_order_of_frames(tmp_path: Path, sequence: list[bytes], prefaced: bool) -> None:
    """The server answers or sends away, leaves nothing behind, and never fails with anything else."""

    async def scenario() -> None:
        failures: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        (tmp_path / "rpc.sock").unlink(missing_ok=True)
        async with served(tmp_path, DemoService().routes()) as (server, where):
            _, writer = await asyncio.open_unix_connection(where)
            writer.write(PREFACE if prefaced else b"")
            for data in sequence:
                writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                writer.write_eof()
            await until(lambda: not server._connections and not server._tasks)
            await closed(writer)
        assert not failures, failures

    run(scenario(), 30)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answer=st.lists(
        st.one_of(
            fuzzed_frames,
            st.sampled_from([head(1, OK), head(1, TRAILERS, end=True), DATA, frame(7, 0, 0, bytes(8))]),
        ),
        max_size=15,
    )
)
def test_any_answer(tmp_path: Path, answer: list[bytes]) -> None:
    """Our client ends with a response or an RpcError, whatever a server says."""

    async def scenario() -> None:
        failures: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        (tmp_path / "answer.sock").unlink(missing_ok=True)
        async with answered(tmp_path, *answer) as where, connected(where) as client:
            with contextlib.suppress(RpcError):
                await client.unary(Demo.Echo, BytesValue(value=b"x"), timeout=0.05)
        assert not failures, failures

    run(scenario(), 30)


calls = st.lists(
    st.tuples(st.sampled_from(["send", "receive", "end", "leave", "next"]), st.integers(0, 70_000)),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(calls, min_size=1, max_size=5))
def test_any_order_of_calls(tmp_path: Path, several: list[list[tuple[str, int]]]) -> None:
    """Clients that send, read, stop and leave in any order get what they sent back, and leave nothing."""

    async def one(where: str, steps: list[tuple[str, int]]) -> None:
        async with connected(where) as client:
            call = client.stream(Demo.Mirror, timeout=patiently(20))
            await call.__aenter__()
            pending: list[int] = []
            for step, size in steps:
                if step == "send" and sum(pending) < 60_000:
                    await call.send(BytesValue(value=b"m" * size))
                    pending.append(size)
                elif step == "receive" and pending:
                    message = await call.receive()
                    assert message is not None and len(message.value) == pending.pop(0)
                elif step == "end":
                    await call.end()
                    for size in pending:
                        message = await call.receive()
                        assert message is not None and len(message.value) == size
                    assert await call.receive() is None
                    break
                elif step == "leave":
                    client.connection.close()
                    break
                elif step == "next":
                    await call.__aexit__(None, None, None)
                    call = client.stream(Demo.Mirror, timeout=patiently(20))
                    await call.__aenter__()
                    pending.clear()
            await call.__aexit__(None, None, None)

    async def scenario() -> None:
        (tmp_path / "rpc.sock").unlink(missing_ok=True)
        async with served(tmp_path, DemoService().routes()) as (server, where):
            await asyncio.gather(*[one(where, steps) for steps in several])
            await until(lambda: not server._connections and not server._tasks)

    run(scenario(), 60)
