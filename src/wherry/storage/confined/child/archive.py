"""Make a tar stream from a container's files, in a child whose root they are (:mod:`linux.containerroot`).

The container may run and change everything meanwhile. So nothing is opened twice by name: each file is
inspected through an O_PATH descriptor and opened through that, which never blocks on a FIFO and never touches
a device. Each directory is opened beneath the one where the archive began, never through a symbolic link. If
a file's size differs from its header, the data is cut or padded, so that the archive is always valid.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

from wherry.linux import syscalls as sys
from wherry.linux.containerroot import Root, find
from wherry.model import tarformat as tf
from wherry.model import tarwriter
from wherry.model.tarwriter import Kinds, member_of
from wherry.storage.confined.child.members import xattrs_of

_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENAMETOOLONG)
_SMALL = 128 << 10
"""Files up to this size are read before their header is written, so that the header has the real size."""
_PSEUDO_MAX = 16 << 20
"""The most bytes that are read from a file with size 0 that is not empty (procfs)."""
_BATCH = 256 << 10
_PSEUDO = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0xDE5E81E4,  # efivarfs
        0x6165676C,  # pstore
    }
)


class FoundPath:
    """What the client's path leads to: an O_PATH descriptor, its status, the last part of the path.

    ``target``: where a symbolic link finally leads, if it leads anywhere; empty for other files.
    """

    __slots__ = ("fd", "name", "status", "target")

    def __init__(self, root: Root, path: str, trailing: str) -> None:
        """:param path: absolute and clean. :param trailing: the ``""``, ``"/"`` or ``"/."`` that followed it.

        A symbolic link is followed if something follows it in the path; otherwise the link itself is meant.

        :raises OSError: ENOENT, ENOTDIR, ELOOP …
        """
        self.fd = root.find(path, os.O_DIRECTORY if trailing else os.O_NOFOLLOW)
        self.status = os.fstat(self.fd)
        self.name = "." if trailing == "/." else path.rpartition("/")[2] or "/"
        self.target = self._target(root, path) if stat.S_ISLNK(self.status.st_mode) else ""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    def _target(self, root: Root, path: str) -> str:
        try:
            end = root.find(path)
        except OSError:
            text = os.readlink("", dir_fd=self.fd)
            if text.startswith("/"):
                return text
            here = root.name_of(self.fd).rpartition("/")[0]
            return f"{here}/{text}"
        try:
            return root.name_of(end)
        finally:
            os.close(end)


class TarStream:
    """Writes an archive to a pipe: small pieces are collected, large files are spliced."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._pieces: list[bytes] = []
        self._held = 0

    def emit(self, *pieces: bytes) -> None:
        self._pieces += pieces
        self._held += sum(map(len, pieces))
        if self._held >= _BATCH:
            self.flush()

    def flush(self) -> None:
        data = memoryview(b"".join(self._pieces))
        self._pieces, self._held = [], 0
        while data:
            data = data[os.write(self._out, data) :]

    def copy(self, fd: int, size: int) -> None:
        """``size`` bytes from the start of a file; zeros if the file has become shorter."""
        self.flush()
        offset, splice = 0, True
        while offset < size:
            if splice:
                try:
                    done = os.sendfile(self._out, fd, offset, min(size - offset, 1 << 30))
                except OSError as e:
                    if e.errno not in (errno.EINVAL, errno.ENOSYS):
                        raise
                    splice = False
                    continue
                if done == 0:
                    break
                offset += done
                continue
            piece = os.pread(fd, min(size - offset, _BATCH), offset)
            if not piece:
                break
            self.emit(piece)
            self.flush()
            offset += len(piece)
        while offset < size:
            zeros = bytes(min(size - offset, _BATCH))
            self.emit(zeros)
            offset += len(zeros)

    def end(self) -> None:
        self.emit(tarwriter.END)
        self.flush()


class TreeArchive:
    """One archive of what :class:`FoundPath` found. ``inside``: its name in the archive."""

    def __init__(
        self, root: Root, out: TarStream, *, one_file_system: bool = False, newest: int | None = None
    ) -> None:
        """:param one_file_system: mounts within are written as empty directories.
        :param newest: see :func:`wherry.model.tarwriter.member_of`.
        """
        self._member = partial(member_of, newest=newest)
        self._root = root
        self._out = out
        self._alone = one_file_system
        self._kinds = Kinds()
        self._device = -1
        self._pseudo = False
        self._skipped_dev = -1

    def write(self, found: FoundPath) -> None:
        """:raises OSError: reading or writing failed; then the archive is incomplete."""
        name = os.fsencode(found.name)
        if not found.is_directory:
            self._entry(found.fd, name, found.status)
            return
        prefix = b"" if name == b"/" else name
        self._tree(self._root.reopen(found.fd, os.O_RDONLY | os.O_DIRECTORY), prefix)

    def write_bare(self, top: int) -> None:
        """The whole root: names without a leading slash, and no entry for the root itself (export)."""
        self._tree(self._root.reopen(top, os.O_RDONLY | os.O_DIRECTORY), None)

    def _tree(self, top: int, prefix: bytes | None) -> None:
        try:
            status = os.fstat(top)
            self._device = status.st_dev
            self._pseudo = sys.filesystem_type(top) in _PSEUDO
            self._skipped_dev = self._engines_dev(top)
            pending = [(b"", status.st_dev)]
            while pending:
                pending += self._directory(top, *pending.pop(), prefix)
        finally:
            os.close(top)

    def _engines_dev(self, top: int) -> int:
        """The device number of the runtime's /dev, if the tree begins at the root."""
        try:
            if os.path.samestat(os.fstat(top), os.fstat(self._root.fd)):
                return os.stat("dev", dir_fd=top, follow_symlinks=False).st_dev
        except OSError:
            pass
        return -1

    def _directory(self, top: int, path: bytes, above: int, prefix: bytes | None) -> list[tuple[bytes, int]]:
        """Write a directory and its direct entries; return the directories in it, last one first."""
        try:
            fd = find(top, os.fsdecode(path), _DIRECTORY, _BENEATH)
        except OSError as e:
            if e.errno in _GONE:
                return []
            raise
        try:
            status = os.fstat(fd)
            inside = path if prefix is None else prefix + b"/" + path if path else prefix
            if inside or prefix is not None:
                self._out.emit(
                    tarwriter.header(self._member(inside + b"/", tf.DIRECTORY, status, xattrs=xattrs_of(fd)))
                )
            if status.st_dev != above and self._stays_out(path, fd, status):
                return []
            base = inside + b"/" if inside or prefix is not None else b""
            names = sorted(map(os.fsencode, os.listdir(fd)))
            inner = [name for name in names if self._child(fd, name, base + name)]
            return [(path + b"/" + name if path else name, status.st_dev) for name in reversed(inner)]
        finally:
            os.close(fd)

    def _stays_out(self, path: bytes, fd: int, status: os.stat_result) -> bool:
        """Whether a mount is left empty: the kernel's own file systems, and the runtime's /dev."""
        if self._alone:
            return True
        if path == b"dev" and status.st_dev == self._skipped_dev:
            return True
        return not self._pseudo and sys.filesystem_type(fd) in _PSEUDO

    def _child(self, directory: int, name: bytes, inside: bytes) -> bool:
        """Write an entry that is not a directory; returns ``True`` for a directory."""
        try:
            fd = os.open(name, _LOOK, dir_fd=directory)
        except OSError as e:
            if e.errno in _GONE:
                return False
            raise
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                return True
            self._entry(fd, inside, status)
        except OSError as e:
            if not (self._pseudo or e.errno in _GONE):
                raise
        finally:
            os.close(fd)
        return False

    def _entry(self, fd: int, inside: bytes, status: os.stat_result) -> None:
        kind, first = self._kinds.of(inside, status)
        if kind == tf.FILE:
            self._file(fd, inside, status)
        elif kind == tf.SYMLINK:
            target = os.readlink(b"", dir_fd=fd)
            self._out.emit(tarwriter.header(self._member(inside, kind, status, linkname=target)))
        elif kind:
            self._out.emit(tarwriter.header(self._member(inside, kind, status, linkname=first)))

    def _file(self, looked: int, inside: bytes, status: os.stat_result) -> None:
        fd = self._root.reopen(looked, _READ)
        try:
            size = status.st_size
            if size <= _SMALL:
                data = _read_whole(fd, _PSEUDO_MAX if size == 0 else 2 * _SMALL)
                member = self._member(inside, tf.FILE, status, size=len(data), xattrs=xattrs_of(fd))
                self._out.emit(tarwriter.header(member), data, tarwriter.padding(len(data)))
                return
            member = self._member(inside, tf.FILE, status, size=size, xattrs=xattrs_of(fd))
            self._out.emit(tarwriter.header(member))
            self._out.copy(fd, size)
            self._out.emit(tarwriter.padding(size))
        finally:
            os.close(fd)


def _read_whole(fd: int, most: int) -> bytes:
    """Read until the end, or ``most`` bytes of a file that never ends (a trace, a kernel log)."""
    pieces: list[bytes] = []
    total = 0
    while total < most:
        try:
            piece = os.read(fd, min(most - total, _SMALL + 1))
        except BlockingIOError:
            break  # nothing more to read now
        if not piece:
            break
        pieces.append(piece)
        total += len(piece)
    return b"".join(pieces)
