"""Make files from tar members, beneath the current root directory of a confined process.

This code is not the security boundary: the process has ``pivot_root``-ed into the target, so a name or a link
can only reach what is below it. This code implements the semantics: a layer may replace what it made earlier,
whiteouts hide files of lower layers, and metadata is restored exactly.

Two ways to treat whiteouts (image-spec, layer.md, "Whiteouts"):

``overlay``  the target is one layer's own directory: a hidden name becomes a 0/0 character device, and opaque
             directories are listed for the parent process, which alone may set ``trusted.overlay.opaque``
``merge``    the target already holds the lower layers: a hidden name is removed
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from wherry.model import tarformat as tf
from wherry.model.tarformat import BadTar, Entry, TarReader, clean, show
from wherry.storage.confined.child.members import device_of, give, is_plain, set_xattrs, write_data
from wherry.storage.layerformat import AUFS, MERGE, OPAQUE, WHITEOUT

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 4096
_LINKS_MAX = 255
_OPAQUE_MAX = 1 << 18
_UNNAMED_MAX = 1 << 14


class MissingLink(Exception):
    """A hard link names a file that is not in this layer:
    the layer must be unpacked on top of its parents."""


class Applier:
    """Applies one layer. Afterwards it has totals: ``size`` (bytes on disk, by blocks), ``inodes``,
    ``opaque`` (directories that hide what is below them), ``unnamed`` (directories that the layer needs but
    has no entry of)."""

    def __init__(self, reader: TarReader, whiteouts: str) -> None:
        self._reader = reader
        self._merge = whiteouts == MERGE
        self._directories: set[bytes] = {b""}
        self._plain: set[bytes] = set()
        self._times: dict[bytes, tuple[int, int]] = {}
        self._hidden: set[bytes] = set()
        self._made: set[bytes] = set()
        self._bare: set[bytes] = set()  # directories made only for whiteouts; the layer itself lacks them
        self.opaque: set[bytes] = set()
        self.unnamed: set[bytes] = set() if self._merge else {b""}
        self.size = 0
        self.inodes = 0
        self.entries = 0

    def run(self) -> None:
        """:raises BadTar: hostile or broken. :raises OSError: the file system refused (ENOSPC …)."""
        for entry in self._reader:
            self.entries += 1
            path = clean(entry.name)
            head, _, base = path.rpartition(b"/")
            if WHITEOUT in path and (base.startswith(WHITEOUT) or b"/" + AUFS in b"/" + path):
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
        above = self._directory_above(head)
        assert above is not None
        base = path.rpartition(b"/")[2]
        path = above + b"/" + base if above else base
        if self._merge:
            self._remember(path)
        elif self._bare:
            self._bare -= {path, *_above(path)}
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
            give(fd, entry, plain=path.rpartition(b"/")[0] in self._plain)
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
                    self._hidden.add(path)  # the layer has replaced it, so the lower directory is hidden
                    os.mkdir(path, entry.mode & 0o777)
            self._enter(path)
        self.unnamed.discard(path)
        target = path or b"."
        os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
        os.chmod(target, entry.mode)  # a directory of this layer, never a symbolic link
        if entry.xattrs:
            set_xattrs(target, entry.xattrs)
        if is_plain(target, entry.mode, entry.gid):
            self._plain.add(path)
        else:
            self._plain.discard(path)
        self._times[path] = (entry.atime, entry.mtime)

    def _link(self, entry: Entry, path: bytes) -> None:
        target = clean(entry.linkname)
        if target == path:
            return
        try:
            self._retry(lambda: os.link(target, path, follow_symlinks=False), path)
        except FileNotFoundError as e:
            raise MissingLink(f"{show(path)} is a hard link to {show(target)}, which does not exist") from e
        except PermissionError as e:
            raise BadTar(f"{show(path)} is a hard link to the directory {show(target)}") from e

    def _node(self, entry: Entry, path: bytes) -> None:
        if entry.type == tf.FIFO:
            mode, device = stat.S_IFIFO, 0
        else:
            mode = stat.S_IFCHR if entry.type == tf.CHARACTER else stat.S_IFBLK
            device = device_of(entry, path)
            if mode == stat.S_IFCHR and device == 0:
                head, _, base = path.rpartition(b"/")
                self._whiteout(head, WHITEOUT + base, path)  # a whiteout in overlayfs's own form
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
        """Record that this layer contains ``path``, so that its own whiteouts do not remove it."""
        while path and path not in self._made:
            self._made.add(path)
            path = path.rpartition(b"/")[0]

    def _directory_above(self, head: bytes, *, for_whiteout: bool = False) -> bytes | None:
        """The directory that an entry goes into. Links are followed within the root; missing directories are
        made (root's, mode 0755, because the layer did not list them before); a file in the way is replaced.

        For a whiteout nothing is replaced, because it concerns only lower layers. ``None``: it hides nothing,
        because its directory is a file of this layer, or does not exist.
        """
        if head in self._directories:
            return head
        here = b""
        links = 0
        pending = head.split(b"/")[::-1]
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                here = here.rpartition(b"/")[0]
                continue
            at = here + b"/" + part if here else part
            if at not in self._directories:
                kind = _kind(at)
                if kind == stat.S_IFLNK:
                    links += 1
                    if links > _LINKS_MAX:
                        raise BadTar(f"{show(head)} leads through too many links")
                    target = os.readlink(at)
                    here = b"" if target.startswith(b"/") else here
                    pending += target.split(b"/")[::-1]
                    continue
                if kind != stat.S_IFDIR:
                    if for_whiteout and (kind or self._merge):
                        return None
                    if kind:
                        self._remove(at)
                        self._hidden.add(at)
                    self._make_parent(at)
                    if for_whiteout:
                        self._bare.add(at)
                self._enter(at)
            here = at
        return here

    def _make_parent(self, path: bytes) -> None:
        os.mkdir(path, 0o755)
        self.inodes += 1
        self.size += _BLOCK
        if not self._merge:
            self.unnamed.add(path)
            if len(self.unnamed) > _UNNAMED_MAX:
                raise MissingLink("it has too many directories without an entry")

    def _enter(self, path: bytes) -> None:
        self._directories.add(path)
        if path in self._hidden:
            self._hide_below(path)

    def _whiteout(self, head: bytes, base: bytes, path: bytes) -> None:
        """Hide a name of the lower layers, or all names of a directory; ignore AUFS's own files."""
        if base == OPAQUE and AUFS not in head:
            if (above := self._directory_above(head, for_whiteout=True)) is not None:
                self._hide_below(above)
            return
        if b"/" + AUFS in b"/" + path:
            return
        name = base[len(WHITEOUT) :]
        if name in (b"", b".", b".."):
            raise BadTar(f"{show(path)} is a malformed whiteout")
        above = self._directory_above(head, for_whiteout=True)
        if above is None:
            return
        hidden = above + b"/" + name if above else name
        if self._merge:
            self._hide(hidden)
            return
        self._hidden.add(hidden)
        if hidden in self._bare:
            self._remove(hidden)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0)
            self.inodes += 1
        except FileExistsError:
            # this layer has the name too, so only what is below it in lower layers is hidden
            if stat.S_ISDIR(os.lstat(hidden).st_mode):
                self._hide_below(hidden)

    def _hide_below(self, directory: bytes) -> None:
        if not self._merge:
            below = directory + b"/" if directory else b""
            for bare in sorted(one for one in self._bare if one.startswith(below)):
                if bare in self._bare:  # it was not removed with a directory above it
                    self._remove(bare)
            self.opaque.add(directory)
            if len(self.opaque) > _OPAQUE_MAX:
                raise BadTar("it has too many opaque directories")
            return
        for name in os.listdir(directory or b"."):
            self._hide(directory + b"/" + name if directory else name)

    def _hide(self, path: bytes) -> None:
        """When merging: remove what lower layers have at ``path``, and keep what this layer has."""
        pending = [path]
        while pending:
            one = pending.pop()
            kind = _kind(one)
            if kind and one not in self._made:
                self._remove(one)
            elif kind == stat.S_IFDIR:
                pending += [one + b"/" + name for name in os.listdir(one)]

    def _remove(self, path: bytes) -> None:
        """Remove what an earlier entry (or, when merging, a lower layer) made at ``path``."""
        if not path:
            raise BadTar("an entry replaces the root directory")
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        for inner, is_directory in _bottom_up(path):
            (os.rmdir if is_directory else os.unlink)(inner)
        below = path + b"/"
        self._directories = {d for d in self._directories if d != path and not d.startswith(below)}
        self._plain = {d for d in self._plain if d != path and not d.startswith(below)}
        for gone in [d for d in self._times if d == path or d.startswith(below)]:
            del self._times[gone]
        self.opaque = {d for d in self.opaque if d != path and not d.startswith(below)}
        self.unnamed = {d for d in self.unnamed if d != path and not d.startswith(below)}
        self._bare = {d for d in self._bare if d != path and not d.startswith(below)}


def _above(path: bytes) -> Iterator[bytes]:
    """Every directory above a path, except the root."""
    while path := path.rpartition(b"/")[0]:
        yield path


def _kind(path: bytes) -> int:
    """The file type at a path; 0 if there is nothing."""
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return 0


def _bottom_up(path: bytes) -> Iterator[tuple[bytes, bool]]:
    """Everything below ``path``, then ``path``; entries before their directory; no recursion."""
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
