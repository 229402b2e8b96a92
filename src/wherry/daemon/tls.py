"""TLS for listeners; each direction is closed separately.

asyncio's own TLS transport ends a connection as soon as the client has said that it will send no more. But
the Engine API's streams still need the other direction then: the output of ``cat`` comes after the end of its
input. OpenSSL allows that (SSL_shutdown(3): each direction is closed separately), and so does this transport.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

_HANDSHAKE_TIMEOUT = 15.0
_CHUNK = 1 << 16


class TlsProtocol(asyncio.Protocol):
    """The encrypted side: feeds OpenSSL, and an application protocol through :class:`TlsTransport`."""

    def __init__(self, context: ssl.SSLContext, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._factory = factory
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: TlsTransport | None = None
        self._established = False
        self._ended = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport
        self._timer = asyncio.get_running_loop().call_later(_HANDSHAKE_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.advance()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        self.advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._transport is not None:
            self._transport.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.protocol.resume_writing()

    def advance(self) -> None:
        """Process what has arrived."""
        try:
            if self._established or self._handshake():
                self._read()
            self.flush()
        except ssl.SSLError as e:
            log.debug("TLS connection ends: %s", e)
            self.flush()
            self._raw.close()

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._incoming.eof:
                self._raw.close()
            return False
        self._timer.cancel()
        self._established = True
        protocol = self._factory()
        assert isinstance(protocol, asyncio.Protocol)
        self._transport = TlsTransport(self, self._raw, self._tls, protocol)
        protocol.connection_made(self._transport)
        return True

    def _read(self) -> None:
        assert self._transport is not None
        while not (self._paused or self._ended or self._raw.is_closing()):
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if data:
                self._transport.protocol.data_received(data)
                continue
            self._ended = True
            if not self._transport.protocol.eof_received():
                self._transport.close()

    def flush(self) -> None:
        if data := self._outgoing.read():
            self._raw.write(data)

    def pause(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._raw.resume_reading()
            # Data that OpenSSL has buffered already cause no new event.
            asyncio.get_running_loop().call_soon(self.advance)


class TlsTransport(asyncio.Transport):
    """The application writes to this. The raw transport does the buffering and the flow control."""

    def __init__(
        self,
        owner: TlsProtocol,
        raw: asyncio.Transport,
        tls: ssl.SSLObject,
        protocol: asyncio.Protocol,
    ) -> None:
        super().__init__({"ssl_object": tls, "sslcontext": tls.context, "peercert": tls.getpeercert()})
        self._owner = owner
        self._raw = raw
        self._tls = tls
        self._closing = False
        self._finished = False
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = super().get_extra_info(name)
        return own if own is not None else self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        self._owner.pause()

    def resume_reading(self) -> None:
        self._owner.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._finished or self._raw.is_closing():
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as e:
            log.debug("TLS connection ends: %s", e)
            self._raw.abort()
            return
        self._owner.flush()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._finish()

    def _finish(self) -> None:
        """Tell the peer that nothing more will come (the close_notify alert)."""
        if self._finished:
            return
        self._finished = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # The peer's own alert has not arrived, and need not.
        self._owner.flush()

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._finish()
            self._raw.close()

    def abort(self) -> None:
        self._closing = True
        self._raw.abort()
