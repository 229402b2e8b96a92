"""Copy into a step's files, in a confined child: COPY, ADD and WORKDIR.

Hostile steps may have filled the destination's root. So the kernel resolves, or the child makes, every
directory on the way beneath that root, and it is held open while names are made in it. The rules are those of
BuildKit: a directory is merged into a directory, a file replaces anything except a directory, and a directory
never replaces anything. Links in the destination's path are followed within the root, even if their target
does not exist yet; links below the destination are not followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence

from wherry.linux import copy as kernel_copy
from wherry.linux import syscalls as sys
from wherry.linux.containerroot import find
from wherry.storage.confined.child.extract import Refused
from wherry.storage.confined.child.helpers import Helpers
from wherry.storage.confined.child.members import is_plain, set_xattrs, xattrs_of
from wherry.storage.confined.child.trees import DirectoryTree, RootedTree
from wherry.storage.selection import DIRECTORY, FILE, LINK, Item, Node

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_ROOT = sys.RESOLVE_IN_ROOT | sys.RESOLVE_NO_MAGICLINKS
_STRICT = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS
_SYMBOLIC = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*|[-+=][ugo])+)")
_CLAUSE = re.compile(r"([-+=])([ugo]|[rwxXst]*)")

_BATCH = 1000
"""Files that are copied by one helper; so many take some 50 ms, and a fork two."""
_LINKS_MAX = 255
_SMALL = 64 << 10
"""Files up to this size in bytes are read and written at once, which costs less than trying a clone."""

Mode = Callable[[int, bool], int]
Owner = tuple[int, int] | None


def parse_mode(text: str) -> Mode | None:
    """``--chmod``: octal, or symbolic as in chmod(1) (``u=rwX,go=rX``). ``None`` for none.

    :raises Refused: neither of them.
    """
    if not text:
        return None
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        value = int(text, 8)
        return lambda _mode, _directory: value
    clauses = text.split(",")
    if not all(_SYMBOLIC.fullmatch(clause) for clause in clauses):
        raise Refused(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")

    def change(mode: int, directory: bool) -> int:
        for clause in clauses:
            found = _SYMBOLIC.fullmatch(clause)
            assert found is not None
            for operator, what in _CLAUSE.findall(found[2]):
                mode = _apply(mode, found[1] or "a", operator, what, directory)
        return mode

    return change


def _apply(mode: int, who: str, operator: str, what: str, directory: bool) -> int:
    classes = "ugo" if "a" in who else who
    bits = mask = 0
    for one in classes:
        shift = {"u": 6, "g": 3, "o": 0}[one]
        mask |= 7 << shift
        if what in ("u", "g", "o"):
            bits |= (mode >> {"u": 6, "g": 3, "o": 0}[what] & 7) << shift
            continue
        bits |= sum({"r": 4, "w": 2, "x": 1}.get(c, 0) for c in what) << shift
        if "X" in what and (directory or mode & 0o111):
            bits |= 1 << shift
        if "s" in what and one != "o":
            bits |= {"u": stat.S_ISUID, "g": stat.S_ISGID}[one]
    if "t" in what:
        bits |= stat.S_ISVTX
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return mode & ~mask | bits


class CopyTarget:
    """A root to copy into. ``strict`` follows no link in it (``--link``), but replaces it."""

    def __init__(self, place: RootedTree, *, owner: Owner, mode: Mode | None, strict: bool) -> None:
        self._place = place
        self._owner, self._mode = owner, mode
        self._strict = strict
        self._resolve = _STRICT if strict else _IN_ROOT
        self._base = -1
        self._linked: dict[tuple[int, int], bytes] = {}
        self._times: dict[bytes, tuple[int, int]] = {}
        self._helpers = Helpers()
        self._later: list[tuple[Item, bytes]] = []
        """Files in new directories, with the directories' paths: they need no order."""
        self._plain: set[bytes] = set()
        """Directories (as items' paths) that this copy has made, whose files need fewer calls."""
        self.changed = False

    # directories

    def make_directories(self, path: str) -> int:
        """A descriptor of ``path`` (absolute).
        Missing directories are made; links on the way are followed."""
        return self._make(self._place.fd, self._followed(os.fsencode(path)))

    def _followed(self, path: bytes) -> bytes:
        """Where a path leads after its links are followed; relative to the root."""
        if self._strict:
            return path.strip(b"/")
        here: list[bytes] = []
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            target = self._link_at(b"/".join(here), part)
            if target is None:
                here.append(part)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise Refused(f"too many links: {_show(path)}")
            if target.startswith(b"/"):
                here = []
            pending += target.split(b"/")[::-1]
        return b"/".join(here)

    def _link_at(self, head: bytes, name: bytes) -> bytes | None:
        try:
            above = find(self._place.fd, os.fsdecode(head), os.O_PATH | os.O_DIRECTORY, _STRICT)
        except OSError:
            return None
        try:
            return os.readlink(name, dir_fd=above)
        except OSError:
            return None
        finally:
            os.close(above)

    def _make(self, top: int, path: bytes) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return find(top, os.fsdecode(path), flags, self._resolve if top == self._place.fd else _STRICT)
        except OSError as e:
            if e.errno == errno.ENOTDIR or (e.errno == errno.ELOOP and not self._strict):
                raise Refused(f"cannot copy to non-directory: /{_show(path)}") from e
            if e.errno not in (errno.ENOENT, errno.ELOOP) or not path:
                raise
        head, _, name = path.rpartition(b"/")
        if name == b"..":
            raise Refused(f"cannot make directory /{_show(path)}")
        above = self._make(top, head) if head else os.dup(top)
        try:
            self._make_room(above, name, path)
            os.mkdir(name, 0o755, dir_fd=above)
            self.changed = True
            fd = os.open(name, _DIRECTORY, dir_fd=above)
            os.fchmod(fd, 0o755)
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            return fd
        finally:
            os.close(above)

    def _make_room(self, above: int, name: bytes, path: bytes) -> None:
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return
        if self._strict and not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=above)
            return
        raise Refused(f"cannot copy to non-directory: /{_show(path)}")

    def is_directory(self, path: str) -> bool:
        try:
            os.close(find(self._place.fd, path, os.O_PATH | os.O_DIRECTORY, self._resolve))
        except OSError:
            return False
        return True

    # files

    def copy(self, tree: DirectoryTree, items: Iterable[Item], destination: str, *, into: bool) -> None:
        """Copy the selected files. :raises Refused: kinds that cannot replace each other."""
        here = -1
        within: tuple[bytes, int] = (b"", -1)
        self._plain.clear()
        try:
            for item in items:
                if not item.path and not item.top:
                    self._all_done(tree, here)
                    self._plain.clear()  # names of the source before may be there
                    if here < 0:
                        here = self._destination(tree, item, destination, into=into)
                    continue
                if item.top:
                    self._all_done(tree, here)
                    head, name = self._where(destination, item.name, into=into)
                    directory = self.make_directories(head)
                    try:
                        self._item(tree, item, directory, name, os.fsencode(head) + b"/" + name)
                    finally:
                        os.close(directory)
                    continue
                if here < 0:
                    here = self.make_directories(destination)
                head_path, _, name = item.path.rpartition(b"/")
                if item.node.kind == FILE and head_path in self._plain:
                    self._later.append((item, head_path))
                    if len(self._later) >= _BATCH:
                        self._hand_out(tree, here)
                    continue
                if within[1] < 0 or within[0] != head_path:
                    if within[1] >= 0:
                        os.close(within[1])
                        within = (b"", -1)
                    opened = self._make(here, head_path) if head_path else os.dup(here)
                    within = (head_path, opened)
                self._item(tree, item, within[1], name, item.path)
            self._all_done(tree, here)
            self._settle(here)
        finally:
            self._helpers.abandon()
            for fd in (here, within[1]):
                if fd >= 0:
                    os.close(fd)

    def _hand_out(self, tree: DirectoryTree, here: int) -> None:
        """Have the files of :attr:`_later` copied, by a helper if one is free."""
        files, self._later = self._later, []
        if len(files) < _BATCH or not self._helpers.give(
            lambda: self._files(tree, here, files, linked=False),
            lambda left: self._finish(tree, here, [files[one] for one in left]),
        ):
            self._finish(tree, here, files)

    def _finish(self, tree: DirectoryTree, here: int, files: Sequence[tuple[Item, bytes]]) -> None:
        self._files(tree, here, files, linked=True)

    def _all_done(self, tree: DirectoryTree, here: int) -> None:
        if self._later:
            self._hand_out(tree, here)
        self._helpers.wait()

    def _files(
        self, tree: DirectoryTree, here: int, files: Sequence[tuple[Item, bytes]], *, linked: bool
    ) -> list[int]:
        """Copy files of plain directories.

        :param linked: also those with several names, which only the job itself knows to be one file.
        :return: the positions of those that were left out.
        """
        self.changed = True
        left: list[int] = []
        directory, path = -1, b""
        try:
            for position, (item, head) in enumerate(files):
                if directory < 0 or head != path:
                    if directory >= 0:
                        os.close(directory)
                        directory = -1
                    directory = self._make(here, head) if head else os.dup(here)
                    path = head
                name = item.path.rpartition(b"/")[2]
                if not self._file(tree, item, directory, name, plain=True, linked=linked):
                    left.append(position)
        finally:
            if directory >= 0:
                os.close(directory)
        return left

    def _where(self, destination: str, name: bytes, *, into: bool) -> tuple[str, bytes]:
        """The directory and the name for a file: its own name in a directory, else the destination's name, or
        that of the target if a link is there."""
        if into or self.is_directory(destination):
            return destination, name
        return _split("/" + os.fsdecode(self._followed(os.fsencode(destination))))

    def _destination(self, tree: DirectoryTree, item: Item, destination: str, *, into: bool) -> int:
        """The destination for a directory's contents. A new destination gets the directory's metadata, unless
        it is written as a directory (with a trailing slash)."""
        if into or self.is_directory(destination):
            return self.make_directories(destination)
        head, name = self._where(destination, b"", into=False)
        if not name:
            return self.make_directories(destination)
        directory = self.make_directories(head)
        try:
            self._item(tree, item, directory, name, os.fsencode(destination.lstrip("/")))
            return os.open(name, _DIRECTORY, dir_fd=directory)
        finally:
            os.close(directory)

    def _item(self, tree: DirectoryTree, item: Item, directory: int, name: bytes, path: bytes) -> None:
        node = item.node
        self.changed = True
        existing = _mode_at(directory, name)
        if node.kind == DIRECTORY:
            if existing and not stat.S_ISDIR(existing):
                if not self._strict:
                    raise Refused(f"cannot copy to non-directory: /{_show(path)}")
                os.unlink(name, dir_fd=directory)
                existing = 0
            if not existing:
                os.mkdir(name, 0o700, dir_fd=directory)
            self._plain.discard(item.path)
            if self._directory(tree, item, directory, name) and not existing:
                self._plain.add(item.path)
            return
        if existing and stat.S_ISDIR(existing):
            raise Refused(f"cannot replace to directory /{_show(path)} with file")
        if existing:
            os.unlink(name, dir_fd=directory)
        if node.kind == FILE:
            self._file(tree, item, directory, name)
        elif node.kind == LINK:
            os.symlink(node.target, name, dir_fd=directory)
            self._give(node, directory, name)
        else:
            os.mknod(name, stat.S_IFMT(node.mode) | 0o600, node.device, dir_fd=directory)
            self._give(node, directory, name)

    def _directory(self, tree: DirectoryTree, item: Item, directory: int, name: bytes) -> bool:
        """Returns whether it :func:`is_plain`."""
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            owner, mode = self._owner_of(item.node), self._mode_of(item.node)
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            set_xattrs(fd, xattrs_of(tree.directory(item.source)))
            plain = is_plain(fd, mode, owner[1])
        finally:
            os.close(fd)
        self._times[item.path] = (item.node.mtime, item.node.mtime)
        return plain

    def _file(
        self,
        tree: DirectoryTree,
        item: Item,
        directory: int,
        name: bytes,
        *,
        plain: bool = False,
        linked: bool = True,
    ) -> bool:
        """:param plain: the directory is (:meth:`_directory`).
        :return: ``False``: it has several names, and the caller did not want such a file.
        """
        source, status = tree.open_file(item.source)
        try:
            inode = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and not linked:
                return False
            if status.st_nlink > 1 and inode in self._linked and self._link(inode, directory, name):
                return True
            owner, mode = self._owner_of(item.node), self._mode_of(item.node)
            made = os.open(name, _CREATE, mode & 0o777 if plain else 0o600, dir_fd=directory)
            try:
                if status.st_size <= _SMALL:
                    os.write(made, os.read(source, _SMALL + 1))
                else:
                    kernel_copy.copy_bytes(source, made, status.st_size)
                # Each of these calls costs as much as a write.
                if not plain or owner != (0, 0):
                    os.fchown(made, *owner)
                if not plain or mode & ~0o777:
                    os.fchmod(made, mode)
                set_xattrs(made, xattrs_of(source))
                os.utime(made, ns=(item.node.mtime, item.node.mtime))
            finally:
                os.close(made)
            if status.st_nlink > 1:
                self._linked[inode] = self._path_of(directory, name)
            return True
        finally:
            os.close(source)

    def _path_of(self, directory: int, name: bytes) -> bytes:
        return self._place.within(directory) + b"/" + name

    def _link(self, inode: tuple[int, int], directory: int, name: bytes) -> bool:
        """Make a hard link to a file that was copied; ``False`` if the copy does not exist any more."""
        head, _, last = self._linked[inode].rpartition(b"/")
        try:
            above = find(self._place.fd, os.fsdecode(head), os.O_PATH | os.O_DIRECTORY, _STRICT)
        except OSError:
            return False
        try:
            os.link(last, name, src_dir_fd=above, dst_dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        finally:
            os.close(above)
        return True

    def write(self, data: bytes, destination: str, name: str, *, into: bool, mtime: int) -> None:
        """Write a file with the given bytes (a here-document)."""
        head, last = self._where(destination, os.fsencode(name), into=into)
        directory = self.make_directories(head)
        self.changed = True
        try:
            try:
                os.unlink(last, dir_fd=directory)
            except FileNotFoundError:
                pass
            except IsADirectoryError as e:
                raise Refused(f"cannot replace to directory {destination} with file") from e
            made = os.open(last, _CREATE, 0o600, dir_fd=directory)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(made, view) :]
                node = Node(FILE, 0o644)
                os.fchown(made, *self._owner_of(node))
                os.fchmod(made, self._mode_of(node))
                os.utime(made, ns=(mtime, mtime))
            finally:
                os.close(made)
        finally:
            os.close(directory)

    def _owner_of(self, node: Node) -> tuple[int, int]:
        return self._owner if self._owner is not None else (node.uid, node.gid)

    def _mode_of(self, node: Node) -> int:
        mode = stat.S_IMODE(node.mode)
        return mode if self._mode is None else self._mode(mode, node.kind == DIRECTORY)

    def _give(self, node: Node, directory: int, name: bytes) -> None:
        """Set owner, mode and time of something that cannot be opened for writing."""
        os.chown(name, *self._owner_of(node), dir_fd=directory, follow_symlinks=False)
        if node.kind != LINK:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                self._place.chmod(fd, self._mode_of(node))
            finally:
                os.close(fd)
        os.utime(name, ns=(node.mtime, node.mtime), dir_fd=directory, follow_symlinks=False)

    def _settle(self, top: int) -> None:
        """Set times of directories last: making files in them changes their times."""
        for path, times in reversed(self._times.items()):
            try:
                fd = find(top, os.fsdecode(path), _DIRECTORY, _STRICT)
            except OSError:
                continue
            try:
                os.utime(fd, ns=times)
            finally:
                os.close(fd)
        self._times.clear()


def _mode_at(directory: int, name: bytes) -> int:
    """0: nothing is there."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _split(destination: str) -> tuple[str, bytes]:
    head, _, name = destination.rstrip("/").rpartition("/")
    return head or "/", os.fsencode(name)


def _show(path: bytes) -> str:
    return path.decode("utf-8", "replace")
