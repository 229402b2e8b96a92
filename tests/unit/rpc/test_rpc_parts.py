"""Metadata, deadlines, statuses and byte queues by themselves."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry import errors
from wherry.errors import InvalidArgument, WherryError
from wherry.rpc import status
from wherry.rpc.metadata import _OURS, Metadata, decode_timeout, encode_timeout
from wherry.rpc.proto import status_pb2
from wherry.rpc.status import Code, Detail, RpcError
from wherry.rpc.streams import ByteQueue

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=20).filter(
    lambda n: not n.startswith("grpc-") and n not in _OURS and not n.endswith("-bin")
)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(str.strip)
pairs = st.lists(
    st.one_of(st.tuples(names, texts), st.tuples(names.map(lambda n: n + "-bin"), st.binary(max_size=40))),
    max_size=8,
)


@given(pairs)
def test_metadata_comes_back(sent: list[tuple[str, str | bytes]]) -> None:
    metadata = Metadata(sent)
    assert list(metadata) == sent
    assert Metadata.received(metadata.encoded()) == metadata


def test_metadata_of_several_values() -> None:
    metadata = Metadata([("a", "1"), ("b", "2"), ("A", "3"), ("x-bin", b"\0")])
    assert metadata.all("a") == ["1", "3"]
    assert metadata.get("a") == "1"
    assert metadata.get("c", "none") == "none"
    assert metadata.get_bytes("x-bin") == b"\0"
    assert len(Metadata({"a": "b"})) == 1
    # Several values of bytes may come as one, with and without padding.
    received = Metadata.received([(b"x-bin", b"AA==, AQ")])
    assert [v for _, v in received] == [b"\0", b"\1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-timeout", "1S"),
        ("content-type", "text/html"),
        ("te", "gzip"),
        (":path", "/"),
        ("a b", "1"),
        ("", "1"),
        ("a", "1\r\nb: 2"),
        ("a", "grün"),
        ("a", " 1"),
        ("a", b"bytes"),
        ("a-bin", "text"),
        ("a\n", "1"),
    ],
)
def test_metadata_that_cannot_be_sent(name: str, value: str | bytes) -> None:
    with pytest.raises(InvalidArgument):
        Metadata({name: value})


@given(st.floats(min_value=0, max_value=1e11))
def test_timeouts_are_never_shorter_and_hardly_longer(seconds: float) -> None:
    told = decode_timeout(encode_timeout(seconds))
    assert seconds - 1e-6 <= told <= seconds + max(1e-6, seconds * 1e-4, 1e-9)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"1s", b"-1S", b"123456789S", b"1S\n", b" 1S"])
def test_timeouts_that_are_none(value: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decode_timeout(value)


details = st.lists(st.builds(Detail, st.text(max_size=20), st.binary(max_size=50)), max_size=3)


@given(st.sampled_from(list(Code)[1:]), st.text(min_size=1, max_size=60), details)
def test_statuses_come_back(code: Code, message: str, parts: list[Detail]) -> None:
    whole = status.decode(status.encode(RpcError(code, message, parts), 16_384))
    assert whole is not None
    assert (whole.code, whole.message, whole.details) == (code, message, tuple(parts))


def test_ok_is_no_error() -> None:
    assert status.decode(status.encode(None, 100)) is None


@given(st.text(max_size=3000), st.binary(max_size=3000), st.integers(0, 5000))
def test_statuses_fit_the_room(message: str, value: bytes, room: int) -> None:
    trailers = status.encode(RpcError(Code.ABORTED, message, [Detail("a/b", value)]), room)
    assert dict(trailers)[b"grpc-status"] == b"10"
    assert sum(len(n) + len(v) + 32 for n, v in trailers) <= max(room, 110)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_any_status_is_read(number: bytes, message: bytes, packed: bytes) -> None:
    trailers = [(b"grpc-status", number), (b"grpc-message", message), (b"grpc-status-details-bin", packed)]
    error = status.decode(trailers)
    assert error is None or isinstance(error.code, Code)


def test_details_are_googles() -> None:
    trailers = dict(status.encode(RpcError(Code.NOT_FOUND, "no", [Detail("t", b"v")]), 1000))
    packed = trailers[b"grpc-status-details-bin"]
    assert b"=" not in packed
    whole = status_pb2.Status.FromString(base64.b64decode(packed + b"=" * (-len(packed) % 4)))
    assert (whole.code, whole.message, whole.details[0].value) == (5, "no", b"v")


def test_errors_of_the_house_have_codes() -> None:
    told = {
        kind.__name__: status.told(kind("x")).code
        for kind in WherryError.__subclasses__()
        if kind.__init__ is WherryError.__init__
    }
    assert told["NotFound"] is Code.NOT_FOUND
    assert told["InvalidArgument"] is Code.INVALID_ARGUMENT
    assert told["NotImplemented_"] is Code.UNIMPLEMENTED
    assert told["Unavailable"] is Code.UNAVAILABLE
    assert told["Internal"] is Code.INTERNAL
    mine = RpcError(Code.DATA_LOSS, "x")
    assert status.told(mine) is mine
    assert status.told(errors.WherryError("x")).code is Code.UNKNOWN


@given(st.lists(st.one_of(st.binary(max_size=9000), st.integers(0, 20_000)), max_size=30))
def test_byte_queue(steps: list[bytes | int]) -> None:
    queue, plain = ByteQueue(), b""
    for step in steps:
        if isinstance(step, bytes):
            if step:
                queue.put(step)
            plain += step
        else:
            size = min(step, len(plain))
            assert queue.take(size) == plain[:size]
            plain = plain[size:]
        assert queue.size == len(plain)
    assert queue.take(len(plain)) == plain
