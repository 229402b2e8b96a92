"""HTTP/1.1 over one connected stream (RFC 9112), the parts that the Engine API uses.

One :class:`HttpConnection` carries one exchange at a time. A body is sent with ``Content-Length`` (bytes) or
chunked (an iterable); a response body is read as it comes, so logs and archives never sit in memory.
After an upgrade the connection is a plain byte stream: :meth:`HttpConnection.detach`.
"""

from __future__ import annotations

from wherry.client.endpoint import CannotConnect
from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from wherry.client.transport import Stream

HEAD_SIZE_MAX = 64 << 10
READ_SIZE = 256 << 10
"""Bytes asked for in one read: large enough that 64 MiB of output costs few system calls."""


class ConnectionLost(CannotConnect):
    """The daemon went away in the middle of an exchange."""


class HttpConnection:
    """A byte stream with a read buffer, speaking HTTP."""

    __slots__ = ("_buffer", "_start", "reusable", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.reusable = True
        self._buffer = b""
        self._start = 0

    def close(self) -> None:
        self.stream.close()

    @property
    def buffered(self) -> bool:
        """Whether bytes wait here that need no further read of the socket."""
        return self._start < len(self._buffer) or bool(getattr(self.stream, "pending", int)())

    def stale(self) -> bool:
        """Whether the daemon has closed an idle connection, or sent unexpected data."""
        import select

        poll = select.poll()
        poll.register(self.stream.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # sending

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
    ) -> None:
        """Send one request. ``headers`` must not contain length headers: they are derived from the body.

        :raises ConnectionLost: the daemon closed the connection while the head was sent. If the daemon stops
            reading the body, it has probably answered already, so :meth:`response` handles that.
        """
        for part in (target, *headers.values()):
            if "\r" in part or "\n" in part:
                raise Internal("cannot send a request: line break in a header or path")
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        whole = body if isinstance(body, bytes) else b""
        if isinstance(body, bytes) or (body is None and method in ("POST", "PUT")):
            lines.append(f"Content-Length: {len(whole)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        try:
            self._send_all(head + whole)
        except OSError as e:
            raise ConnectionLost("error during connect: the daemon closed the connection") from e
        if body is not None and not isinstance(body, bytes):
            self._send_chunks(body)

    def _send_chunks(self, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            if not chunk:
                continue
            try:
                self._send_all(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            except OSError:
                self.reusable = False
                return
        try:
            self._send_all(b"0\r\n\r\n")
        except OSError:
            self.reusable = False

    def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.stream.send(view) :]

    # receiving

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        try:
            more = self.stream.recv(READ_SIZE)
        except OSError as e:
            raise ConnectionLost(f"error during connect: {e.strerror or e}") from e
        if not more:
            return False
        self._buffer = self._buffer[self._start :] + more if self._start < len(self._buffer) else more
        self._start = 0
        return True

    def take(self, limit: int) -> bytes:
        """Up to ``limit`` bytes, from the buffer if it is not empty; empty at the end of the stream."""
        if self._start >= len(self._buffer) and not self.fill():
            return b""
        piece = self._buffer[self._start : self._start + limit]
        self._start += len(piece)
        return piece

    def read_line(self) -> bytes:
        """One line without its line end.

        :raises ConnectionLost: the stream ended first.
        :raises Internal: longer than :data:`HEAD_SIZE_MAX`.
        """
        while True:
            end = self._buffer.find(b"\n", self._start)
            if end >= 0:
                line = self._buffer[self._start : end]
                self._start = end + 1
                return line.removesuffix(b"\r")
            if len(self._buffer) - self._start > HEAD_SIZE_MAX:
                raise Internal("cannot read the daemon's answer: header line too long")
            if not self.fill():
                raise ConnectionLost("error during connect: EOF")

    def response(self, method: str, on_end: Callable[[Response], None] | None = None) -> Response:
        """Read a response head; interim 100 answers are skipped. ``on_end``: see :class:`Response`."""
        while True:
            status, reason = self._status_line()
            headers: dict[str, str] = {}
            size = 0
            while line := self.read_line():
                size += len(line)
                if size > HEAD_SIZE_MAX:
                    raise Internal("cannot read the daemon's answer: head too long")
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if status != 100:
                return Response(self, method, status, reason, headers, on_end)

    def _status_line(self) -> tuple[int, str]:
        protocol, _, rest = self.read_line().decode("latin-1").partition(" ")
        code, _, reason = rest.partition(" ")
        if not protocol.startswith("HTTP/1.") or not code.isdecimal():
            raise Internal("cannot read the daemon's answer: malformed HTTP response")
        return int(code), reason

    def detach(self) -> tuple[Stream, bytes]:
        """Hand over the connection: the raw stream, and the bytes that were read beyond the last response."""
        self.reusable = False
        rest = self._buffer[self._start :]
        self._buffer, self._start = b"", 0
        return self.stream, rest


class Response:
    """A response head, and its body as it arrives.

    ``headers`` has lower-case names. The body must be read to its end before the connection is used again:
    ``on_end`` is called once, when a reader has met the end, unless :meth:`abandon` was called before.
    """

    __slots__ = ("_chunked", "_connection", "_left", "_on_end", "headers", "reason", "status")

    def __init__(
        self,
        connection: HttpConnection,
        method: str,
        status: int,
        reason: str,
        headers: dict[str, str],
        on_end: Callable[[Response], None] | None = None,
    ) -> None:
        self.status, self.reason, self.headers = status, reason, headers
        self._connection = connection
        self._on_end = on_end
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left: int | None = 0
        """Bytes left of the body, or of the current chunk; None means "until the connection closes"."""
        if method == "HEAD" or status in (101, 204, 304):
            self._chunked = False
        elif not self._chunked:
            length = headers.get("content-length")
            if length is not None and not length.isdecimal():
                raise Internal("cannot read the daemon's answer: malformed Content-Length")
            self._left = int(length) if length is not None else None
        if self._left is None or headers.get("connection", "").lower() == "close":
            connection.reusable = False

    def read(self, limit: int = READ_SIZE) -> bytes:
        """The next bytes of the body, at most ``limit`` (above 0); empty at its end.

        :raises ConnectionLost: the connection ended before the body did.
        """
        piece = self._read(limit)
        if not piece and self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(self)
        return piece

    def abandon(self) -> HttpConnection:
        """Give up reading: ``on_end`` is not called. :returns: the connection, which cannot be used again."""
        self._on_end = None
        return self._connection

    def _read(self, limit: int) -> bytes:
        if self._chunked and self._left == 0 and not self._next_chunk():
            return b""
        if self._left == 0:
            return b""
        piece = self._connection.take(limit if self._left is None else min(limit, self._left))
        if self._left is None:
            return piece
        if not piece:
            raise ConnectionLost("unexpected EOF")
        self._left -= len(piece)
        if self._chunked and self._left == 0:
            self._connection.read_line()
        return piece

    def _next_chunk(self) -> bool:
        size_text = self._connection.read_line().partition(b";")[0].strip()
        try:
            self._left = int(size_text, 16)
        except ValueError:
            raise Internal("cannot read the daemon's answer: malformed chunk") from None
        if self._left > 0:
            return True
        while self._connection.read_line():
            pass
        self._chunked = False
        return False

    def read_all(self) -> bytes:
        """The whole body, for answers that are known to be small."""
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    @property
    def finished(self) -> bool:
        """Whether the body was read to its end, so that the connection may carry the next exchange."""
        return self._left == 0 and not self._chunked

    @property
    def connection(self) -> HttpConnection:
        return self._connection
