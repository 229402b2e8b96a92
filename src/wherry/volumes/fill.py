"""Copy-up: an empty volume is filled once with the image's files at its mount point."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wherry.errors import Internal
from wherry.linux import copy, syscalls

_MARK = ".filling"
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def copy_up(source_root: Path | int, inner_path: str, volume_path: Path, *, marked: bool = True) -> None:
    """Fill the empty volume at ``volume_path`` from ``inner_path`` within a container's root file system.

    The kernel resolves the path as inside the container, so a symbolic link cannot lead out. If the image has
    no directory there, or the volume is not empty, nothing happens. The volume's directory gets owner and
    mode of the image's. Two starts at the same time take turns. A mark beside the volume's directory shows
    :func:`recover` an interrupted copy.

    :param source_root: the mounted root file system, or its descriptor.
    :param marked: False if a plugin owns the directory above the volume's: then there is no mark.
    :raises Internal: no room, or another failure of the host; then the volume is empty.
    """
    source = _open_source(source_root, inner_path)
    if source is None:
        return
    try:
        if not marked:
            with _alone(volume_path) as target:
                _fill_unmarked(source, target)
            return
        with _held(volume_path) as (beside, target):
            _fill(source, beside, target)
    except OSError as e:
        raise Internal(f"cannot fill a volume from {inner_path}: {e.strerror or e}") from e
    finally:
        os.close(source)


def _open_source(root: Path | int, inner_path: str) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    base = root if isinstance(root, int) else os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.openat2(base, inner_path, flags, resolve=resolve)
    except OSError as e:
        if e.errno in _NOTHING_THERE:
            return None
        raise Internal(f"cannot fill a volume from {inner_path}: {e.strerror}") from e
    finally:
        if not isinstance(root, int):
            os.close(base)


def recover(volume_path: Path) -> bool:
    """Empty a volume whose copy-up was interrupted. Only at start-up, before containers can write to it.

    :returns: whether it was interrupted.
    :raises Internal: the host refuses, with the reason.
    """
    if not (volume_path.parent / _MARK).exists():
        return False
    try:
        with _held(volume_path) as (beside, target):
            copy.empty(target)
            os.unlink(_MARK, dir_fd=beside)
    except OSError as e:
        raise Internal(f"cannot empty a half-filled volume: {e.strerror or e}") from e
    return True


@contextmanager
def _held(volume_path: Path) -> Iterator[tuple[int, int]]:
    """The directory above the volume's, locked, and the volume's own. Containers cannot reach the lock."""
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    beside = os.open(volume_path.parent, directory)
    try:
        fcntl.flock(beside, fcntl.LOCK_EX)
        target = os.open(volume_path.name, directory, dir_fd=beside)
        try:
            yield beside, target
        finally:
            os.close(target)
    finally:
        os.close(beside)


@contextmanager
def _alone(volume_path: Path) -> Iterator[int]:
    """The volume's directory, locked itself."""
    target = os.open(volume_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(target, fcntl.LOCK_EX)
        yield target
    finally:
        os.close(target)


def _fill_unmarked(source: int, target: int) -> None:
    if copy.is_empty(target):
        copy.copy_content(source, target)


def _fill(source: int, beside: int, target: int) -> None:
    if not copy.is_empty(target):
        return
    os.close(os.open(_MARK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=beside))
    try:
        copy.copy_content(source, target)
    except BaseException:
        # if emptying failed, the mark stays too
        if copy.is_empty(target):
            os.unlink(_MARK, dir_fd=beside)
        raise
    os.unlink(_MARK, dir_fd=beside)
