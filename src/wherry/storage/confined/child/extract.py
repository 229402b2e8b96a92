"""Extract a tar stream into a container's files, in a child whose root they are (:mod:`linux.containerroot`).

The rules are those of cp (Engine API, "Extract an archive"): directories are merged, anything else replaces
what has its name, and whiteouts are ordinary names. The container may run and move things meanwhile. So each
name is made in a directory that is held open and that the kernel resolved beneath the destination, with
O_EXCL or by calls that do not follow links. A new file is changed only through its own descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from wherry.linux import syscalls as sys
from wherry.linux import trees
from wherry.linux.containerroot import Root, find
from wherry.model import tarformat as tf
from wherry.model.tarformat import BadTar, Buffered, Entry, TarReader, clean, show
from wherry.storage.confined.child.members import device_of, give, write_data

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT = os.O_PATH | os.O_DIRECTORY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 16
_SPLICE, _SPLICE_FROM = 1 << 20, 1 << 20


class Refused(Exception):
    """The archive does not fit the existing files; the text is Docker's message if there is one."""


class PipedSource(Buffered):
    """An uncompressed archive from a pipe; its files are spliced to their destination."""

    def __init__(self, pipe: int, next_piece: Callable[[], bytes]) -> None:
        super().__init__(next_piece)
        self._pipe = pipe

    def copy_to(self, fd: int, size: int) -> None:
        """Copy the next ``size`` bytes into a file at its position. :raises BadTar: it ends too early."""
        while size and (piece := self.held(size)):
            while piece:
                done = os.write(fd, piece)
                piece, size = piece[done:], size - done
        while size:
            try:
                done = os.splice(self._pipe, fd, min(size, _SPLICE))
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise
                for rest in self.chunks(size):  # this file system does not support splice
                    while rest:
                        rest = rest[os.write(fd, rest) :]
                return
            if not done:
                raise BadTar("it ends too early")
            size -= done


class Extractor:
    """Extracts below ``top``, an O_PATH descriptor of the destination.

    :param piped: the reader's source, if it is a pipe.
    :param keep_kinds: do not replace a directory by something else, nor something else by a directory.
    :param owner: the user and group that own everything, whatever the archive says.
    :param top_is_root: links are resolved from ``top``, absolute ones as well, and cannot lead out of it.
    """

    def __init__(
        self,
        root: Root,
        top: int,
        reader: TarReader,
        piped: PipedSource | None,
        *,
        keep_kinds: bool,
        top_is_root: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._root = root
        self._top = top
        self._reader = reader
        self._piped = piped
        self._keep_kinds = keep_kinds
        self._owner = owner
        # Only at the root can an absolute link be followed with certainty that it stays beneath.
        whole = top_is_root or os.path.samestat(os.fstat(top), os.fstat(root.fd))
        self._resolve = (sys.RESOLVE_IN_ROOT if whole else sys.RESOLVE_BENEATH) | sys.RESOLVE_NO_MAGICLINKS
        self._head: bytes = b""
        self._parent = top
        self._times: dict[bytes, tuple[int, int]] = {}

    def run(self) -> None:
        """:raises BadTar, Refused: see there. :raises OSError: the file system refused."""
        try:
            for entry in self._reader:
                path = _clean(entry.name)
                if not path:
                    continue  # the destination itself is not changed
                try:
                    self._entry(entry, path)
                except OSError as e:
                    e.args = (e.errno, f"{show(path)}: {e.strerror}")
                    e.filename = None
                    raise
            self._settle_times()
        finally:
            self._leave()

    def _entry(self, entry: Entry, path: bytes) -> None:
        head, _, name = path.rpartition(b"/")
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        self._enter(head)
        existing = self._make_room(entry, path, name)
        kind = entry.type
        if kind == tf.FILE:
            self._file(entry, name)
        elif kind == tf.DIRECTORY:
            self._directory(entry, name, exists=existing)
            self._times[path] = (entry.atime, entry.mtime)
        elif kind == tf.SYMLINK:
            self._retry(name, lambda: os.symlink(entry.linkname, name, dir_fd=self._parent))
            self._give(entry, name, stat.S_IFLNK)
        elif kind == tf.LINK:
            self._link(entry, name)
        elif kind in (tf.CHARACTER, tf.BLOCK_DEVICE, tf.FIFO):
            self._node(entry, name, path)
        else:
            raise BadTar(f"{show(path)} has the unknown type {kind!r}")

    # ---- directories above --------------------------------------------------------------------------------

    def _enter(self, head: bytes) -> None:
        """Open the directory that an entry goes into; missing ones are made (root's, mode 0755)."""
        if head == self._head:
            return
        self._leave()
        if head:
            self._parent = self._open(head)
        self._head = head

    def _leave(self) -> None:
        if self._parent != self._top:
            os.close(self._parent)
        self._parent, self._head = self._top, b""

    def _open(self, path: bytes) -> int:
        for _ in range(_TRIES):
            try:
                return find(self._top, os.fsdecode(path), _PARENT, self._resolve)
            except FileNotFoundError:
                head, _, name = path.rpartition(b"/")
                above = self._open(head) if head else os.dup(self._top)
                try:
                    os.mkdir(name, 0o755, dir_fd=above)
                except FileExistsError as e:
                    if self._dangles(above, name):
                        raise Refused(f"cannot create directory {show(path)}: a broken link is there") from e
                finally:
                    os.close(above)
            except OSError as e:
                if e.errno == errno.EXDEV:
                    raise Refused(f"invalid symlink: {show(path)} leads out of the destination") from e
                raise
        raise OSError(errno.EAGAIN, "it keeps moving")

    @staticmethod
    def _dangles(above: int, name: bytes) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    # ---- one entry ----------------------------------------------------------------------------------------

    def _make_room(self, entry: Entry, path: bytes, name: bytes) -> bool:
        """Remove what an entry replaces; returns ``True`` if both are directories, which are merged."""
        try:
            status = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        was, will = stat.S_ISDIR(status.st_mode), entry.type == tf.DIRECTORY
        if was and will:
            return True
        if self._keep_kinds and was:
            raise Refused(f"cannot overwrite directory {_quoted(path)} with non-directory {_quoted(path)}")
        if self._keep_kinds and will:
            raise Refused(f"cannot overwrite non-directory {_quoted(path)} with directory {_quoted(path)}")
        if not self._is_same_file(entry, status):
            self._remove(name)
        return False

    def _is_same_file(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether a hard link would replace the very file it links to."""
        if entry.type != tf.LINK:
            return False
        target = _clean(entry.linkname)
        try:
            fd = find(self._top, os.fsdecode(target), _LOOK, self._resolve)
        except OSError:
            return False
        try:
            return os.path.samestat(os.fstat(fd), status)
        finally:
            os.close(fd)

    def _remove(self, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=self._parent)
            return
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno not in (errno.EISDIR, errno.EPERM):
                raise
        fd = os.open(name, _DIRECTORY, dir_fd=self._parent)
        try:
            trees.clear(fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=self._parent)
        self._times.clear()  # their directories may be gone, and are not worth a check each

    def _retry(self, name: bytes, make: Callable[[], None]) -> None:
        """Retry if a running container keeps making something at this name."""
        for _ in range(_TRIES):
            try:
                make()
                return
            except FileExistsError:
                self._remove(name)
        make()

    def _file(self, entry: Entry, name: bytes) -> None:
        made: list[int] = []
        self._retry(
            name, lambda: made.append(os.open(name, _CREATE, entry.mode & 0o700, dir_fd=self._parent))
        )
        fd = made.pop()
        try:
            if entry.sparse is None and entry.size >= _SPLICE_FROM and self._piped is not None:
                self._piped.copy_to(fd, self._reader.claim())
            else:
                write_data(fd, entry, self._reader)
            give(fd, entry)
            os.utime(fd, ns=(entry.atime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, name: bytes, *, exists: bool) -> None:
        if not exists:
            try:
                os.mkdir(name, entry.mode & 0o700, dir_fd=self._parent)
            except FileExistsError:
                pass  # caused by the container; if it cannot be opened as a directory, that fails below
        fd = os.open(name, _DIRECTORY, dir_fd=self._parent)
        try:
            give(fd, entry)
        finally:
            os.close(fd)

    def _link(self, entry: Entry, name: bytes) -> None:
        target = _clean(entry.linkname)
        head, _, last = target.rpartition(b"/")
        if not last:
            raise BadTar(f"{show(entry.name)} is a hard link to the destination itself")
        above = find(self._top, os.fsdecode(head), _PARENT, self._resolve) if head else os.dup(self._top)
        try:

            def make() -> None:
                os.link(last, name, src_dir_fd=above, dst_dir_fd=self._parent, follow_symlinks=False)

            try:
                make()
            except FileExistsError:
                there = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
                if not os.path.samestat(there, os.stat(last, dir_fd=above, follow_symlinks=False)):
                    self._retry(name, make)
        finally:
            os.close(above)

    def _node(self, entry: Entry, name: bytes, path: bytes) -> None:
        kinds = {tf.FIFO: stat.S_IFIFO, tf.CHARACTER: stat.S_IFCHR, tf.BLOCK_DEVICE: stat.S_IFBLK}
        kind = kinds[entry.type]
        device = 0 if kind == stat.S_IFIFO else device_of(entry, path)
        self._retry(name, lambda: os.mknod(name, kind | 0o600, device, dir_fd=self._parent))
        self._give(entry, name, kind)

    def _give(self, entry: Entry, name: bytes, kind: int) -> None:
        """Set owner, mode and time through an O_PATH descriptor, for what cannot be opened for writing."""
        fd = os.open(name, _LOOK, dir_fd=self._parent)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
                raise OSError(errno.EAGAIN, "it was replaced while it was made")
            self._root.chown(fd, entry.uid, entry.gid)
            if kind != stat.S_IFLNK:
                self._root.chmod(fd, entry.mode)
        finally:
            os.close(fd)
        os.utime(name, ns=(entry.atime, entry.mtime), dir_fd=self._parent, follow_symlinks=False)

    def _settle_times(self) -> None:
        """Set times of directories last, the deepest first: making files in them changes their times."""
        for path, times in reversed(self._times.items()):
            try:
                fd = find(self._top, os.fsdecode(path), _DIRECTORY, self._resolve)
            except OSError:
                continue
            try:
                os.utime(fd, ns=times)
            finally:
                os.close(fd)


def _clean(name: bytes) -> bytes:
    """A member's name below the destination.

    :raises Refused: it leads out of the destination.
    """
    try:
        return clean(name)
    except BadTar as e:
        raise Refused(f"invalid path: {show(name)} points outside of the destination") from e


def _quoted(path: bytes) -> str:
    return '"' + path.decode("utf-8", "replace") + '"'
