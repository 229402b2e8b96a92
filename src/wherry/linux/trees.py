"""Measure and remove directory trees from others, without trusting anything in them.

No path inside becomes longer than the kernel allows, and there is no deep recursion, however deep the tree
is: a container can make a tree of any depth with chdir(2) and mkdir(2).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wherry.linux import syscalls as sys

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_XDEV
_BLOCK = 512


@dataclass(frozen=True)
class TreeSize:
    """``size`` in bytes on disk, hard links counted once; ``inodes`` without the root directory itself."""

    size: int
    inodes: int


def measure(root: Path) -> TreeSize:
    """Sum up a tree; files that vanish meanwhile, and directories too deep for a path, are left out.

    :raises FileNotFoundError: the root is not there.
    """
    size, inodes = 0, 0
    linked: set[tuple[int, int]] = set()
    for _, status in walk(root):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            if inode in linked:
                continue
            linked.add(inode)
        size += status.st_blocks * _BLOCK
        inodes += 1
    return TreeSize(size, inodes)


def walk(root: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield every entry below ``root`` with its lstat(2), a directory before its entries, names in order.

    Safe against a tree that changes meanwhile: each directory is opened beneath the root and never through
    a symbolic link.

    :raises FileNotFoundError: the root is not there.
    """
    top = os.open(root, _DIRECTORY)
    try:
        yield from walk_open(top)
    finally:
        os.close(top)


def walk_open(top: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """As :func:`walk`, of a directory that is open (O_PATH will do)."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        found = _list(top, directory)
        yield from found
        pending += [p for p, s in reversed(found) if stat.S_ISDIR(s.st_mode)]


def _list(top: int, directory: bytes) -> list[tuple[bytes, os.stat_result]]:
    try:
        fd = sys.openat2(top, os.fsdecode(directory or b"."), _DIRECTORY, resolve=_BENEATH)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV):
            return []
        raise
    try:
        found = []
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append((directory + b"/" + name if directory else name, status))
        return found
    finally:
        os.close(fd)


def remove(root: Path) -> None:
    """Remove a tree; it need not exist. Symbolic links are removed, never followed.

    A directory that is not empty is first moved up to the top, so depth does not matter.
    """
    try:
        top = os.open(root, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        root.unlink(missing_ok=True)
        return
    try:
        clear(top)
    finally:
        os.close(top)
    root.rmdir()


def clear(top: int) -> None:
    """Remove everything in an open directory, as :func:`remove` does."""
    moved = 0
    pending = [name for name in os.listdir(top) if _unlink(top, name)]
    for name in pending:
        fd = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner in os.listdir(fd):
                if _unlink(fd, inner):
                    up = f".removed-{os.getpid()}-{moved}"
                    moved += 1
                    os.rename(inner, up, src_dir_fd=fd, dst_dir_fd=top)
                    pending.append(up)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)


def _unlink(directory: int, name: str) -> bool:
    """Unlink a file or an empty directory; ``True`` when it is a directory with entries."""
    try:
        os.unlink(name, dir_fd=directory)
        return False
    except FileNotFoundError:
        return False
    except OSError as e:
        if e.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        os.rmdir(name, dir_fd=directory)
        return False
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return True
