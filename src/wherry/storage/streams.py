"""Byte sources for the tar reader: mapped files, and streams that are decompressed and hashed on the way.

Imported by the confined child, so it stays small: the decompressors are imported when one is asked for,
and that must happen before the child gives up its view of the file system.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from wherry.model.tarformat import BadTar
from wherry.model.tarformat import Buffered as Buffered

PLAIN, GZIP, ZSTD, BZIP2, XZ = "plain", "gzip", "zstd", "bzip2", "xz"
_MAGIC = (
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"BZh", BZIP2),
    (b"\xfd7zXZ\x00", XZ),
)
_PIECE = 1 << 20
_INPUT = 128 << 10
_AHEAD = 4
_WINDOW_MAX = 1 << 27
"""Bytes of memory a zstd frame may ask for; the window of ``zstd --ultra -22``."""

Read = Callable[[int], bytes]


def detect(head: bytes) -> str:
    """Which compression a stream starts with, from its first 6 bytes; ``plain`` for none known."""
    if head[:4] in [bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60)]:
        return ZSTD  # a skippable frame comes first
    return next((name for magic, name in _MAGIC if head.startswith(magic)), PLAIN)


class Readable(Protocol):
    """The least of a binary file: ``read`` returns no bytes at the end only."""

    def read(self, size: int = -1, /) -> bytes: ...


def read_head(stream: Readable) -> bytes:
    """The first 6 bytes, for :func:`detect`; fewer if there are not so many."""
    head = b""
    while len(head) < 6 and (piece := stream.read(6 - len(head))):
        head += piece
    return head


class Rejoined:
    """A head that was looked at, then the rest of its stream."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if self._head and size >= 0:
            taken, self._head = self._head[:size], self._head[size:]
            return taken
        taken, self._head = self._head, b""
        return taken + self._stream.read(size)


class Mapped:
    """A whole regular file as a source, without a copy of its bytes."""

    def __init__(self, fd: int) -> None:
        self._size = os.fstat(fd).st_size
        self._view = memoryview(mmap.mmap(fd, self._size, prot=mmap.PROT_READ) if self._size else b"")
        self._at = 0

    def take(self, size: int) -> bytes:
        piece = self.take_or_end(size)
        if len(piece) < size:
            raise BadTar("it ends too early")
        return piece

    def take_or_end(self, size: int) -> bytes:
        at = self._at
        if at >= self._size:
            return b""
        if at + size > self._size:
            raise BadTar("it ends too early")
        self._at = at + size
        return bytes(self._view[at : at + size])

    def chunks(self, size: int) -> Iterator[memoryview]:
        at = self._at
        if at + size > self._size:
            raise BadTar("it ends too early")
        self._at = at + size
        if size:
            yield self._view[at : at + size]

    def skip(self, size: int) -> None:
        if self._at + size > self._size:
            raise BadTar("it ends too early")
        self._at += size


class Decompressed:
    """The stream behind ``read``: decompressed, bounded, and hashed if asked.

    :param limit: bytes that may come out; more raises :class:`BadTar`.
    """

    def __init__(self, read: Read, compression: str, limit: int, *, hashed: bool) -> None:
        self._read = decompressor(read, compression)
        self._limit = limit
        self._hash = None
        if hashed:
            import hashlib

            self._hash = hashlib.sha256()
        self.size = 0

    def next_piece(self) -> bytes:
        """:raises BadTar: broken or truncated compressed data, or more than the limit came out."""
        piece = self._read(_PIECE)
        self.size += len(piece)
        if self.size > self._limit:
            raise BadTar(f"it unpacks to more than {self._limit} bytes, the most allowed for its size")
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    @property
    def digest(self) -> str:
        """``sha256:…`` of what came out so far."""
        assert self._hash is not None
        return "sha256:" + self._hash.hexdigest()


class ReadAhead:
    """Runs ``next_piece`` in a thread, a few pieces ahead, so that decompression and writing overlap."""

    def __init__(self, next_piece: Callable[[], bytes]) -> None:
        self._inner = next_piece
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        threading.Thread(target=self._run, daemon=True).start()
        self._end: bytes | BaseException | None = None

    def _run(self) -> None:
        try:
            while piece := self._inner():
                self._queue.put(piece)
            self._queue.put(b"")
        except BaseException as e:
            self._queue.put(e)

    def next_piece(self) -> bytes:
        item = self._end if self._end is not None else self._queue.get()
        if not item or isinstance(item, BaseException):
            self._end = item
        if isinstance(item, BaseException):
            raise item
        return item


def decompressor(read: Read, compression: str) -> Read:
    """A ``read`` that decompresses. Imports what it needs now.

    The returned function raises :class:`BadTar` for broken or truncated data.
    """
    if compression == PLAIN:
        return read
    opened, errors = _OPENERS[compression](_File(read))

    def checked(size: int) -> bytes:
        try:
            return opened(size)
        except errors as e:
            raise BadTar(f"its {compression} data is broken: {e}") from e

    return checked


class _File:
    """The least of a file object that the decompressors ask for."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def read(self, size: int = -1) -> bytes:
        return self._read(size if size > 0 else _PIECE)

    def seekable(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def close(self) -> None: ...


def _gzip(file: _File) -> tuple[Read, tuple[type[Exception], ...]]:
    from isal import isal_zlib

    stream = _GzipMembers(file, lambda: isal_zlib.decompressobj(wbits=31))
    return stream.read, (isal_zlib.error, EOFError)  # type: ignore[return-value]


class _GzipMembers:
    """Member after member (RFC 1952, 2.2); zero bytes after the last one are padding."""

    def __init__(self, file: _File, new_member: Callable[[], Any]) -> None:
        self._file = file
        self._new_member = new_member
        self._member: Any = None
        self._input = b""

    def read(self, size: int) -> bytes:
        while True:
            if not self._input:
                self._input = self._file.read(_INPUT)
                if not self._input and self._member is None:
                    return b""
            ended = not self._input
            if self._member is None:
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
                self._member = self._new_member()
            out: bytes = self._member.decompress(self._input, size)
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            else:
                self._input = self._member.unconsumed_tail
                if ended and not out:
                    raise EOFError("it ends too early")
            if out:
                return out


def _zstd(file: _File) -> tuple[Read, tuple[type[Exception], ...]]:
    import zstandard

    # A frame that is cut short ends quietly here: the tar reader and the digests notice.
    context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    stream = context.stream_reader(file, read_across_frames=True)  # type: ignore[arg-type]
    return stream.read, (zstandard.ZstdError,)


def _bzip2(file: _File) -> tuple[Read, tuple[type[Exception], ...]]:
    import bz2

    return bz2.BZ2File(file).read1, (OSError, EOFError, ValueError)  # type: ignore[call-overload]


def _xz(file: _File) -> tuple[Read, tuple[type[Exception], ...]]:
    import lzma

    # LZMAFile has no memory limit of its own; the child's address space limit is the bound
    return lzma.LZMAFile(file).read1, (lzma.LZMAError, EOFError)  # type: ignore[arg-type]


_OPENERS = {GZIP: _gzip, ZSTD: _zstd, BZIP2: _bzip2, XZ: _xz}
