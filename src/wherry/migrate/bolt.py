"""Reads a bbolt database (go.etcd.io/bbolt), as dockerd and containerd keep theirs.

A file of pages. A page's header is its number (8 bytes), flags and count (2 each) and the number of further
pages that it runs over (4); then come its elements, all little-endian::

    branch element   position, key's size (4 each), page of the child (8)
    leaf element     flags, position, key's size, value's size (4 each); flag 1: the value is a bucket
    bucket           root page, sequence (8 each); with root 0 the page itself follows ("inline")

Positions count from the element itself. Pages 0 and 1 each have the database's root; the one with the higher
number of a transaction counts, if its checksum (FNV-1a, 64 bits) is right.
"""

from __future__ import annotations

import mmap
import os
import struct

from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC, _VERSION = 0xED0CDAED, 2
_HEADER = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_BRANCH = struct.Struct("<IIQ")
_LEAF = struct.Struct("<IIII")
_BUCKET = struct.Struct("<QQ")
_BRANCH_PAGE, _LEAF_PAGE = 1, 2
_IS_BUCKET = 1
_DEEPEST = 64
"""Pages from the root to a leaf; more is a circle."""


class Bolt:
    """An open database, mapped into memory. Use it in a ``with``."""

    def __init__(self, path: str) -> None:
        """:raises InvalidArgument: it cannot be read, or is no such database."""
        self._path = path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise InvalidArgument(f"cannot read {path}: {e.strerror}") from e
        try:
            self._data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as e:
            raise InvalidArgument(f"cannot read {path}: it is empty, or no file") from e
        finally:
            os.close(descriptor)
        try:
            self._size, root = self._newest()
            self.root = Bucket(self, root, b"")
        except BaseException:
            self._data.close()
            raise

    def __enter__(self) -> Bolt:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def _newest(self) -> tuple[int, int]:
        """The size of a page, and the root's number."""
        found: list[tuple[int, int, int]] = []
        sizes = {os.sysconf("SC_PAGE_SIZE"), 4096, 16384, 65536}
        for offset in (0, *sorted(sizes)):
            start = offset + _HEADER.size
            if len(self._data) < start + _META.size:
                continue
            fields = _META.unpack_from(self._data, start)
            magic, version, size, _flags, root, _sequence, _free, _pages, transaction, checksum = fields
            whole = self._data[start : start + _META.size - 8]
            if (magic, version) == (_MAGIC, _VERSION) and checksum == _fnv(whole) and offset in (0, size):
                found.append((transaction, size, root))
        if not found:
            raise self.broken("it has no valid root")
        _transaction, size, root = max(found)
        return size, root

    def broken(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"cannot read {self._path}: {why}")

    def page(self, number: int) -> tuple[bytes, int, int]:
        """A page with all that it runs over, its flags, and how many elements it has."""
        start = number * self._size
        if not 0 < start <= len(self._data) - _HEADER.size:
            raise self.broken(f"it has no page {number}")
        _, flags, count, over = _HEADER.unpack_from(self._data, start)
        return self._data[start : start + (over + 1) * self._size], flags, count

    def part(self, page: bytes, start: int, size: int) -> bytes:
        if start + size > len(page):
            raise self.broken("an element leads out of its page")
        return page[start : start + size]


class Bucket:
    """Keys, in order, with their values: bytes, or buckets."""

    def __init__(self, bolt: Bolt, root: int, inline: bytes) -> None:
        self._bolt, self._root, self._inline = bolt, root, inline

    def __iter__(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        if self._inline:
            _, flags, count, _ = _HEADER.unpack_from(self._inline)
            yield from self._elements(self._inline, flags, count, 0)
        else:
            yield from self._walk(self._root, 0)

    def _walk(self, number: int, depth: int) -> Iterator[tuple[bytes, bytes | Bucket]]:
        if depth > _DEEPEST:
            raise self._bolt.broken("its pages form a circle")
        page, flags, count = self._bolt.page(number)
        yield from self._elements(page, flags, count, depth)

    def _elements(
        self, page: bytes, flags: int, count: int, depth: int
    ) -> Iterator[tuple[bytes, bytes | Bucket]]:
        form = _LEAF if flags & _LEAF_PAGE else _BRANCH
        if not flags & (_LEAF_PAGE | _BRANCH_PAGE) or _HEADER.size + count * form.size > len(page):
            raise self._bolt.broken("a page is neither branch nor leaf")
        for at in range(_HEADER.size, _HEADER.size + count * form.size, form.size):
            if form is _BRANCH:
                yield from self._walk(_BRANCH.unpack_from(page, at)[2], depth + 1)
                continue
            kind, position, key_size, value_size = _LEAF.unpack_from(page, at)
            key = self._bolt.part(page, at + position, key_size)
            value = self._bolt.part(page, at + position + key_size, value_size)
            yield key, self._bucket(value) if kind & _IS_BUCKET else value

    def _bucket(self, value: bytes) -> Bucket:
        if len(value) < _BUCKET.size:
            raise self._bolt.broken("a bucket is cut short")
        root = _BUCKET.unpack_from(value)[0]
        inline = value[_BUCKET.size :]
        if not root and len(inline) < _HEADER.size:
            raise self._bolt.broken("a bucket is cut short")
        return Bucket(self._bolt, root, b"" if root else inline)

    def bucket(self, *names: bytes) -> Bucket | None:
        """A bucket within, by its path; ``None`` if there is none."""
        found: Bucket = self
        for name in names:
            value = found.get(name)
            if not isinstance(value, Bucket):
                return None
            found = value
        return found

    def get(self, wanted: bytes) -> bytes | Bucket | None:
        return next((value for key, value in self if key == wanted), None)


def _fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
