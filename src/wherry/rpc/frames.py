"""Split HTTP/2 frames: DATA is passed on at once in pieces, every other frame when it is complete.

+-----------------+---------+---------+---------------------+
| length (24)     | type(8) | flags(8)| R, stream id (32)   |   RFC 9113 section 4.1
+-----------------+---------+---------+---------------------+
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from wherry.rpc.limits import FRAME_SIZE

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
ENHANCE_YOUR_CALM: Final = 11

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEAD = struct.Struct(">HBBBL")
_HEAD_SIZE = 9
_WINDOW_UPDATE = struct.Struct(">HBBBLL")
_GOAWAY = struct.Struct(">LL")


class ConnectionFault(Exception):
    """The peer broke a rule, so the connection must end; ``code`` is HTTP/2's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameSink(Protocol):
    """Receives the frames. Both methods may raise :class:`ConnectionFault`."""

    def take_data(self, stream_id: int, data: bytes, padding: int, end: bool) -> None:
        """Bytes of a DATA frame; ``padding`` counts against the windows too; ``end`` with a frame's last
        bytes, if it has END_STREAM."""

    def take_frame(self, kind: int, flags: int, stream_id: int, frame: bytes) -> None:
        """Any other complete frame, with its head."""


class Splitter:
    """Splits the data of a connection. ``limit`` bounds every frame except DATA, and a whole header block.

    Between two reads at most the beginning of one such frame is kept.
    """

    def __init__(self, sink: FrameSink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._kept = bytearray()
        self._needed = 0
        # The DATA frame that is being passed on: its remaining bytes (with padding), and whether it ends the
        # stream.
        self._left = 0
        self._padding = 0
        self._stream = 0
        self._end = False
        # The header block that is being read: its stream and size.
        self._block_stream = 0
        self._block = 0

    def feed(self, data: bytes) -> None:
        """:raises ConnectionFault: the peer broke a rule. Do not call this again then."""
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data = bytes(self._kept)
            self._kept.clear()
        at = 0
        while True:
            if self._left:
                taken = self._pass_on(data, at)
                if not taken:
                    return
                at += taken
                continue
            taken = self._begin(data, at)
            if not taken:
                break
            at += taken
        if at < len(data):
            self._kept += memoryview(data)[at:]

    def _begin(self, data: bytes, at: int) -> int:
        """Read one frame, or the head of a DATA frame. Returns the bytes used; 0 if there are too few."""
        there = len(data) - at
        if there < _HEAD_SIZE:
            self._needed = _HEAD_SIZE
            return 0
        head: tuple[int, int, int, int, int] = _HEAD.unpack_from(data, at)
        high, low, kind, flags, stream_id = head
        length = high << 8 | low
        stream_id &= 0x7FFFFFFF
        if kind == DATA:
            return self._begin_data(data, at, length, flags, stream_id)
        if length > self._limit:
            raise ConnectionFault(
                ENHANCE_YOUR_CALM, f"a frame of type {kind} with {length} bytes is too large"
            )
        if there < _HEAD_SIZE + length:
            self._needed = _HEAD_SIZE + length
            return 0
        self._count_block(kind, flags, stream_id, length)
        self._sink.take_frame(kind, flags, stream_id, data[at : at + _HEAD_SIZE + length])
        return _HEAD_SIZE + length

    def _begin_data(self, data: bytes, at: int, length: int, flags: int, stream_id: int) -> int:
        if length > FRAME_SIZE:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"a DATA frame with {length} bytes is too large")
        if not stream_id or self._block_stream:
            raise ConnectionFault(PROTOCOL_ERROR, "a DATA frame in the wrong place")
        used, padding, overhead = _HEAD_SIZE, 0, 0
        if flags & PADDED:
            if len(data) - at < _HEAD_SIZE + 1:
                self._needed = _HEAD_SIZE + 1
                return 0
            padding = data[at + _HEAD_SIZE]
            if padding >= length:
                raise ConnectionFault(PROTOCOL_ERROR, "a DATA frame with more padding than bytes")
            used, overhead = used + 1, 1
        self._stream, self._end = stream_id, bool(flags & END_STREAM)
        self._left, self._padding = length - overhead, padding
        if overhead or not self._left:
            # Report a frame without bytes here, because no other call follows.
            self._sink.take_data(stream_id, b"", overhead, self._end and not self._left)
        return used

    def _pass_on(self, data: bytes, at: int) -> int:
        there = min(self._left, len(data) - at)
        if not there:
            return 0
        payload = min(there, max(0, self._left - self._padding))
        piece = data if payload == len(data) else data[at : at + payload]
        self._left -= there
        self._padding = min(self._padding, self._left)
        self._sink.take_data(self._stream, piece, there - payload, self._end and not self._left)
        return there

    def _count_block(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """A header block is one HEADERS frame and its CONTINUATION frames, without other
        frames between them."""
        if self._block_stream:
            if kind != CONTINUATION or stream_id != self._block_stream:
                raise ConnectionFault(PROTOCOL_ERROR, "a frame within a header block")
        elif kind == CONTINUATION:
            raise ConnectionFault(PROTOCOL_ERROR, "a CONTINUATION without HEADERS")
        if kind not in (HEADERS, CONTINUATION):
            return
        self._block += length
        if self._block > self._limit:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block is too large")
        self._block_stream = 0 if flags & END_HEADERS else stream_id
        if flags & END_HEADERS:
            self._block = 0


def window_update(stream_id: int, increment: int) -> bytes:
    return _WINDOW_UPDATE.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment)


def data_head(stream_id: int, length: int, end: bool) -> bytes:
    """Handle the head of a DATA frame."""
    return _HEAD.pack(length >> 8, length & 0xFF, DATA, END_STREAM if end else 0, stream_id)


def goaway(last_stream_id: int, code: int, reason: str) -> bytes:
    text = reason.encode()[:200]
    return _HEAD.pack(0, 8 + len(text), GOAWAY, 0, 0) + _GOAWAY.pack(last_stream_id, code) + text


def read_goaway(frame: bytes) -> tuple[int, int, str]:
    """The last processed stream, HTTP/2's error code, and a text.

    :raises ConnectionFault: it is too short.
    """
    if len(frame) < _HEAD_SIZE + _GOAWAY.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a GOAWAY frame that is too short")
    last, code = _GOAWAY.unpack_from(frame, _HEAD_SIZE)
    return last & 0x7FFFFFFF, code, frame[_HEAD_SIZE + _GOAWAY.size :][:200].decode("utf-8", "replace")
