"""Directories that a layer needs and has no entry of: they are what the layers below have at that place.

A layer may hold ``tmp/file`` and say nothing of ``tmp``. Unpacked on its own, nobody knows yet that ``/tmp``
has mode
1777; once the parents are known, the directory takes owner, mode and attributes of the one that it lies on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from wherry.linux import syscalls as sys

_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS


def inherit(layer: Path, below: Sequence[Path], unnamed: Iterable[bytes]) -> None:
    """:param below: the files of the parents, the nearest first. :param unnamed: paths in ``layer``, ``b""``
    its root.

    What is changed is durable on return. :raises OSError: the host refuses.
    """
    with ExitStack() as held:
        top, *lower = (os.open(place, _READ) for place in (layer, *below))
        for fd in (top, *lower):
            held.callback(os.close, fd)
        for path in sorted(unnamed):
            with ExitStack() as opened:
                try:
                    mine = _open(top, path)
                except NotADirectoryError:
                    mine = None
                if mine is None:
                    continue  # the layer replaced it later
                opened.callback(os.close, mine)
                theirs = None if _hidden(top, path) else _found(lower, path)
                if theirs is not None:
                    opened.callback(os.close, theirs)
                    _take(theirs, mine)


def _open(root: int, path: bytes) -> int | None:
    """The directory at ``path``; None where there is none. :raises NotADirectoryError: something else is."""
    try:
        return sys.openat2(root, os.fsdecode(path) or ".", _READ, resolve=_BENEATH)
    except FileNotFoundError:
        return None
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise NotADirectoryError(e.errno, e.strerror) from e
        raise


def _found(lower: Sequence[int], path: bytes) -> int | None:
    """The directory that shines through at ``path``."""
    for root in lower:
        try:
            fd = _open(root, path)
        except NotADirectoryError:
            return None  # a whiteout, or a file, is on the way
        if fd is not None:
            return fd
        if _hidden(root, path):
            return None
    return None


def _hidden(root: int, path: bytes) -> bool:
    """Whether a directory above ``path`` hides what lower layers have in it."""
    parts = path.split(b"/")[:-1]
    for count in range(len(parts) + 1):
        if count == 0 and not path:
            return False
        try:
            fd = _open(root, b"/".join(parts[:count]))
        except NotADirectoryError:
            return True
        if fd is None:
            return False
        try:
            with suppress(OSError):
                if os.getxattr(fd, _OPAQUE) == b"y":
                    return True
        finally:
            os.close(fd)
    return False


def _take(theirs: int, mine: int) -> None:
    status = os.fstat(theirs)
    os.fchown(mine, status.st_uid, status.st_gid)
    os.fchmod(mine, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(theirs):
        if not name.startswith(_OVERLAY):
            os.setxattr(mine, name, os.getxattr(theirs, name))
    os.fsync(mine)
