"""Resolve and make paths inside a root that is not this process's, even if parts of them do not exist.

A symbolic link to a missing target is followed too, as ``mkdir -p`` would have to: an image may have
``/data -> /var/lib/data`` and leave the target to be made by the mount. The kernel would only answer "no such
file". So the walk is done here, one component at a time; the kernel opens each one without following links.
Nobody else may change the root meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from wherry.linux import syscalls

_LINKS_MAX = 255
_PLAIN = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


def resolve(root_fd: int, path: str) -> list[str]:
    """The parts of ``path`` with every link followed; ``..`` at the root stays there; missing parts stay as
    they are.

    :raises OSError: ENOTDIR, ELOOP …
    """
    pending, found, links = deque(_parts(path)), list[str](), 0
    while pending:
        part = pending.popleft()
        if part == "..":
            del found[-1:]
            continue
        target = _link(root_fd, "/".join((*found, part)))
        if target is None:
            found.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            found.clear()
        pending.extendleft(reversed(_parts(target)))
    return found


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link(root_fd: int, path: str) -> str | None:
    """A symbolic link's target; ``None`` for any other file, or if there is none."""
    try:
        fd = syscalls.openat2(root_fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_PLAIN)
    except FileNotFoundError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def make_directory(
    root_fd: int, path: str, *, mode: int = 0o755, owner: tuple[int, int] | None = None
) -> list[str]:
    """Make a directory and all that lead to it; the parts of where it is. Only what is made gets ``owner``.

    :raises OSError: ENOTDIR, ELOOP, EROFS …
    """
    parts = resolve(root_fd, path)
    above = os.dup(root_fd)
    try:
        for part in parts:
            below = _step(above, part, mode, owner)
            os.close(above)
            above = below
    finally:
        os.close(above)
    return parts


def _step(above: int, part: str, mode: int, owner: tuple[int, int] | None) -> int:
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return syscalls.openat2(above, part, flags, resolve=_PLAIN)
    except FileNotFoundError:
        os.mkdir(part, mode, dir_fd=above)
    fd = syscalls.openat2(above, part, os.O_RDONLY | os.O_DIRECTORY, resolve=_PLAIN)
    os.fchmod(fd, mode)  # independent of the umask
    if owner is not None:
        os.fchown(fd, *owner)
    return fd


def make_file(root_fd: int, path: str) -> None:
    """Make an empty file as a mount point, unless something exists there. :raises OSError: …"""
    parts = resolve(root_fd, path)
    if not parts:
        return
    make_directory(root_fd, "/".join(parts[:-1]))
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        above = syscalls.openat2(root_fd, "/".join(parts[:-1]) or ".", os.O_PATH, resolve=_PLAIN)
        try:
            os.close(os.open(parts[-1], flags | os.O_CLOEXEC, 0o755, dir_fd=above))
        finally:
            os.close(above)
    except FileExistsError:
        pass
