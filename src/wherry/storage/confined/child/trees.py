"""A directory as a :class:`~wherry.storage.selection.Tree`, in a confined child: a stage's or a context's.

Nothing here is trusted, and every name may be a link. The kernel resolves a path beneath the root
(openat2(2)); a directory is listed through a descriptor that was opened without following any link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import OrderedDict

from wherry.linux import copy
from wherry.linux import syscalls as sys
from wherry.linux.containerroot import Root, find
from wherry.storage.selection import DIRECTORY, FILE, LINK, OTHER, Node

_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
_HELD = 32
_PIECE = 1 << 20


class RootedTree(Root):
    """A mounted directory of the child as a root: nothing in it can lead outside."""

    def __init__(self, path: str, descriptors: int) -> None:
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors = descriptors
        self._prefix = path.rstrip("/")

    def within(self, fd: int) -> bytes:
        """The path of ``fd`` in this root, without a leading slash."""
        return os.fsencode(self.name_of(fd).removeprefix(self._prefix).lstrip("/"))


class DirectoryTree:
    """See :class:`wherry.storage.selection.Tree`."""

    def __init__(self, place: RootedTree) -> None:
        self.place = place
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def find(self, path: bytes) -> bytes | None:
        try:
            fd = self.place.find(os.fsdecode(path))
        except OSError as e:
            if e.errno in _NOTHING:
                return None
            raise
        try:
            return self.place.within(fd)
        finally:
            os.close(fd)

    def node(self, path: bytes) -> Node | None:
        head, _, name = path.rpartition(b"/")
        try:
            directory = self.directory(head)
            status = os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
            target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
        except OSError as e:
            if e.errno in _NOTHING:
                return None
            raise
        return as_node(status, target)

    def names(self, path: bytes) -> list[bytes]:
        try:
            return sorted(map(os.fsencode, os.listdir(self.directory(path))))
        except OSError as e:
            if e.errno in _NOTHING:
                return []
            raise

    def directory(self, path: bytes) -> int:
        """A descriptor of a directory, held open for a while."""
        fd = self._open.get(path)
        if fd is None:
            fd = find(self.place.fd, os.fsdecode(path), _DIRECTORY, _BENEATH)
            self._open[path] = fd
            if len(self._open) > _HELD:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(path)
        return fd

    def open(self, path: bytes) -> int:
        """A regular file's descriptor. :raises OSError: it is not a regular file any more."""
        return self.open_file(path)[0]

    def open_file(self, path: bytes) -> tuple[int, os.stat_result]:
        """As :meth:`open`, with the file's status."""
        head, _, name = path.rpartition(b"/")
        fd = os.open(name, _READ | os.O_CLOEXEC, dir_fd=self.directory(head))
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EAGAIN, "it changed while it was read")
        return fd, status

    def digest(self, path: bytes) -> bytes:
        fd = self.open(path)
        try:
            return _hash(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)


def _hash(fd: int, size: int) -> bytes:
    """The sha256 of a file.
    For a sparse file: of its data and of the positions, because hashing zeros takes long."""
    total = hashlib.sha256()
    parts = [(0, size)]
    if os.fstat(fd).st_blocks * 512 < size:
        parts = list(copy.data_ranges(fd, size))
        total.update(b"%d %r" % (size, [(start, end - start) for start, end in parts]))
    for start, end in parts:
        while start < end and (piece := os.pread(fd, min(_PIECE, end - start), start)):
            total.update(piece)
            start += len(piece)
    return total.digest()


def as_node(status: os.stat_result, target: bytes = b"") -> Node:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), OTHER)
    return Node(
        kind,
        stat.S_IMODE(status.st_mode) if kind != OTHER else status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size if kind == FILE else 0,
        status.st_mtime_ns,
        target,
        status.st_rdev if kind == OTHER else 0,
    )
