"""From tar members to files, beneath the current root directory of a confined process.

Nothing here is the boundary: the process has ``pivot_root``-ed into the target, so a name, a link or a
symbolic link can only ever reach what is below it. What this code adds is meaning: layers may replace what
they made earlier, whiteouts hide what lower layers have, metadata comes back exactly.

Two ways to treat whiteouts (image-spec, layer.md, "Whiteouts"):

``overlay``  the target is one layer's own directory: a hidden name becomes a 0/0 character device, and opaque
             directories are listed for the parent process, which alone may set ``trusted.overlay.opaque``
``merge``    the target already holds the lower layers: a hidden name is removed
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from wherry.model import tarformat as tf
from wherry.model.tarformat import BadTar, Entry, TarReader, show

OVERLAY, MERGE = "overlay", "merge"
_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_XATTRS = frozenset({b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"})
_BLOCK = 4096
_OPAQUE_MAX = 1 << 18


class MissingLink(Exception):
    """A hard link names a file that is not in this layer: it must be unpacked on top of its parents."""


class Applier:
    """Applies one layer. Totals are there afterwards: ``size`` (bytes on disk, by blocks), ``inodes``,
    ``opaque`` (directories that hide what is below them)."""

    def __init__(self, reader: TarReader, whiteouts: str) -> None:
        self._reader = reader
        self._merge = whiteouts == MERGE
        self._directories: set[bytes] = {b""}
        self._times: dict[bytes, tuple[int, int]] = {}
        self._hidden: set[bytes] = set()
        self._made: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self.size = 0
        self.inodes = 0
        self.entries = 0

    def run(self) -> None:
        """:raises BadTar: hostile or broken. :raises OSError: the file system refused (ENOSPC …)."""
        for entry in self._reader:
            self.entries += 1
            path = clean(entry.name)
            head, _, base = path.rpartition(b"/")
            if _PREFIX in path and (base.startswith(_PREFIX) or b"/" + _META in b"/" + path):
                self._whiteout(head, base, path)
            else:
                try:
                    self._member(entry, path, head)
                except OSError as e:
                    e.filename = None
                    e.args = (e.errno, f"{show(path)}: {e.strerror}")
                    raise
        for path, times in reversed(self._times.items()):
            try:
                os.utime(path or b".", ns=times, follow_symlinks=False)
            except FileNotFoundError:
                continue

    def _member(self, entry: Entry, path: bytes, head: bytes) -> None:
        if head not in self._directories:
            self._make_parents(head)
        if self._merge:
            self._remember(path)
        kind = entry.type
        if kind == tf.FILE:
            self._file(entry, path)
        elif kind == tf.DIRECTORY:
            self._directory(entry, path)
        elif kind == tf.SYMLINK:
            self._retry(lambda: os.symlink(entry.linkname, path), path)
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
            if entry.xattrs:
                set_xattrs(path, entry.xattrs)
            os.utime(path, ns=(entry.atime, entry.mtime), follow_symlinks=False)
            self.inodes += 1
        elif kind == tf.LINK:
            self._link(entry, path)
        elif kind in (tf.CHARACTER, tf.BLOCK_DEVICE, tf.FIFO):
            self._node(entry, path)
        else:
            raise BadTar(f"{show(path)} has the unknown type {kind!r}")

    def _file(self, entry: Entry, path: bytes) -> None:
        try:
            fd = os.open(path, _CREATE, entry.mode & 0o777)
        except FileExistsError:
            self._remove(path)
            fd = os.open(path, _CREATE, entry.mode & 0o777)
        try:
            write_data(fd, entry, self._reader)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.atime, entry.mtime))
        finally:
            os.close(fd)
        self.size += -(-entry.size // _BLOCK) * _BLOCK
        self.inodes += 1

    def _directory(self, entry: Entry, path: bytes) -> None:
        if path and path not in self._directories:
            try:
                os.mkdir(path, entry.mode & 0o777)
                self.inodes += 1
                self.size += _BLOCK
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    self._remove(path)
                    os.mkdir(path, entry.mode & 0o777)
            self._enter(path)
        target = path or b"."
        os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
        os.chmod(target, entry.mode)  # a directory of this layer, never a symbolic link
        if entry.xattrs:
            set_xattrs(target, entry.xattrs)
        self._times[path] = (entry.atime, entry.mtime)

    def _link(self, entry: Entry, path: bytes) -> None:
        target = clean(entry.linkname)
        if target == path:
            return
        try:
            self._retry(lambda: os.link(target, path, follow_symlinks=False), path)
        except FileNotFoundError as e:
            raise MissingLink(f"{show(path)} is a hard link to {show(target)}, which is not there") from e
        except PermissionError as e:
            raise BadTar(f"{show(path)} is a hard link to the directory {show(target)}") from e

    def _node(self, entry: Entry, path: bytes) -> None:
        if entry.type == tf.FIFO:
            mode, device = stat.S_IFIFO, 0
        else:
            mode = stat.S_IFCHR if entry.type == tf.CHARACTER else stat.S_IFBLK
            try:
                device = os.makedev(entry.major, entry.minor)
            except (OverflowError, ValueError, OSError) as e:
                raise BadTar(f"{show(path)} has an impossible device number") from e
            if mode == stat.S_IFCHR and device == 0:
                head, _, base = path.rpartition(b"/")
                self._whiteout(head, _PREFIX + base, path)  # overlayfs's own form of one
                return
        self._retry(lambda: os.mknod(path, mode | 0o600, device), path)
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        os.chmod(path, entry.mode)
        if entry.xattrs:
            set_xattrs(path, entry.xattrs)
        os.utime(path, ns=(entry.atime, entry.mtime), follow_symlinks=False)
        self.inodes += 1

    def _retry(self, make: Callable[[], None], path: bytes) -> None:
        try:
            make()
        except FileExistsError:
            self._remove(path)
            make()

    def _remember(self, path: bytes) -> None:
        """Note that this layer has ``path``, so that its own whiteouts do not take it away."""
        while path and path not in self._made:
            self._made.add(path)
            path = path.rpartition(b"/")[0]

    def _make_parents(self, head: bytes) -> None:
        """Make the directories above an entry that the layer did not name before (root's, mode 0755)."""
        built = b""
        for part in head.split(b"/"):
            built = built + b"/" + part if built else part
            if built in self._directories:
                continue
            try:
                if stat.S_ISLNK(os.lstat(built).st_mode) and os.path.isdir(built):
                    continue  # followed, inside the root; it may be replaced yet, so it is not remembered
                if not stat.S_ISDIR(os.lstat(built).st_mode):
                    self._remove(built)
                    self._make_parent(built)
            except FileNotFoundError:
                self._make_parent(built)
            self._enter(built)

    def _make_parent(self, path: bytes) -> None:
        os.mkdir(path, 0o755)
        self.inodes += 1
        self.size += _BLOCK

    def _enter(self, path: bytes) -> None:
        self._directories.add(path)
        if path in self._hidden:
            self._hide_below(path)

    def _whiteout(self, head: bytes, base: bytes, path: bytes) -> None:
        """Hide a name of the lower layers, or all names of a directory; skip AUFS's own bookkeeping."""
        if base == _OPAQUE and _META not in head:
            if head not in self._directories:
                self._make_parents(head)
            self._hide_below(head)
            return
        if b"/" + _META in b"/" + path:
            return
        name = base[len(_PREFIX) :]
        if name in (b"", b".", b".."):
            raise BadTar(f"{show(path)} is a malformed whiteout")
        if head not in self._directories:
            self._make_parents(head)
        hidden = head + b"/" + name if head else name
        if self._merge:
            if hidden not in self._made and os.path.lexists(hidden):
                self._remove(hidden)
            return
        self._hidden.add(hidden)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0)
            self.inodes += 1
        except FileExistsError:
            # this layer has the name as well, so only what is below it is hidden
            if stat.S_ISDIR(os.lstat(hidden).st_mode):
                self._hide_below(hidden)

    def _hide_below(self, directory: bytes) -> None:
        if not self._merge:
            self.opaque.add(directory)
            if len(self.opaque) > _OPAQUE_MAX:
                raise BadTar("it has too many opaque directories")
            return
        for name in os.listdir(directory or b"."):
            inner = directory + b"/" + name if directory else name
            if inner not in self._made:
                self._remove(inner)

    def _remove(self, path: bytes) -> None:
        """Remove what an earlier entry (or, when merging, a lower layer) put at ``path``."""
        if not path:
            raise BadTar("an entry replaces the root directory")
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        for inner, is_directory in _bottom_up(path):
            (os.rmdir if is_directory else os.unlink)(inner)
        below = path + b"/"
        self._directories = {d for d in self._directories if d != path and not d.startswith(below)}
        for gone in [d for d in self._times if d == path or d.startswith(below)]:
            del self._times[gone]
        self.opaque = {d for d in self.opaque if d != path and not d.startswith(below)}


def clean(name: bytes) -> bytes:
    """A member's name as a path below the root: no leading slash, no ``.``, no empty parts.

    :raises BadTar: it climbs out with ``..``.
    """
    if b"//" not in name and b"/." not in name and name[0] not in b"./" and name[-1] != 47:
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


def _bottom_up(path: bytes) -> Iterator[tuple[bytes, bool]]:
    """Everything below ``path`` and itself, entries before their directory; no recursion."""
    order, pending = [], [path]
    while pending:
        directory = pending.pop()
        order.append(directory)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry.path, False
    for directory in reversed(order):
        yield directory, True


def write_data(fd: int, entry: Entry, reader: TarReader) -> None:
    """A file's bytes into a new file; those of a sparse one where they belong, with holes between them."""
    pieces = reader.data()
    if entry.sparse is None:
        for piece in pieces:
            while piece:
                piece = piece[os.write(fd, piece) :]
        return
    rest: bytes | memoryview = b""
    for offset, length in entry.sparse:
        while length:
            if not rest:
                rest = next(pieces)
            written = os.pwrite(fd, rest[:length], offset)
            rest, offset, length = rest[written:], offset + written, length - written
    os.ftruncate(fd, entry.real_size)


def set_xattrs(target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set the attributes a layer may carry; those of the kernel's own and of overlayfs are left out."""
    follow = isinstance(target, int)
    for key, value in xattrs.items():
        wanted = key in _KEPT_XATTRS or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))
        if not wanted:
            continue
        try:
            os.setxattr(target, key, value, follow_symlinks=follow)
        except OSError as e:
            # no such attributes on this file system or this kind of file: the file matters more
            if e.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
