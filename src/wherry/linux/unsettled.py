"""The mark on a directory whose row is about to be written or deleted.

    <directory>/.unsettled

It is written before the row, and removed when the directory and its row agree. So a later process can tell
the daemon's own leftovers from somebody's data:

    mark and row       the row counts: the mark is removed
    mark, no row       half made or half removed: the directory is removed
    row, no mark       all is well
    neither            somebody's data, whose row was lost: taken up again or set aside, never removed
"""

from __future__ import annotations

import os
from pathlib import Path

_NAME = ".unsettled"


def mark(directory: Path) -> None:
    """Idempotent. :raises OSError: there is no such directory, or no room for an empty file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(directory / _NAME, flags, 0o600))


def settle(directory: Path) -> None:
    """Remove the mark; if there is none, nothing happens."""
    try:
        os.unlink(directory / _NAME)
    except (FileNotFoundError, NotADirectoryError):
        pass


def is_marked(directory: Path) -> bool:
    return os.path.lexists(directory / _NAME)
