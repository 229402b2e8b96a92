"""Connections taken over from HTTP: the raw two-way streams of attach and exec.

The client asks with ``Upgrade: tcp`` and gets 101, or, as older clients do, without and gets 200; either way
the connection carries bytes both ways from then on, and the client may close its writing half at the end
of its input (API "Attach to a container", "Hijacking").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

from wherry.api.context import STREAMING
from wherry.errors import Internal

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_CHUNK = 1 << 16


class HijackedResponse(web.StreamResponse):
    """Tells the HTTP server that the answer has been given already."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _TwoWayProtocol(asyncio.StreamReaderProtocol):
    """The end of the client's input is not the end of the connection, over TLS no more than without."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


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
        self._upgrade = request.headers.get("Upgrade", "")
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_CHUNK, loop=loop)
        self._protocol = _TwoWayProtocol(self._reader, loop=loop)
        self._writer = asyncio.StreamWriter(transport, self._protocol, self._reader, loop)

    async def __aenter__(self) -> HijackedStream:
        if self._upgrade:
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {self._content_type}\r\n"
            head += f"Connection: Upgrade\r\nUpgrade: {self._upgrade[:16]}\r\n\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {self._content_type}\r\n\r\n"
        self._request[STREAMING] = True
        # What the client sent along with its request belongs to the stream already.
        early: bytes = getattr(self._http, "_message_tail", b"")
        self._transport.set_protocol(self._protocol)
        self._protocol.connection_made(self._transport)
        # The engine reuses its buffer, so a write must have left this process before the next one.
        self._transport.set_write_buffer_limits(0)
        self._transport.resume_reading()
        if early:
            self._reader.feed_data(early)
        self._transport.write(head.encode("latin-1"))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        # Back to the HTTP server, which closes the connection once everything is sent.
        self._transport.set_protocol(self._http)
        if self._transport.is_closing():
            self._http.connection_lost(None)

    async def send(self, data: bytes | memoryview) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> AsyncIterator[bytes]:
        while chunk := await self._reader.read(_CHUNK):
            yield chunk


class WebSocketStream:
    """A web socket as the engine's ``ClientStream``: binary messages out, any messages in."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes | memoryview) -> None:
        await self._socket.send_bytes(bytes(data))

    async def receive(self) -> AsyncIterator[bytes]:
        async for message in self._socket:
            if message.type == WSMsgType.BINARY:
                yield message.data
            elif message.type == WSMsgType.TEXT:
                yield message.data.encode()
        # A web socket has no half-close: who closes it is gone.
        raise ConnectionResetError("the client has closed the web socket")
