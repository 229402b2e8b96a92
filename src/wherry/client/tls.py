"""TLS over a connected socket, with the half-close that attached streams need.

:class:`ssl.SSLSocket` cannot close one direction alone: its ``unwrap`` discards data that the peer still
sends. So TLS runs over two memory buffers here: ``close_notify`` is sent while reading continues (RFC 8446,
6.1: either side may close its own direction).
"""

from __future__ import annotations

import ssl

from wherry.client.endpoint import CannotConnect, DaemonEndpoint, Tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

READ_SIZE = 256 << 10


def connect(raw: _socket.socket, endpoint: DaemonEndpoint, tls: Tls) -> TlsStream:
    """Perform the handshake over a connected, blocking socket; close the socket if that fails.

    :raises CannotConnect: a certificate is not trusted or cannot be read; the text says which.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert or tls.key:
            context.load_cert_chain(tls.cert, tls.key or None)
        return TlsStream(raw, context, endpoint.address)
    except (OSError, ValueError) as e:
        raw.close()
        raise CannotConnect(f"error during connect: TLS to {endpoint.host}: {e}") from e


class TlsStream:
    """An encrypted stream. A poll loop must check ``pending`` and ``flush`` as well as the descriptor."""

    def __init__(self, raw: _socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._unsent = memoryview(b"")
        self._plain = b""
        """Bytes that were decrypted ahead of a half-close."""
        self.fileno, self.close = raw.fileno, raw.close
        self.setblocking, self.settimeout = raw.setblocking, raw.settimeout
        while True:
            try:
                self._tls.do_handshake()
                self.flush()
                return
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()

    def _fill(self) -> None:
        data = self._raw.recv(READ_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def pending(self) -> int:
        """The number of bytes that are available without reading the socket; some of them
        may not be payload."""
        return len(self._plain) + self._tls.pending() + self._incoming.pending

    def flush(self) -> None:
        """Send the bytes that are encrypted already.

        :raises BlockingIOError: the socket has no room now.
        """
        if self._outgoing.pending:
            self._unsent = memoryview(bytes(self._unsent) + self._outgoing.read())
        while self._unsent:
            self._unsent = self._unsent[self._raw.send(self._unsent) :]

    def send(self, data: Any, /) -> int:
        self.flush()
        try:
            size = self._tls.write(memoryview(data)[: 64 << 10])
        except ssl.SSLError as e:
            raise BrokenPipeError(f"TLS: {e}") from e
        try:
            self.flush()
        except BlockingIOError:
            pass  # it is buffered now: the next flush sends it
        return size

    def recv(self, size: int, /) -> bytes:
        buffer = bytearray(min(size, READ_SIZE))
        return bytes(buffer[: self.recv_into(buffer)])

    def recv_into(self, buffer: Any, /) -> int:
        if self._plain:
            size = min(len(buffer), len(self._plain))
            buffer[:size] = self._plain[:size]
            self._plain = self._plain[size:]
            return size
        while True:
            try:
                return int(self._tls.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0

    def shutdown(self, how: int, /) -> None:
        """Send ``close_notify``. Data that has arrived is decrypted first: closing would discard it."""
        try:
            while piece := self._tls.read(READ_SIZE):
                self._plain += piece
        except ssl.SSLError:
            pass
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it waits for the peer's close_notify, which may come later
        timeout = self._raw.gettimeout()
        self._raw.settimeout(None)
        self.flush()
        self._raw.settimeout(timeout)
