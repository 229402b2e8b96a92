"""Make a layer from files: a snapshot's differences from its parent, as a tar stream.

This is the opposite of :mod:`wherry.storage.confined.child.apply`: overlayfs's whiteouts and opaque
directories become the ``.wh.`` names of the image-spec (layer.md). Equal files give equal bytes: names are
sorted, and the headers contain nothing of this host. The tree may change meanwhile (a container that is not
paused): if a file's size differs from its header, the data is cut or padded. No symbolic link is ever
followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from wherry.linux import copy, trees
from wherry.linux import syscalls as sys
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.digest import Digest
from wherry.model.tarwriter import Kinds, TarMember
from wherry.storage.layerformat import OPAQUE, WHITEOUT, carries
from wherry.storage.snapshots import Snapshotter

ADDED, CHANGED, DELETED = "added", "changed", "deleted"
_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_PIECE = 1 << 20
_SMALL = 64 << 10
"""Files up to this size in bytes go out in one piece with their headers."""


class Writable(Protocol):
    """The minimal interface of a writable binary file."""

    def write(self, data: bytes, /) -> object: ...


class Nowhere:
    """Discards what is written; used when only the digest is needed."""

    def write(self, data: bytes, /) -> object:
        return None


@dataclass(frozen=True)
class PathChange:
    """``path`` without a leading slash; ``status`` of the present file (``None``: it was deleted)."""

    path: bytes
    kind: str
    status: os.stat_result | None


@dataclass(frozen=True)
class Written:
    """``diff_id`` of the stream, ``size`` in bytes."""

    diff_id: Digest
    size: int


def changes(snapshotter: Snapshotter, key: str) -> Iterator[PathChange]:
    """A snapshot's changes, a directory before its entries.

    Only drivers that keep whole trees tell ``added`` from ``changed``.

    :raises NotFound: no such snapshot.
    """
    files, parent = snapshotter.directories(key)
    if parent is None:
        return _changes_alone(files)
    return _changes_against(parent, files)


def write_layer(
    snapshotter: Snapshotter,
    key: str,
    out: Writable,
    *,
    skip: Callable[[PathChange], bool] = lambda _change: False,
    newest: int | None = None,
) -> Written:
    """Write the difference between a snapshot and its parent as an uncompressed layer.

    :param skip: changes that are left out.
    :param newest: nanoseconds since the epoch; later modification times are set to it.
    :raises NotFound: no such snapshot. :raises OSError: reading or writing failed.
    """
    files, parent = snapshotter.directories(key)
    found = _changes_alone(files) if parent is None else _changes_against(parent, files)
    wanted = (change for change in found if not skip(change))
    return _Writer(files, out, opaque=parent is None, newest=newest).write(wanted)


def compare(before: Path, now: Path) -> Iterator[PathChange]:
    """The differences between two whole trees, as :func:`changes` with a driver that keeps whole trees."""
    return _changes_against(before, now)


def write_tree(files: Path, out: Writable) -> Written:
    """Write a whole directory as a layer without a parent."""
    return _Writer(files, out, opaque=False).write(_changes_alone(files))


def _changes_alone(files: Path) -> Iterator[PathChange]:
    """A directory with differences only, in overlayfs's form."""
    for path, status in trees.walk(files):
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield PathChange(path, DELETED, None)
        else:
            yield PathChange(path, CHANGED, status)


def _changes_against(parent: Path, files: Path) -> Iterator[PathChange]:
    """Compare two whole trees. Any difference in metadata counts, including modification times. The
    directories above a change are listed too, because unpacking it would change their times."""
    before = dict(trees.walk(parent))
    now = dict(trees.walk(files))
    gone = [path for path in sorted(before.keys() - now) if _head(path) in now or not _head(path)]
    changed = {
        path
        for path, status in now.items()
        if path not in before or not _same(parent, files, path, before[path], status)
    }
    for path in [*changed, *gone]:
        while path := _head(path):
            changed.add(path)
    for path in gone:
        yield PathChange(path, DELETED, None)
    for path, status in now.items():
        if path in changed:
            yield PathChange(path, CHANGED if path in before else ADDED, status)


def _head(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _same(parent: Path, files: Path, path: bytes, a: os.stat_result, b: os.stat_result) -> bool:
    if (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns, a.st_rdev) != (
        *(b.st_mode, b.st_uid, b.st_gid, b.st_mtime_ns, b.st_rdev),
    ):
        return False
    name = os.fsdecode(path)
    if stat.S_ISLNK(a.st_mode):
        return os.readlink(parent / name) == os.readlink(files / name)
    if stat.S_ISREG(a.st_mode) and (a.st_size, a.st_nlink) != (b.st_size, b.st_nlink):
        return False  # another hard link to an unchanged file must be written together with it
    return _xattrs_at(parent, path, a.st_mode) == _xattrs_at(files, path, b.st_mode)


def _xattrs_at(root: Path, path: bytes, mode: int) -> dict[bytes, bytes]:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return {}
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        inner = sys.openat2(fd, os.fsdecode(path), _OPEN, resolve=_BENEATH)
        try:
            return _xattrs(inner)
        finally:
            os.close(inner)
    finally:
        os.close(fd)


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes of a file that a layer carries."""
    try:
        names = os.listxattr(fd)
    except OSError as e:
        if e.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {name: os.getxattr(fd, name) for name in filter(carries, sorted(map(os.fsencode, names)))}


class _Writer:
    """Writes changes as members. ``opaque``: directories may have overlayfs's mark."""

    def __init__(self, files: Path, out: Writable, *, opaque: bool, newest: int | None = None) -> None:
        self._files = files
        self._member = partial(tarwriter.member_of, exact=True, newest=newest)
        self._out = out
        self._opaque = opaque
        self._hash = hashlib.sha256()
        self._size = 0
        self._kinds = Kinds()
        self._head: bytes | None = None
        self._above = -1

    def write(self, found: Iterator[PathChange]) -> Written:
        root = os.open(self._files, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for change in found:
                if change.status is None:
                    head, slash, base = change.path.rpartition(b"/")
                    self._emit(tarwriter.header(TarMember(name=head + slash + WHITEOUT + base, mode=0)))
                else:
                    try:
                        self._entry(root, change.path, change.status)
                    except FileNotFoundError:
                        continue  # removed meanwhile
        finally:
            os.close(root)
            self._leave()
        self._emit(tarwriter.END)
        return Written(Digest("sha256:" + self._hash.hexdigest()), self._size)

    def _emit(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._out.write(data)

    def _header(self, member: TarMember) -> None:
        self._emit(tarwriter.header(member))

    def _entry(self, root: int, path: bytes, status: os.stat_result) -> None:
        kind, first = self._kinds.of(path, status)
        if kind == tf.FILE:
            self._file(root, path, status)
        elif kind == tf.DIRECTORY:
            self._directory(root, path, status)
        elif kind == tf.SYMLINK:
            target = os.readlink(os.fsencode(self._files) + b"/" + path)
            self._header(self._member(path, kind, status, linkname=target))
        elif kind:
            self._header(self._member(path, kind, status, linkname=first))

    def _directory(self, root: int, path: bytes, status: os.stat_result) -> None:
        fd = sys.openat2(root, os.fsdecode(path), _OPEN | os.O_DIRECTORY, resolve=_BENEATH)
        try:
            xattrs = _xattrs(fd)
            opaque = self._opaque and _is_opaque(fd)
        finally:
            os.close(fd)
        self._header(self._member(path + b"/", tf.DIRECTORY, status, xattrs=xattrs))
        if opaque:
            self._emit(tarwriter.header(TarMember(name=path + b"/" + OPAQUE, mode=0)))

    def _directory_of(self, root: int, path: bytes) -> tuple[int, bytes]:
        """The directory that a file is in, which stays open for the next one, and the file's name in it."""
        head, _, name = path.rpartition(b"/")
        if head != self._head:
            self._leave()
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
            self._above = sys.openat2(root, os.fsdecode(head) or ".", flags, resolve=_BENEATH)
            self._head = head
        return self._above, name

    def _leave(self) -> None:
        if self._above >= 0:
            os.close(self._above)
        self._above, self._head = -1, None

    def _file(self, root: int, path: bytes, status: os.stat_result) -> None:
        above, name = self._directory_of(root, path)
        fd = os.open(name, _OPEN | os.O_CLOEXEC, dir_fd=above)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return
            parts = _data_parts(fd, status)
            size, xattrs = status.st_size, _xattrs(fd)
            head = tarwriter.header(
                self._member(path, tf.FILE, status, size=size, xattrs=xattrs, sparse=parts)
            )
            if parts is None and size <= _SMALL and len(data := os.pread(fd, size, 0)) == size:
                self._emit(b"".join((head, data, tarwriter.padding(size))))
                return
            self._emit(head)
            written = 0
            for offset, length in parts if parts is not None else ((0, status.st_size),):
                self._copy(fd, offset, length)
                written += length
            self._emit(tarwriter.padding(written))
        finally:
            os.close(fd)

    def _copy(self, fd: int, offset: int, length: int) -> None:
        while length:
            piece = os.pread(fd, min(length, _PIECE), offset) or bytes(min(length, _PIECE))
            self._emit(piece)
            offset += len(piece)
            length -= len(piece)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError as e:
        if e.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def _data_parts(fd: int, status: os.stat_result) -> tuple[tuple[int, int], ...] | None:
    """The ranges of a sparse file that contain data (lseek(2), SEEK_DATA); ``None`` if it has no holes."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return None
    # a file that has grown meanwhile has data after its former size as well
    parts = tuple((start, end - start) for start, end in copy.data_ranges(fd, size) if start < end)
    return None if parts == ((0, size),) else parts
