"""Tells HTTP/2 from HTTP/1.1 on one listener, by a connection's first bytes or by the protocol that TLS
negotiated.

A client with prior knowledge begins with ``PRI * HTTP/2.0`` (RFC 9113 section 3.4), and HTTP/1.1 has no
method of that name. Over TLS the client may announce ``h2`` by ALPN; without ALPN the first bytes decide as
well.

Only this module of the room is imported before a client uses HTTP/2, so it imports none of the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ALPN = ["h2", "http/1.1"]
"""For ``SSLContext.set_alpn_protocols``."""

log = logging.getLogger(__name__)

Factory = Callable[[], asyncio.BaseProtocol]
Loader = Callable[[], Awaitable[asyncio.BaseProtocol]]


class Detector(asyncio.Protocol):
    """A connection's first protocol; it hands the connection over to the right one after the first few bytes.

    The HTTP/2 protocol may have to be imported first; reading is paused meanwhile.
    """

    def __init__(self, http1: Factory, http2: Loader) -> None:
        self._http1 = http1
        self._http2 = http2
        self._transport: asyncio.Transport | None = None
        self._seen = b""
        self._loading: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and (agreed := tls.selected_alpn_protocol()) is not None:
            if agreed == "h2":
                self._load()
            else:
                self._hand_over(self._http1())

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._loading is not None:
            return  # bytes that were read before reading was paused
        if self._seen.startswith(_BEGIN):
            self._load()
        elif not _BEGIN.startswith(self._seen):
            self._hand_over(self._http1())

    def eof_received(self) -> bool | None:
        if self._loading is not None or not self._seen:
            return False
        # At best the beginning of a request line: let HTTP/1.1 answer.
        return self._hand_over(self._http1()).eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._loading is not None:
            self._loading.cancel()

    def _load(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        self._loading = asyncio.get_running_loop().create_task(self._hand_over_loaded(self._transport))

    async def _hand_over_loaded(self, transport: asyncio.Transport) -> None:
        try:
            protocol = await self._http2()
        except Exception:
            log.exception("cannot speak HTTP/2")
            transport.abort()
            return
        if not transport.is_closing():
            transport.resume_reading()  # this comes first, because the new protocol may pause reading again
            self._hand_over(protocol)

    def _hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Protocol:
        transport, seen = self._transport, self._seen
        assert transport is not None
        assert isinstance(protocol, asyncio.Protocol)
        self._seen = b""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if seen:
            protocol.data_received(seen)
        return protocol
