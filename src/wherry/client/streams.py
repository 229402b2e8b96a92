"""The framing of output without a terminal (Engine API, "Attach to a container", stream format).

A frame is 8 bytes of header, ``[stream, 0, 0, 0, size as big-endian uint32]``, and ``size`` bytes of payload.
Stream 1 is stdout, 2 stderr, 0 stdin echoed; 3 is an error of the daemon's.
"""

from __future__ import annotations

from wherry.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Write = Callable[[memoryview], None]

STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3
HEADER = 8
SYSTEM_ERROR_MAX = 64 << 10


class Demultiplexer:
    """Distributes framed bytes, which come in pieces of any size, to ``stdout`` and ``stderr``.

    Payload is passed on at once and never kept: a frame can be 4 GiB long.
    """

    __slots__ = ("_error", "_header", "_left", "_stream", "_writers")

    def __init__(self, stdout: Write, stderr: Write) -> None:
        self._writers = {STDIN: stdout, STDOUT: stdout, STDERR: stderr}
        self._header = b""
        self._stream = STDOUT
        self._left = 0
        self._error = b""

    def feed(self, data: bytes | memoryview) -> None:
        """Pass on the payload in ``data``; consecutive frames of one stream are joined in one write.

        :raises Internal: a header with an unknown stream, or an error from the daemon (stream 3).
        """
        view = memoryview(data)
        gathered: list[memoryview] = []
        stream = self._stream
        at, end = 0, len(view)
        while at < end:
            if self._left == 0:
                need = HEADER - len(self._header)
                self._header += view[at : at + need]
                at += need
                if len(self._header) < HEADER:
                    break
                self._open_frame()
                if self._stream != stream:
                    self._deliver(stream, gathered)
                    stream, gathered = self._stream, []
                continue
            size = min(self._left, end - at)
            gathered.append(view[at : at + size])
            self._left -= size
            at += size
        self._deliver(stream, gathered)

    def _open_frame(self) -> None:
        self._stream = self._header[0]
        if self._stream > SYSTEM:
            raise Internal(f"Unrecognized input header: {self._stream}")
        self._left = int.from_bytes(self._header[4:], "big")
        self._header = b""

    def _deliver(self, stream: int, pieces: list[memoryview]) -> None:
        if not pieces:
            return
        piece = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        if stream != SYSTEM:
            self._writers[stream](piece)
            return
        self._error = (self._error + piece)[:SYSTEM_ERROR_MAX]
        if self._left == 0:
            text = self._error.decode("utf-8", "replace")
            raise Internal(f"error from daemon in stream: {text}")


class Raw:
    """The unframed counterpart: everything is stdout (a terminal, or an old daemon's raw logs)."""

    __slots__ = ("_write",)

    def __init__(self, stdout: Write) -> None:
        self._write = stdout

    def feed(self, data: bytes | memoryview) -> None:
        self._write(memoryview(data))


def copy(chunks: Iterable[bytes], sink: Any) -> None:
    """Feed every chunk to a :class:`Demultiplexer` or :class:`Raw`."""
    for chunk in chunks:
        sink.feed(chunk)
