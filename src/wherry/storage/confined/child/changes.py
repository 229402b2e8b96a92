"""What a container changed compared with its image, for ``diff``, in a confined child.

The child's root is the image, read-only; the container's own files are held by a descriptor beside it.
Directories and empty files that the engine and the runtime made as mount points do not count as the
container's changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from wherry.linux import syscalls as sys
from wherry.linux import trees
from wherry.linux.containerroot import find
from wherry.model.mount import ENGINE_MADE

CHANGED, ADDED, DELETED = b"0", b"1", b"2"
"""Docker's kinds (API "Get changes on a container's filesystem")."""

_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS
_LOOK = os.O_PATH | os.O_NOFOLLOW


class _Change:
    __slots__ = ("is_directory", "kind", "path", "same", "size", "touched")

    def __init__(
        self, path: bytes, kind: bytes, *, is_directory: bool = False, same: bool = False, size: int = 0
    ) -> None:
        self.path, self.kind, self.is_directory, self.size = path, kind, is_directory, size
        self.same = same  # a directory with the image's owner and mode
        self.touched = False  # something in it was left out


def changes(files: int, image: int) -> list[tuple[bytes, bytes]]:
    """(kind, path) of every change, without a leading slash, sorted by path.

    :param files: the snapshot's own files in overlayfs's form. :param image: the files below them.
    """
    found = {change.path: change for change in _all(files, image)}
    busy: set[bytes] = set()
    kept = []
    for path in sorted(found, reverse=True):  # entries before their directory
        change = found[path]
        above = path.rpartition(b"/")[0]
        if _is_ours(change, busy):
            if above in found:
                found[above].touched = True
            continue
        busy.add(above)
        kept.append((change.kind, path))
    return kept[::-1]


def _is_ours(change: _Change, busy: set[bytes]) -> bool:
    if change.path in busy:
        return False
    if change.kind == ADDED and change.path in ENGINE_MADE:
        return change.is_directory or change.size == 0
    if not change.is_directory or not change.touched:
        return False
    return change.kind == ADDED or change.same


def _all(files: int, image: int) -> Iterator[_Change]:
    for path, status in trees.walk_open(files):
        below = _below(image, path)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if below is not None:
                yield _Change(path, DELETED)
            continue
        is_directory = stat.S_ISDIR(status.st_mode)
        if below is None:
            yield _Change(path, ADDED, is_directory=is_directory, size=status.st_size)
            continue
        same = (below.st_mode, below.st_uid, below.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        yield _Change(path, CHANGED, is_directory=is_directory, same=same)
        if is_directory and stat.S_ISDIR(below.st_mode):
            yield from _hidden(files, image, path)


def _below(image: int, path: bytes) -> os.stat_result | None:
    try:
        fd = find(image, os.fsdecode(path), _LOOK, _BENEATH)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _hidden(files: int, image: int, path: bytes) -> Iterator[_Change]:
    """The image's files that an opaque directory hides."""
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    fd = find(files, os.fsdecode(path), directory, _BENEATH)
    try:
        try:
            if os.getxattr(fd, "trusted.overlay.opaque") != b"y":
                return
        except OSError:
            return
        present = set(os.listdir(fd))
    finally:
        os.close(fd)
    below = find(image, os.fsdecode(path), directory, _BENEATH)
    try:
        names = os.listdir(below)
    finally:
        os.close(below)
    for name in names:
        if name not in present:
            yield _Change(path + b"/" + os.fsencode(name), DELETED)
