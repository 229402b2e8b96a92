"""Read hostile tar archives: ustar, GNU and PAX, one member at a time, every length limited.

Formats: POSIX.1-2017 pax (extended headers), the GNU tar manual, "Basic Tar Format" and "Storing Sparse
Files" (old GNU, PAX 0.0, 0.1, 1.0). Names stay bytes: nothing here decodes them.
This module imports only what a small child process can afford.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512
_ZERO = bytes(BLOCK)
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_CONTIGUOUS, _OLD_SPARSE, _LONG_NAME, _LONG_LINK = b"7", b"S", b"L", b"K"
_PAX, _PAX_GLOBAL, _SOLARIS_PAX, _VOLUME, _MULTI_VOLUME, _DUMP_DIR = b"x", b"g", b"X", b"V", b"M", b"D"
_XATTR = b"SCHILY.xattr."
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_DATA_TYPES = frozenset({FILE, b"\0", _CONTIGUOUS, _OLD_SPARSE})
_SPARSE_COUNT_MAX = 1 << 20
_NANO = 1_000_000_000
_TIME_MAX = 1 << 62


class BadTar(Exception):
    """The stream is not a tar archive, is cut short, or exceeds a limit; the text completes
    an error message."""


@dataclass(frozen=True)
class TarLimits:
    """The limits of one archive. Sizes in bytes.

    A layer may unpack to ``unpacked_floor`` whatever its compressed size, and beyond that to ``ratio`` times
    its compressed size, but never to more than ``unpacked_max``.
    """

    unpacked_floor: int = 4 << 30
    ratio: int = 200
    unpacked_max: int = 1 << 40
    entries: int = 4_000_000
    path: int = 4096
    header: int = 1 << 20
    xattrs: int = 64 << 10

    def unpacked(self, compressed: int) -> int:
        """The maximum size to which ``compressed`` bytes may expand."""
        return min(max(self.unpacked_floor, compressed * self.ratio), self.unpacked_max)


class TarSource(Protocol):
    """The source of the bytes. ``take`` and ``chunks`` raise :class:`BadTar` if it ends too early."""

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""

    def take_or_end(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or no bytes at the end of the stream."""

    def chunks(self, size: int) -> Iterator[bytes | memoryview]:
        """The next ``size`` bytes in pieces of any size."""

    def skip(self, size: int) -> None: ...

    def skip_padding(self, size: int) -> None:
        """As :meth:`skip`, but the stream may end before."""


class Buffered:
    """A source over a function that returns pieces of any size, and nothing at the end."""

    def __init__(self, next_piece: Callable[[], bytes]) -> None:
        self._next_piece = next_piece
        self._piece = memoryview(b"")

    def held(self, most: int) -> memoryview:
        """At most ``limit`` bytes that were read already; empty if there are none without waiting."""
        part = self._piece[:most]
        self._piece = self._piece[len(part) :]
        return part

    def _more(self) -> bool:
        if not self._piece:
            self._piece = memoryview(self._next_piece())
        return bool(self._piece)

    def take(self, size: int) -> bytes:
        piece = self.take_or_end(size)
        if len(piece) < size:
            raise BadTar("it ends too early")
        return piece

    def take_or_end(self, size: int) -> bytes:
        if len(self._piece) >= size:
            taken = bytes(self._piece[:size])
            self._piece = self._piece[size:]
            return taken
        if not self._more():
            return b""
        return b"".join(self.chunks(size))

    def chunks(self, size: int) -> Iterator[memoryview]:
        while size:
            if not self._more():
                raise BadTar("it ends too early")
            part = self._piece[:size]
            self._piece = self._piece[len(part) :]
            size -= len(part)
            yield part

    def skip(self, size: int) -> None:
        if size <= len(self._piece):
            self._piece = self._piece[size:]
            return
        for _ in self.chunks(size):
            pass

    def skip_padding(self, size: int) -> None:
        while size and self._more():
            size -= len(self.held(size))


class Entry:
    """One member. ``size`` is its size in the archive, ``real_size`` that of the file. They differ for sparse
    files; ``sparse`` lists (offset, length) of the stored parts. Times in nanoseconds."""

    __slots__ = (
        "atime",
        "gid",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "real_size",
        "size",
        "sparse",
        "type",
        "uid",
        "xattrs",
    )

    name: bytes
    linkname: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    real_size: int
    mtime: int
    atime: int
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None
    sparse: list[tuple[int, int]] | None


class TarReader:
    """Iterate over the members of ``source``; read a member's bytes with :meth:`data` before going on.

    :param whole: the archive must end with a block of zeros, which many archives lack.
    :raises BadTar: while iterating or reading.
    """

    def __init__(self, source: TarSource, limits: TarLimits, *, whole: bool = False) -> None:
        self._source = source
        self._whole = whole
        self._limits = limits
        self._left = 0
        self._padding = 0
        self._count = 0
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            self._count += 1
            if self._count > self._limits.entries:
                raise BadTar(f"it has more than {self._limits.entries} entries")
            yield entry

    def data(self) -> Iterator[bytes | memoryview]:
        """The bytes of the current member; read all of them, or none."""
        left, self._left = self._left, 0
        yield from self._source.chunks(left)

    def claim(self) -> int:
        """As :meth:`data`, but returns only the number of bytes: the caller reads them from the source."""
        left, self._left = self._left, 0
        return left

    def _next(self) -> Entry | None:
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        while True:
            self._source.skip(self._left)
            # Some writers stop right after the last member's data, the docker CLI's among them.
            self._source.skip_padding(self._padding)
            self._left = self._padding = 0
            header = self._source.take_or_end(BLOCK)
            if not header and self._whole:
                raise BadTar("it ends too early")
            if not header or header == _ZERO:
                return None
            kind = header[156:157]
            if kind in (_PAX, _SOLARIS_PAX):
                pax = parse_pax(self._small(header, "an extended header"))
            elif kind == _PAX_GLOBAL:
                self._globals.update(parse_pax(self._small(header, "a global header")))
                if len(self._globals) > 1024:
                    raise BadTar("its global headers have too many records")
            elif kind == _LONG_NAME:
                long_name = self._small(header, "a long name").rstrip(b"\0")
            elif kind == _LONG_LINK:
                long_link = self._small(header, "a long link name").rstrip(b"\0")
            elif kind == _VOLUME:
                self._open_data(_number(_checked(header)[4]))
            else:
                return self._entry(header, {**self._globals, **pax}, long_name, long_link)

    def _small(self, header: bytes, what: str) -> bytes:
        size = _number(_checked(header)[4])
        if not 0 <= size <= self._limits.header:
            raise BadTar(f"{what} has {size} bytes, more than {self._limits.header}")
        data = self._source.take(size)
        self._source.skip(-size % BLOCK)
        return data

    def _open_data(self, size: int) -> None:
        if not 0 <= size < 1 << 62:
            raise BadTar(f"an entry claims {size} bytes")
        self._left, self._padding = size, -size % BLOCK

    def _entry(
        self, header: bytes, pax: dict[bytes, bytes], long_name: bytes | None, long_link: bytes | None
    ) -> Entry:
        fields = _checked(header)
        name, mode, uid, gid, size, mtime, _, kind, link, magic, _, _, major, minor, prefix = fields
        entry = Entry()
        entry.name = name.split(b"\0", 1)[0]
        entry.linkname = link.split(b"\0", 1)[0]
        if magic == b"ustar\x0000" and prefix[0]:
            entry.name = prefix.split(b"\0", 1)[0] + b"/" + entry.name
        entry.type = kind
        entry.mode = _number(mode) & 0o7777
        entry.uid, entry.gid = _number(uid), _number(gid)
        entry.size = _number(size)
        entry.mtime = entry.atime = _number(mtime) * _NANO
        entry.major = entry.minor = 0
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = _number(major), _number(minor)
        entry.xattrs = entry.sparse = None
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.linkname = long_link
        if pax:
            _apply_pax(entry, pax)
        self._settle(entry, header, pax)
        self._check(entry)
        return entry

    def _settle(self, entry: Entry, header: bytes, pax: dict[bytes, bytes]) -> None:
        """Find out how many bytes follow, and read the maps of sparse files."""
        kind = entry.type
        if kind not in _DATA_TYPES:
            if kind in (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
                entry.size = 0  # some writers put the linked file's size here; nothing follows
            elif kind in (_MULTI_VOLUME, _DUMP_DIR):
                raise BadTar(f"entry type {kind!r} is not supported")
            entry.real_size = 0
            self._open_data(entry.size)
            return
        if entry.name.endswith(b"/") and kind in (FILE, b"\0"):
            entry.type = DIRECTORY  # directories in archives from before POSIX
            entry.real_size = 0
            self._open_data(entry.size)
            return
        entry.type = FILE
        self._open_data(entry.size)
        entry.real_size = entry.size
        if kind == _OLD_SPARSE:
            self._old_sparse(entry, header)
        elif any(key.startswith(b"GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax)
        if entry.sparse is not None:
            _check_sparse(entry)

    def _old_sparse(self, entry: Entry, header: bytes) -> None:
        pairs = _sparse_table(header[386:482])
        more = header[482]
        while more:
            block = self._source.take(BLOCK)
            pairs += _sparse_table(block[:504])
            more = block[504]
            if len(pairs) > _SPARSE_COUNT_MAX:
                raise BadTar("a sparse file has too many parts")
        entry.sparse, entry.real_size = pairs, _number(header[483:495])

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        size = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
        if size is None:
            return
        entry.real_size = _decimal(size)
        if b"GNU.sparse.major" in pax:
            if (pax[b"GNU.sparse.major"], pax.get(b"GNU.sparse.minor")) != (b"1", b"0"):
                raise BadTar("a sparse file has an unknown format")
            entry.sparse = self._sparse_map_in_data(entry)
            return
        numbers = [_decimal(n) for n in pax.get(b"GNU.sparse.map", b"").split(b",") if n]
        if len(numbers) % 2 or len(numbers) > 2 * _SPARSE_COUNT_MAX:
            raise BadTar("a sparse file has a broken map")
        entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))

    def _sparse_map_in_data(self, entry: Entry) -> list[tuple[int, int]]:
        """PAX 1.0: decimal numbers, one a line, padded to a block, before the data."""
        buffer, wanted = b"", 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            line, newline, rest = buffer.partition(b"\n")
            if not newline:
                if self._left < BLOCK or len(buffer) > 64:
                    raise BadTar("a sparse file has a broken map")
                buffer += self._source.take(BLOCK)
                self._left -= BLOCK
                continue
            numbers.append(_decimal(line))
            buffer = rest
            if len(numbers) == 1:
                wanted = 1 + 2 * numbers[0]
                if numbers[0] > _SPARSE_COUNT_MAX:
                    raise BadTar("a sparse file has too many parts")
        entry.size = self._left
        return list(zip(numbers[1::2], numbers[2::2], strict=True))

    def _check(self, entry: Entry) -> None:
        limit = self._limits.path
        if not entry.name or len(entry.name) >= limit or b"\0" in entry.name:
            raise BadTar(f"an entry's name is empty, has a NUL byte or more than {limit - 1} bytes")
        if len(entry.linkname) >= limit or b"\0" in entry.linkname:
            raise BadTar(f"a link's target has a NUL byte or more than {limit - 1} bytes")
        if not (0 <= entry.uid < 0xFFFFFFFF and 0 <= entry.gid < 0xFFFFFFFF):
            raise BadTar(f"{show(entry.name)} has owner {entry.uid}:{entry.gid}")
        if not (-_TIME_MAX < entry.mtime < _TIME_MAX and -_TIME_MAX < entry.atime < _TIME_MAX):
            entry.mtime = entry.atime = 0
        if entry.xattrs is not None:
            total = sum(len(key) + len(value) for key, value in entry.xattrs.items())
            if total > self._limits.xattrs:
                raise BadTar(f"{show(entry.name)} has {total} bytes of extended attributes")


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Records ``<length> <key>=<value>\\n`` (pax, "pax Extended Header"); PAX 0.0's repeated sparse keys
    come back as one ``GNU.sparse.map``.

    :raises BadTar: a record is malformed.
    """
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    position, end = 0, len(data)
    while position < end and data[position]:
        space = data.find(b" ", position, position + 10)
        length = _decimal(data[position:space]) if space > position else 0
        stop = position + length
        equals = data.find(b"=", space, stop)
        if length < 5 or stop > end or data[stop - 1] != 10 or equals < 0:
            raise BadTar("an extended header is malformed")
        key, value = data[space + 1 : equals], data[equals + 1 : stop - 1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            records[key] = value
        position = stop
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def clean(name: bytes) -> bytes:
    """A member's name as a path below the root: no leading slash, no ``.``, no empty parts.

    :raises BadTar: it contains ``..``.
    """
    if name and b"//" not in name and b"/." not in name and name[0] not in b"./" and name[-1] != 47:
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise BadTar(f"{show(name)} points outside of the layer")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def show(name: bytes) -> str:
    """A name for an error message: printable, quoted, not too long."""
    text = name[:200].decode("utf-8", "replace") + ("…" if len(name) > 200 else "")
    return repr(text)


def _checked(header: bytes) -> tuple[bytes, ...]:
    """Split a header after verifying its checksum (of unsigned or of signed bytes: both are in use)."""
    fields = _FIELDS.unpack(header)
    said = _number(fields[6])
    unsigned = sum(header) - sum(header[148:156]) + 256
    if said != unsigned and said != unsigned - 256 * sum(1 for b in header[:148] + header[156:] if b & 0x80):
        raise BadTar("a header's checksum is wrong (is it a tar archive?)")
    return fields


def _number(field: bytes) -> int:
    """An octal field, or GNU's base 256 when the top bit is set."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        return value - (1 << bits) if first & 0x40 else value & ~(1 << (bits - 1))
    digits = field.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError as e:
        raise BadTar("a header has a broken number") from e


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BadTar("an extended header has a broken number")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    """Seconds with a fraction, in nanoseconds; floats would lose digits."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 20 or (fraction and not fraction.isdigit()):
        raise BadTar("an extended header has a broken time")
    value = int(digits) * _NANO + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.linkname = value
        elif key == b"size":
            entry.size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime = entry.atime = _nanoseconds(value)
        elif key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(_XATTR) :]] = value
    if b"atime" in pax:
        entry.atime = _nanoseconds(pax[b"atime"])


def _sparse_table(data: bytes) -> list[tuple[int, int]]:
    pairs = []
    for position in range(0, len(data) - 23, 24):
        if not data[position]:
            break
        pairs.append((_number(data[position : position + 12]), _number(data[position + 12 : position + 24])))
    return pairs


def _check_sparse(entry: Entry) -> None:
    end = total = 0
    assert entry.sparse is not None
    for offset, length in entry.sparse:
        if offset < end or length < 0:
            raise BadTar(f"sparse file {show(entry.name)} has a broken map")
        end = offset + length
        total += length
    if end > entry.real_size or total != entry.size or entry.real_size >= 1 << 62:
        raise BadTar(f"sparse file {show(entry.name)} has a broken map")
