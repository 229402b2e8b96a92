"""Files that are either complete or absent, and trees that are gone when the call returns."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from wherry.linux import syscalls

_REMOVALS = 10
"""How often a tree is listed to remove it, at most."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace ``path`` by a file with ``data``: temporary name, fsync, rename, fsync of the directory.

    :param durable: leave the two fsyncs out for files that are made anew after a reboot.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """fsync a directory, so that a rename in it survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Sync everything that was written to the file system of ``path`` (syncfs(2)). :raises OSError: it
    failed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a directory tree; it need not exist. Symbolic links are removed, never followed.

    A process that is just ending may still make a file in it, after it was listed: then it is listed again.
    """

    def ignore_missing(
        _function: Callable[..., object], _path: str, info: tuple[object, BaseException, object]
    ) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    for left in reversed(range(_REMOVALS)):
        try:
            shutil.rmtree(path, onerror=ignore_missing)
            return
        except OSError as e:
            if e.errno != errno.ENOTEMPTY or not left:
                raise
