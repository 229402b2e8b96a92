"""Connections hijacked from HTTP: the raw two-way streams of attach and exec.

The client asks with ``Upgrade: tcp`` and gets 101; older clients ask without it and get 200. In both cases
the connection carries bytes both ways from then on. The client may close its writing half at the end of its
input (API "Attach to a container", "Hijacking").
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from collections.abc import AsyncIterator, Callable

from aiohttp import WSMsgType, web

from wherry.api.context import STREAMING
from wherry.api.heads import HEADERS
from wherry.api.recorder import recorder_of
from wherry.errors import Internal

RAW = "application/vnd.docker.raw-stream"
_HEAD = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_CHUNK = 1 << 16
_LINGER = 10.0
"""Seconds that a client has to stop sending, after the last of its output."""
_HEAD_FIRST, _HEAD_LAST = 0.0005, 0.2
"""Seconds between two checks whether the client has read the head: the first interval, and the longest one,
after which it stops checking."""


class HijackedResponse(web.StreamResponse):
    """Tells the HTTP server that the response was sent already."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def early_bytes(request: web.BaseRequest) -> bytes:
    """Bytes that the client sent after its request; they belong to the stream."""
    recorder = recorder_of(request)
    return b"" if recorder is None else recorder.early(request)


class _TwoWayProtocol(asyncio.StreamReaderProtocol):
    """The end of the client's input does not close the connection, with or without TLS."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


class _LentWriter(asyncio.StreamWriter):
    """Writes to a connection that is returned to the HTTP server, so this writer does not close it."""

    def __del__(self) -> None:
        pass


class HijackedStream:
    """A client's raw connection, as the engine's ``ClientStream``. Use as an async context manager."""

    def __init__(self, request: web.BaseRequest, content_type: str) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        if not isinstance(transport, asyncio.Transport):
            raise Internal("cannot take the connection over: it is not a stream")
        self._request = request
        self._transport = transport
        self._http = transport.get_protocol()
        self._content_type = content_type
        self._is_new = True
        self._upgrade = request.headers.get("Upgrade", "")
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_CHUNK, loop=loop)
        self._protocol = _TwoWayProtocol(self._reader, loop=loop)
        self._writer = _LentWriter(transport, self._protocol, self._reader, loop)

    async def __aenter__(self) -> HijackedStream:
        if self._upgrade:
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {self._content_type}\r\n"
            head += f"Connection: Upgrade\r\nUpgrade: {self._upgrade[:16]}\r\n{_HEAD}\r\n"
        else:
            # Clients that do not ask for an upgrade know only this content type.
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n{_HEAD}\r\n"
        self._request[STREAMING] = True
        early = early_bytes(self._request)
        self._transport.set_protocol(self._protocol)
        self._protocol.connection_made(self._transport)
        # The engine reuses its buffer, so a write must have left this process before the next one.
        self._transport.set_write_buffer_limits(0)
        self._transport.resume_reading()
        if early:
            self._reader.feed_data(early)
        self._transport.write(head.encode("latin-1"))
        return self

    async def __aexit__(self, kind: object, *_exception: object) -> None:
        if kind is None:
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._drain(), _LINGER)
        # The HTTP server gets the connection back, and closes it once everything is sent.
        self._transport.set_protocol(self._http)
        if self._transport.is_closing():
            self._http.connection_lost(None)

    async def _drain(self) -> None:
        """Close the writing half, and read what the client still sends: if the connection were closed before
        that, it would be reset, and the client could lose the last output.
        """
        if self._transport.is_closing() or not self._transport.can_write_eof():
            return
        self._transport.write_eof()
        while await self._reader.read(_CHUNK):
            pass

    async def _head_alone(self) -> None:
        """Wait until the client has read the head: some clients lose data that arrives together with it.

        The kernel has no event for that, so this asks it repeatedly; usually once is enough.
        """
        self._is_new = False
        connection = self._transport.get_extra_info("socket")
        pause = _HEAD_FIRST
        while connection is not None and pause < _HEAD_LAST and not self._transport.is_closing():
            try:
                left = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            except OSError:
                return
            if not int.from_bytes(left, "little"):
                return
            await asyncio.sleep(pause)
            pause *= 2

    async def send(self, data: bytes | memoryview) -> None:
        if self._is_new:
            await self._head_alone()
        self._writer.write(data)
        await self._writer.drain()

    @property
    def offer(self) -> Callable[[memoryview], bool] | None:
        return self._offer

    def _offer(self, data: memoryview) -> bool:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        return not self._transport.get_write_buffer_size()

    async def receive(self) -> AsyncIterator[bytes]:
        while chunk := await self._reader.read(_CHUNK):
            yield chunk


class WebSocketStream:
    """A web socket as the engine's ``ClientStream``: binary messages out, any messages in."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes | memoryview) -> None:
        await self._socket.send_bytes(bytes(data))

    @property
    def offer(self) -> None:
        return None

    async def receive(self) -> AsyncIterator[bytes]:
        async for message in self._socket:
            if message.type == WSMsgType.BINARY:
                yield message.data
            elif message.type == WSMsgType.TEXT:
                yield message.data.encode()
        # A web socket has no half-close: a client that closes it is gone.
        raise ConnectionResetError("the client has closed the web socket")
