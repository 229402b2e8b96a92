"""Ownership of the directories: only one daemon at a time, and no daemon in a directory with another's
containers.

    <root>/wherryd.lock   locked as long as a daemon lives
    <run>/wherryd.lock    the same
    <run>/owner           the root of the daemon whose tasks are in <run>
    <run>/wherryd.pid
    <run>/tasks/<id>/owner   the root of the daemon that made the task

Nothing else is touched before both locks are held. A run directory with another root's containers is refused:
the start would sweep all of them, because it does not know them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from wherry.errors import Conflict, Unavailable
from wherry.runtime import task as tasks


class Claim:
    """Both locks; held while the daemon runs."""

    def __init__(self, root: Path, run: Path, pidfile: Path | None = None) -> None:
        self._root, self._run = root, run
        self._pidfile = pidfile or run / "wherryd.pid"
        self._held = ExitStack()

    def __enter__(self) -> Claim:
        """:raises Conflict: another daemon uses a directory, or its containers live there."""
        with ExitStack() as undo:
            for directory, mode in ((self._root, 0o710), (self._run, 0o711)):
                _make(directory, mode)
                undo.callback(os.close, _lock(directory))
            _make(self._pidfile.parent, 0o711)
            self._own()
            self._pidfile.write_text(f"{os.getpid()}\n")
            undo.callback(self._pidfile.unlink, missing_ok=True)
            self._held = undo.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._held.close()

    def _own(self) -> None:
        owner = self._run / "owner"
        try:
            other = owner.read_text().strip()
        except OSError:
            other = ""
        if other == str(self._root):
            return
        living = tasks.living(self._run / "tasks")
        # Before there were owner files, all roots used one default run directory.
        if living and other:
            raise Conflict(
                f"cannot use {self._run}: {len(living)} containers of the daemon with root {other} run "
                "there; start that daemon, or choose another directory with --run"
            )
        owner.write_text(f"{self._root}\n")


def _make(directory: Path, mode: int) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as e:
        raise Unavailable(f"cannot make {directory}: {e.strerror}") from e


def _lock(directory: Path) -> int:
    path = directory / "wherryd.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise Unavailable(f"cannot open {path}: {e.strerror}") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(lock)
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Conflict(f"another daemon uses {directory}") from e
        raise Unavailable(f"cannot lock {path}: {e.strerror}") from e
    return lock
