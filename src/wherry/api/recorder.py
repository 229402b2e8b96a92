"""Record the bytes that follow a request that takes over its connection, before the HTTP parser reads them.

A client need not wait for the 101: the input of an attach, or the first frames of HTTP/2, may arrive together
with the request or right after it. The HTTP server would read them as the next request. So the bytes of each
connection are recorded from the beginning of each request, up to a limit; the code that takes over the
connection asks for the bytes that followed the request.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

_MOST = 256 << 10
"""The limit, in bytes for each request: larger than any request that takes over a connection, and some input.
"""
_HEAD_END, _LAST_CHUNK = b"\r\n\r\n", b"0\r\n\r\n"


class Recorder(asyncio.Protocol):
    """Stands in front of the HTTP server's protocol of one connection, and passes everything on to it."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._seen = bytearray()
        self._answered = True

    def answered(self) -> None:
        """A request has been answered: the next bytes belong to another one."""
        self._answered = True

    def early(self, request: web.BaseRequest) -> bytes:
        """The bytes that followed ``request``; empty if there were too many to record."""
        seen = bytes(self._seen)
        head = seen.find(_HEAD_END)
        if head < 0 or not seen.startswith(f"{request.method} ".encode()):
            return b""
        body = head + len(_HEAD_END)
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            last = seen.find(_LAST_CHUNK, body)
            return seen[last + len(_LAST_CHUNK) :] if last >= 0 else b""
        return seen[body + (request.content_length or 0) :]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            self._seen.clear()
            self._answered = False
            self._seen += data[: _MOST + 1]
        elif self._seen:
            self._seen += data[: _MOST + 1]
        if len(self._seen) > _MOST:
            self._seen.clear()  # and no more of this request is recorded
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)
        self._seen.clear()


def recorder_of(request: web.BaseRequest) -> Recorder | None:
    """The recorder of the connection that a request came on; ``None`` if it was taken over or has ended."""
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Recorder) else None
