"""Byte sources for the tar reader: mapped files, and streams that are decompressed and hashed while they are
read.

A decompressor is imported when it is first requested. That must happen before the child gives up its view of
the file system.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from wherry.model.tarformat import BadTar
from wherry.storage.streams import BZIP2, GZIP, PLAIN, XZ, ZSTD

_PIECE = 1 << 20
_INPUT = 128 << 10
_AHEAD = 4
_GZIP_MAGIC = b"\x1f\x8b"
_WINDOW_MAX = 1 << 27
"""The limit of memory in bytes for a zstd frame: the window of ``zstd --ultra -22``."""

Read = Callable[[int], bytes]


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

    def skip_padding(self, size: int) -> None:
        self._at = min(self._at + size, self._size)


class Decompressed:
    """The decompressed stream of ``read``, with a size limit, and hashed if asked.

    :param limit: the most bytes that may come out; more raises :class:`BadTar`.
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
        """``sha256:…`` of all output so far."""
        assert self._hash is not None
        return "sha256:" + self._hash.hexdigest()


class ReadAhead:
    """Calls ``next_piece`` on a thread, a few pieces ahead, so that decompressing and writing overlap."""

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
    """A ``read`` function that decompresses. It imports what it needs now.

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
    """The minimal file interface that the decompressors need."""

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
    """All gzip members (RFC 1952, 2.2); trailing data that is not a member is ignored."""

    def __init__(self, file: _File, new_member: Callable[[], Any]) -> None:
        self._file = file
        self._new_member = new_member
        self._member: Any = None
        self._input = b""
        self._members = 0

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
                if self._members and self._is_something_else():
                    return b""
                self._member = self._new_member()
                self._members += 1
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

    def _is_something_else(self) -> bool:
        """Whether no further member begins here; then the rest is read and discarded."""
        while len(self._input) < len(_GZIP_MAGIC) and (more := self._file.read(_INPUT)):
            self._input += more
        if self._input.startswith(_GZIP_MAGIC):
            return False
        while self._input:
            self._input = self._file.read(_INPUT)
        return True


def _zstd(file: _File) -> tuple[Read, tuple[type[Exception], ...]]:
    import zstandard

    # A truncated frame ends silently here: the tar reader and the digests detect it.
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
