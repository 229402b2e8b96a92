"""Connections that become another protocol's: BuildKit's clients ask for HTTP/2 on a connection of HTTP/1.1.

    POST /grpc       Upgrade: h2c    the client calls, the daemon answers
    POST /session    Upgrade: h2c    the daemon calls; headers say who the client is and what it answers

Who speaks HTTP/2 is handed in: this face knows how a connection is taken over, and nothing of what goes on
in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from wherry.api.context import STREAMING, RequestContext
from wherry.api.hijack import HijackedResponse, early_bytes
from wherry.api.router import Route
from wherry.errors import Internal, InvalidArgument

_PROTOCOL = "h2c"
_HEADERS = "X-Docker-Expose-Session-"


class Http2(Protocol):
    """Who takes such connections."""

    async def serve(self, transport: asyncio.Transport, early: bytes) -> None:
        """Answer calls until the connection ends."""

    async def check_session(self, identifier: str) -> None:
        """:raises Conflict, InvalidArgument: a session of that id cannot come."""

    async def session(
        self, transport: asyncio.Transport, early: bytes, identifier: str, key: str, methods: Sequence[str]
    ) -> None:
        """Make calls until the connection ends."""


def routes(http2: Http2) -> list[Route]:
    async def grpc(ctx: RequestContext) -> web.StreamResponse:
        async with _Taken(ctx.request) as (transport, early):
            await http2.serve(transport, early)
        return HijackedResponse()

    async def session(ctx: RequestContext) -> web.StreamResponse:
        headers = ctx.request.headers
        identifier = headers.get(f"{_HEADERS}Uuid", "")
        await http2.check_session(identifier)
        async with _Taken(ctx.request) as (transport, early):
            await http2.session(
                transport,
                early,
                identifier,
                headers.get(f"{_HEADERS}Sharedkey", ""),
                headers.getall(f"{_HEADERS}Grpc-Method", []),
            )
        return HijackedResponse()

    return [("POST", "/grpc", grpc), ("POST", "/session", session)]


class _Taken:
    """A connection taken over, with what the client sent along with its request."""

    def __init__(self, request: web.BaseRequest) -> None:
        if request.headers.get("Upgrade", "").lower() != _PROTOCOL:
            raise InvalidArgument(f"invalid upgrade: expected Upgrade: {_PROTOCOL}")
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        if not isinstance(transport, asyncio.Transport):
            raise Internal("cannot take the connection over: it is not a stream")
        self._request, self._transport = request, transport
        self._http = transport.get_protocol()

    async def __aenter__(self) -> tuple[asyncio.Transport, bytes]:
        self._request[STREAMING] = True
        head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {_PROTOCOL}\r\n\r\n"
        self._transport.write(head.encode())
        return self._transport, early_bytes(self._request)

    async def __aexit__(self, *_exception: object) -> None:
        # Back to the HTTP server, which closes the connection once everything is sent.
        self._transport.set_protocol(self._http)
        if self._transport.is_closing():
            self._http.connection_lost(None)
