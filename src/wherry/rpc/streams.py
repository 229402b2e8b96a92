"""One stream of an HTTP/2 connection: headers, bytes in both directions, trailers.

Received bytes wait in the stream until they are read. The stream's window limits what the peer may send. It
starts small, grows while the reader keeps up, and is reopened only for bytes that were read. So a call whose
reader stops costs at most its window, and does not block other calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from wherry.rpc.frames import CANCEL
from wherry.rpc.limits import FIRST_WINDOW, ByteBudget
from wherry.rpc.metadata import Headers
from wherry.rpc.status import Code, RpcError

# Pieces smaller than this are joined: the overhead of each would exceed its size.
_SMALL = 4096


class Wire(Protocol):
    """The methods of a connection that a stream uses. None of them waits."""

    windows: ByteBudget
    assembling: ByteBudget
    stream_window: int

    def send_headers(self, stream: Stream, headers: Headers, end: bool) -> None: ...

    def send_data(self, stream: Stream, data: memoryview, end: bool) -> int:
        """Send as much as the windows and the transport allow; returns the number of bytes."""

    def grant(self, stream: Stream, size: int) -> None:
        """Allow the peer to send this many more bytes."""

    def reset(self, stream: Stream, code: int, error: RpcError) -> None: ...

    def header_room(self) -> int:
        """The maximum size of the peer's header list."""


class ByteQueue:
    """A queue of bytes; large pieces are not joined before they are read."""

    __slots__ = ("_at", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray] = deque()
        self._at = 0
        self.size = 0

    def put(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._pieces and len(self._pieces[-1]) < _SMALL and len(piece) < _SMALL:
            last = self._pieces[-1]
            if isinstance(last, bytearray):
                last += piece
                return
            self._pieces[-1] = bytearray(last) + piece
            return
        self._pieces.append(piece)

    def take(self, size: int) -> bytes:
        """Take exactly this many bytes; they must be available."""
        self.size -= size
        first = self._pieces[0] if size else b""
        if size <= len(first) - self._at:
            taken = first if size == len(first) else first[self._at : self._at + size]
            self._skip(size)
            return bytes(taken)
        parts: list[bytes | bytearray] = []
        while size:
            first = self._pieces[0]
            part = first[self._at : self._at + size]
            parts.append(part)
            size -= len(part)
            self._skip(len(part))
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        self._at += size
        while self._pieces and self._at >= len(self._pieces[0]):
            self._at -= len(self._pieces.popleft())

    def clear(self) -> None:
        self._pieces.clear()
        self._at = self.size = 0


class Stream:
    """One call's stream. Several tasks may send, one after the other; only one may read."""

    def __init__(self, wire: Wire, stream_id: int, ours: bool) -> None:
        self.id = stream_id
        self.ours = ours
        """Whether we opened it: then the peer's trailers are the end of the call."""
        self.headers: Headers | None = None
        """The request's headers, or the response's once :meth:`response` has returned."""
        self.trailers: Headers = []
        self.error: RpcError | None = None
        self.received_all = False
        self.sent_all = False
        self.on_failure: Callable[[], object] | None = None
        """Called once when the peer, or the end of the connection, breaks the stream off."""
        self.allowance = FIRST_WINDOW
        """The number of bytes that the peer may still send."""
        self._wire = wire
        self._queue = ByteQueue()
        self._window = FIRST_WINDOW
        self._owed = 0
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._sending = asyncio.Lock()

    # Called by the connection.

    def take_headers(self, headers: Headers, trailing: bool) -> None:
        if trailing:
            self.trailers = headers
        else:
            self.headers = headers
        self._wake_reader()

    def take_data(self, data: bytes) -> None:
        self._queue.put(data)
        self._wake_reader()

    def take_end(self) -> None:
        self.received_all = True
        self._wake_reader()
        if self.ours:
            self.wake_writers()

    def fail(self, error: RpcError) -> None:
        """The stream has ended: wake all waiters. The first reason counts."""
        if self.error is None:
            self.error = error
        self._queue.clear()
        self._wake_reader()
        self.wake_writers()
        told, self.on_failure = self.on_failure, None
        if told is not None:
            told()

    def retire(self) -> None:
        """The connection has removed the stream: release its share of the windows."""
        self._wire.windows.give(self._window - FIRST_WINDOW)
        self._window = FIRST_WINDOW

    def wake_writers(self) -> None:
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)
        self._writers.clear()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # Used by calls.

    @property
    def closed(self) -> bool:
        return self.error is not None or (self.received_all and self.sent_all)

    @property
    def budget(self) -> ByteBudget:
        """The size of incomplete messages."""
        return self._wire.assembling

    @property
    def header_room(self) -> int:
        return self._wire.header_room()

    @property
    def available(self) -> int:
        """The number of bytes that can be taken without waiting."""
        return self._queue.size

    async def response(self) -> Headers:
        """The response's headers. :raises RpcError: the stream ended before."""
        while self.headers is None:
            if self.error is not None:
                raise self.error
            await self._wait_to_read()
        return self.headers

    async def wait_data(self) -> bool:
        """Wait until bytes are available; False at the end of the peer's data.

        :raises RpcError: the stream was broken off.
        """
        while not self._queue.size:
            if self.error is not None:
                raise self.error
            if self.received_all:
                return False
            await self._wait_to_read()
        return True

    def take(self, size: int) -> bytes:
        """Take exactly this many of the available bytes; the peer may then send as many more."""
        data = self._queue.take(size)
        self.credit(size)
        return data

    def credit(self, size: int) -> None:
        self._owed += size
        if self.received_all or self.error is not None or self._owed < self._window >> 2:
            return
        grown = 0
        if not self._queue.size and self._window < self._wire.stream_window:
            # The reader waits for the peer, so the window is too small.
            grown = min(3 * self._window, self._wire.stream_window - self._window)
            grown = grown if self._wire.windows.take(grown) else 0
        self._window += grown
        self.allowance += self._owed + grown
        self._wire.grant(self, self._owed + grown)
        self._owed = 0

    def send_headers(self, headers: Headers, end: bool = False) -> None:
        """:raises RpcError: the stream was broken off."""
        if self.error is not None:
            raise self.error
        self._wire.send_headers(self, headers, end)

    async def send(self, data: bytes, end: bool = False) -> None:
        """Send bytes, and optionally the end of our data. Waits for a slow peer. If the peer's answer is
        already complete, the bytes are dropped.

        :raises RpcError: the stream was broken off. Cancelled with some of the bytes sent, it is reset.
        """
        async with self._sending:
            rest = memoryview(data)
            while True:
                if self.error is not None:
                    raise self.error
                if self.sent_all or (self.ours and self.received_all):
                    return
                rest = rest[self._wire.send_data(self, rest, end) :]
                if not rest and (not end or self.sent_all):
                    return
                try:
                    await self._wait_to_write()
                except asyncio.CancelledError:
                    if len(rest) < len(data):
                        self.reset(CANCEL)
                    raise

    def reset(self, code: int = CANCEL, error: RpcError | None = None) -> None:
        """Break the stream off, if it has not ended; all waiters receive ``error``."""
        self.on_failure = None
        if not self.closed:
            self._wire.reset(self, code, error or RpcError(Code.CANCELLED, "the call was cancelled"))
        self._queue.clear()

    async def _wait_to_read(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def _wait_to_write(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writers.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._writers:
                self._writers.remove(waiter)
