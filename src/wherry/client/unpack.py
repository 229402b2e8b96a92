"""A tar stream from a container, extracted beneath a local directory.

The archive comes from the container and may be hostile. Every file is created in a directory that was opened
component by component below the user's directory, without following symbolic links; existing files are
replaced, never written through. Without ``archive`` mode all files belong to the user, and set-id bits and
device nodes, which could give a container's file power over this host, are left out.
"""

from __future__ import annotations

import errno
import os
import stat

from wherry.errors import InvalidArgument
from wherry.model import tarformat as tf
from wherry.model.tarformat import BadTar, Buffered, Entry, TarLimits, TarReader, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POWER = stat.S_ISUID | stat.S_ISGID


class ArchiveUnpacker:
    """Extracts below ``directory``. ``old`` at the beginning of names is replaced by ``new``; without ``old``
    names are kept."""

    def __init__(
        self,
        directory: str,
        pieces: Iterator[bytes],
        *,
        old: str,
        new: str,
        archive: bool,
        complain: Callable[[str], None],
    ) -> None:
        """:param archive: keep owners, set-id bits and device nodes; only root can."""
        self._top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._reader = TarReader(Buffered(lambda: next(pieces, b"")), TarLimits())
        self._old, self._new = os.fsencode(old), os.fsencode(new)
        self._archive = archive and os.geteuid() == 0
        self._complain = complain
        self._head, self._parent = b"", self._top
        self._times: dict[bytes, Entry] = {}

    def run(self) -> None:
        """:raises InvalidArgument: the archive is broken, hostile, or conflicts with existing files."""
        try:
            for entry in self._reader:
                path = _clean(self._renamed(entry.name))
                if path:
                    self._entry(entry, path)
            for path, entry in reversed(self._times.items()):
                self._settle(path, entry)
        except BadTar as e:
            raise InvalidArgument(f"cannot extract the archive: {e}") from e
        except OSError as e:
            raise InvalidArgument(f"cannot extract the archive: {e.strerror or e}") from e
        finally:
            self._leave()
            os.close(self._top)

    def _renamed(self, name: bytes) -> bytes:
        if not self._old:
            return name
        if name == self._old or name.startswith(self._old + b"/"):
            return self._new + name[len(self._old) :]
        raise BadTar(f"{show(name)} is not the requested file")

    def _entry(self, entry: Entry, path: bytes) -> None:
        head, _, name = path.rpartition(b"/")
        self._enter(head)
        kind = entry.type
        if kind == tf.DIRECTORY:
            self._make_directory(name, path)
            self._times[path] = entry
            return
        if kind in (tf.CHARACTER, tf.BLOCK_DEVICE) and not self._archive:
            self._complain(f"left out: {show(path)} is a device (use --archive as root)")
            return
        self._make_room(name, path)
        if kind == tf.FILE:
            self._file(entry, name)
        elif kind == tf.SYMLINK:
            os.symlink(entry.linkname, name, dir_fd=self._parent)
            self._own(entry, name)
            os.utime(name, ns=(entry.atime, entry.mtime), dir_fd=self._parent, follow_symlinks=False)
        elif kind == tf.LINK:
            self._link(entry, name)
        elif kind in (tf.CHARACTER, tf.BLOCK_DEVICE, tf.FIFO):
            self._node(entry, name)
        else:
            raise BadTar(f"{show(path)} has the unknown type {kind!r}")

    # ---- directories -------------------------------------------------------------------------------------

    def _enter(self, head: bytes) -> None:
        if head != self._head:
            self._leave()
            self._parent, self._head = self._open(head), head

    def _leave(self) -> None:
        if self._parent != self._top:
            os.close(self._parent)
        self._parent, self._head = self._top, b""

    def _open(self, path: bytes) -> int:
        """Open a directory in the archive's path component by component, and create missing ones."""
        fd = os.dup(self._top)
        try:
            for part in filter(None, path.split(b"/")):
                try:
                    inner = os.open(part, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=fd)
                    inner = os.open(part, _DIRECTORY, dir_fd=fd)
                except OSError as e:
                    if e.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise BadTar(f"{show(path)} is below something that is not a directory") from e
                    raise
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _make_directory(self, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._parent)
        except FileExistsError as e:
            status = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise InvalidArgument(
                    f"cannot overwrite non-directory {_quoted(path)} with directory {_quoted(path)}"
                ) from e

    def _settle(self, path: bytes, entry: Entry) -> None:
        """Set a directory's mode and times, once nothing more is created in it."""
        fd = self._open(path)
        try:
            if self._archive:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, self._mode(entry))
            os.utime(fd, ns=(entry.atime, entry.mtime))
        finally:
            os.close(fd)

    # ---- the rest ----------------------------------------------------------------------------------------

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._archive else entry.mode & ~_POWER

    def _make_room(self, name: bytes, path: bytes) -> None:
        try:
            status = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise InvalidArgument(
                f"cannot overwrite directory {_quoted(path)} with non-directory {_quoted(path)}"
            )
        os.unlink(name, dir_fd=self._parent)

    def _file(self, entry: Entry, name: bytes) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=self._parent)
        try:
            pieces = self._reader.data()
            piece: bytes | memoryview = b""
            for offset, length in entry.sparse if entry.sparse is not None else [(0, entry.size)]:
                end = offset + length
                while offset < end:
                    piece = piece or next(pieces)
                    written = os.pwrite(fd, piece[: end - offset], offset)
                    piece, offset = piece[written:], offset + written
            if entry.sparse is not None:
                os.ftruncate(fd, entry.real_size)
            if self._archive:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, self._mode(entry))
            os.utime(fd, ns=(entry.atime, entry.mtime))
        finally:
            os.close(fd)

    def _link(self, entry: Entry, name: bytes) -> None:
        head, _, last = _clean(self._renamed(entry.linkname)).rpartition(b"/")
        above = self._open(head)
        try:
            os.link(last, name, src_dir_fd=above, dst_dir_fd=self._parent, follow_symlinks=False)
        finally:
            os.close(above)

    def _node(self, entry: Entry, name: bytes) -> None:
        kinds = {tf.FIFO: stat.S_IFIFO, tf.CHARACTER: stat.S_IFCHR, tf.BLOCK_DEVICE: stat.S_IFBLK}
        kind = kinds[entry.type]
        device = 0 if kind == stat.S_IFIFO else os.makedev(entry.major, entry.minor)
        os.mknod(name, kind | (entry.mode & 0o600), device, dir_fd=self._parent)
        self._own(entry, name)
        os.chmod(name, entry.mode & 0o777, dir_fd=self._parent)  # the umask has removed some bits

    def _own(self, entry: Entry, name: bytes) -> None:
        if self._archive:
            os.chown(name, entry.uid, entry.gid, dir_fd=self._parent, follow_symlinks=False)


def _clean(name: bytes) -> bytes:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            raise BadTar(f"{show(name)} points outside of the destination")
        if part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _quoted(path: bytes) -> str:
    return '"' + path.decode("utf-8", "replace") + '"'
