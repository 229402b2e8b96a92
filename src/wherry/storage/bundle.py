"""Many streams of unknown length in one tar archive; backups have this form.

    <name>/00000000 …      a stream's bytes in pieces, in order; an empty stream has one empty piece
    end                    the last member: without it the archive is incomplete

A stream is written while it is still being read elsewhere, so its size is not known when a tar header would
need it. A piece is small enough to be kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wherry.errors import InvalidArgument
from wherry.model import tarwriter
from wherry.model.tarformat import BadTar, Buffered, TarLimits, TarReader
from wherry.model.tarwriter import TarMember
from wherry.storage.diff import Writable

_PIECE = 4 << 20
_READ = 1 << 20
_END = "end"


class BundleWriter:
    """Writes streams one after the other."""

    def __init__(self, out: Writable) -> None:
        self._out = out

    def stream(self, name: str) -> Pieces:
        """:param name: relative, and used only once."""
        return Pieces(self._out, name)

    def put(self, name: str, data: bytes) -> None:
        """Write a whole stream from memory."""
        with self.stream(name) as pieces:
            pieces.write(data)

    def close(self) -> None:
        """Write the end member: the archive is complete."""
        _member(self._out, _END, b"")
        self._out.write(tarwriter.END)


class Pieces:
    """One stream that is being written. If an exception leaves the block, the last piece is not written."""

    def __init__(self, out: Writable, name: str) -> None:
        self._out, self._name = out, name
        self._held = bytearray()
        self._count = 0

    def write(self, data: bytes) -> int:
        self._held += data
        while len(self._held) >= _PIECE:
            self._flush(_PIECE)
        return len(data)

    def _flush(self, size: int) -> None:
        _member(self._out, f"{self._name}/{self._count:08d}", bytes(self._held[:size]))
        del self._held[:size]
        self._count += 1

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        if kind is None and (self._held or not self._count):
            self._flush(len(self._held))


def _member(out: Writable, name: str, data: bytes) -> None:
    header = tarwriter.header(TarMember(name=name.encode(), mode=0o600, size=len(data)))
    out.write(header + data + tarwriter.padding(len(data)))


class BundleStream:
    """One stream that is being read. It is valid until the next one is requested."""

    def __init__(self, name: str, pieces: Iterator[bytes]) -> None:
        self.name, self._pieces = name, pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self, *, limit: int) -> bytes:
        """All of it. :raises InvalidArgument: it is longer than ``limit`` bytes."""
        data = bytearray()
        for piece in self._pieces:
            data += piece
            if len(data) > limit:
                raise InvalidArgument(f"cannot read the archive: {self.name} has more than {limit} bytes")
        return bytes(data)


def read(next_piece: Callable[[int], bytes]) -> Iterator[BundleStream]:
    """The streams of an archive, in order. Unread parts of a stream are skipped.

    :param next_piece: returns at most that many bytes of the archive, no bytes at its end.
    :raises InvalidArgument: the archive is broken, or ends too early.
    """
    try:
        members = _Members(TarReader(Buffered(lambda: next_piece(_READ)), TarLimits()))
        while (name := members.at) is not None:
            pieces = members.stream(name)
            yield BundleStream(name, pieces)
            for _left in pieces:
                pass
    except BadTar as e:
        raise InvalidArgument(f"cannot read the archive: {e}") from e
    if not members.ended:
        raise InvalidArgument("cannot read the archive: it ends too early")


class _Members:
    """The members of an archive; ``at``: the stream that the next member belongs to."""

    def __init__(self, reader: TarReader) -> None:
        self._reader, self._members = reader, iter(reader)
        self.at: str | None = None
        self.ended = False
        self._advance()

    def _advance(self) -> None:
        entry = next(self._members, None)
        path = entry.name.decode("utf-8", "replace") if entry is not None else ""
        self.ended = path == _END
        self.at = path.rpartition("/")[0] if entry is not None and not self.ended else None

    def stream(self, name: str) -> Iterator[bytes]:
        try:
            while self.at == name:
                for piece in self._reader.data():
                    yield bytes(piece)
                self._advance()
        except BadTar as e:
            raise InvalidArgument(f"cannot read the archive: {e}") from e
