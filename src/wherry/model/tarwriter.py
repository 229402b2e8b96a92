"""Write tar: ustar headers, PAX if a value does not fit. The same input always gives the same bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from zlib import adler32

from wherry.model.tarformat import BLOCK, BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK

_NANO = 1_000_000_000
_SIZE_MAX = 8**11 - 1
_ID_MAX = 8**7 - 1
_DEVICE_MAX = 8**7 - 1
_ZEROS = bytes(155)
_FIELDS = (
    b"%b%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b%bustar\x0000"
    + bytes(64)
    + b"%07o\0%07o\0%b%b"
    + bytes(12)
)
END = bytes(2 * BLOCK)
"""The end of an archive."""
_TYPES = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


@dataclass(frozen=True)
class TarMember:
    """One member to write. ``size`` is the file's; ``mtime`` in nanoseconds since the epoch.

    :ivar sparse: (offset, length) of the parts of a sparse file that hold data; only those are written.
    """

    name: bytes
    type: bytes = FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    sparse: tuple[tuple[int, int], ...] | None = None


class Kinds:
    """Decides the member type of each file of a tree. Every name of a file after its first is a hard link."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], bytes] = {}

    def of(self, name: bytes, status: os.stat_result) -> tuple[bytes, bytes]:
        """The type, and the target of a hard link (``b""`` for anything else).

        Sockets have no type (``b""``): they are useless without their listener.
        """
        kind = _TYPES.get(stat.S_IFMT(status.st_mode), b"")
        if kind and kind != DIRECTORY and status.st_nlink > 1:
            first = self._first.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                return LINK, first
        return kind, b""


def member_of(
    name: bytes,
    kind: bytes,
    status: os.stat_result,
    *,
    size: int = 0,
    linkname: bytes = b"",
    xattrs: Mapping[bytes, bytes] | None = None,
    sparse: tuple[tuple[int, int], ...] | None = None,
    exact: bool = False,
    newest: int | None = None,
) -> TarMember:
    """A file as a member.

    :param exact: store the time in nanoseconds. Otherwise it is in whole seconds, as Docker sends it:
        nanoseconds cost one more header for each file.
    :param newest: nanoseconds since the epoch; later modification times are replaced by it.
    """
    mtime = status.st_mtime_ns if exact else status.st_mtime_ns // _NANO * _NANO
    device = kind in (CHARACTER, BLOCK_DEVICE)
    return TarMember(
        name=name,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=size,
        mtime=mtime if newest is None else min(mtime, newest),
        linkname=linkname,
        major=os.major(status.st_rdev) if device else 0,
        minor=os.minor(status.st_rdev) if device else 0,
        xattrs=xattrs or {},
        sparse=sparse,
    )


def header(member: TarMember) -> bytes:
    """Everything that goes before the member's data; the data is padded with :func:`padding` afterwards."""
    records: dict[bytes, bytes] = {}
    name, prefix, size, tail = member.name, b"", member.size, b""
    if member.sparse is not None:
        tail = _sparse_map(member.sparse)
        size = len(tail) + sum(length for _, length in member.sparse)
        directory, _, base = name.rpartition(b"/")
        records[b"GNU.sparse.major"], records[b"GNU.sparse.minor"] = b"1", b"0"
        records[b"GNU.sparse.name"] = name
        records[b"GNU.sparse.realsize"] = str(member.size).encode()
        name = (directory + b"/" if directory else b"") + b"GNUSparseFile.0/" + base
    if not _plain(name) or len(name) > 100:
        name, prefix = _split(name, records)
    linkname = member.linkname
    if len(linkname) > 100 or not _plain(linkname):
        records[b"linkpath"] = linkname
        linkname = _ascii(linkname[:100])
    if size > _SIZE_MAX:
        records[b"size"] = str(size).encode()
    for key, number in ((b"uid", member.uid), (b"gid", member.gid)):
        if number > _ID_MAX:
            records[key] = str(number).encode()
    seconds, nanoseconds = divmod(member.mtime, _NANO)
    if nanoseconds or not 0 <= seconds <= _SIZE_MAX:
        records[b"mtime"] = _time(member.mtime)
    for key, value in member.xattrs.items():
        records[b"SCHILY.xattr." + key] = value
    ustar = _ustar(member, name, prefix, linkname, min(size, _SIZE_MAX), min(max(seconds, 0), _SIZE_MAX))
    if not records:
        return ustar + tail
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    pax = TarMember(name=b"PaxHeaders/" + _ascii(name.rpartition(b"/")[2][:80]), type=b"x", size=len(body))
    return _ustar(pax, pax.name, b"", b"", pax.size, 0) + body + padding(len(body)) + ustar + tail


def padding(size: int) -> bytes:
    """The zero bytes after ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def archive(members: Iterable[tuple[TarMember, bytes]]) -> bytes:
    """A whole small archive in memory, members in the given order."""
    return b"".join(whole(member, data) for member, data in members) + END


def whole(member: TarMember, data: bytes) -> bytes:
    """One small member: header, content, padding."""
    return header(member) + data + padding(len(data))


def document(name: str, data: bytes) -> bytes:
    """A small file with nothing but a name and content."""
    return whole(TarMember(name.encode(), size=len(data)), data)


def _plain(text: bytes) -> bool:
    return text.isascii() and b"\n" not in text


def _ascii(text: bytes) -> bytes:
    return bytes(b if 32 < b < 127 else 63 for b in text)


def _split(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Fit a long name into name and prefix, or hand it to PAX."""
    if _plain(name) and len(name) <= 256:
        cut = name.rfind(b"/", 0, 156)
        if cut > 0 and 0 < len(name) - cut - 1 <= 100:
            return name[cut + 1 :], name[:cut]
    records.setdefault(b"path", name)
    return _ascii(name[:100]), b""


def _ustar(member: TarMember, name: bytes, prefix: bytes, linkname: bytes, size: int, seconds: int) -> bytes:
    device = member.type in (CHARACTER, BLOCK_DEVICE)
    fields = _FIELDS % (
        name,
        _ZEROS[len(name) : 100],
        member.mode & 0o7777,
        min(member.uid, _ID_MAX),
        min(member.gid, _ID_MAX),
        size,
        seconds,
        member.type,
        linkname,
        _ZEROS[len(linkname) : 100],
        min(member.major, _DEVICE_MAX) if device else 0,
        min(member.minor, _DEVICE_MAX) if device else 0,
        prefix,
        _ZEROS[len(prefix) : 155],
    )
    # The low half of Adler-32 is one more than the sum of the bytes, modulo 65521, and a header of ASCII
    # stays below that: sum() takes fifty times as long.
    return fields[:148] + b"%06o\0 " % ((adler32(fields) & 0xFFFF) - 1) + fields[156:]


def _record(key: bytes, value: bytes) -> bytes:
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    if length != bare + len(str(length)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _time(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), _NANO)
    return f"{sign}{seconds}.{rest:09d}".rstrip("0").rstrip(".").encode()


def _sparse_map(parts: tuple[tuple[int, int], ...]) -> bytes:
    numbers = [len(parts), *(n for part in parts for n in part)]
    text = b"".join(b"%d\n" % n for n in numbers)
    return text + padding(len(text))
