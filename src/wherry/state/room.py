"""Reserved disk space for the database: a write-ahead log whose blocks are allocated from the start.

    <root>/wherry.db-wal        while the database is open: SQLite writes into allocated blocks
    <root>/wherry.db.reserve    while it is closed: the same file, kept by this second name

Every commit goes into the log, and from there into the database when half of the log is full. If the log
contains pages that the database file does not have yet, they cannot be written to it on a full disk, and the
log could not be emptied. Therefore no transaction may add pages on a full disk (``Database`` ensures that).
The pages that were added before the disk became full fit into the log. Enough room is left for removals, for
the exits of containers, and for other changes of existing pages.

A valid log starts with a header (sqlite.org/fileformat2.html#the_write_ahead_log). Without the header SQLite
treats it as empty, whatever follows. So the header is removed before a kept file becomes the log again: its
pages are in the database already.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

SIZE = 7 << 20
_LEAST = 256 << 10
_SHARE = 8
"""On a small disk the log takes at most one part in this many."""
_HEADER = 32
_ZEROS = 1 << 20
_FRAME = 24 + 4096
_SCARCE, _NONE_LEFT = 64 << 20, 2 << 20
"""Bytes free on the disk: below the first, added data is written through at once;
below the second, nothing may be added."""


class Room:
    """Not safe for several threads: call it with the database's lock held."""

    def __init__(self, path: Path) -> None:
        """:param path: of the database."""
        self._directory = path.parent
        self._log = path.with_name(f"{path.name}-wal")
        self._kept = path.with_name(f"{path.name}.reserve")
        status = os.statvfs(path.parent)
        self._size = min(SIZE, max(_LEAST, status.f_blocks * status.f_frsize // _SHARE))

    @property
    def checkpoint(self) -> int:
        """Number of frames in the log after which it is written into the database."""
        return self._size // _FRAME // 2

    @property
    def bound(self) -> int:
        """Number of frames in the log beyond which nothing may be added on a full disk."""
        return self._size // _FRAME * 3 // 4

    def is_full(self) -> bool:
        """Whether the disk is full, apart from the reserved space."""
        return self._free() < _NONE_LEFT

    def is_scarce(self) -> bool:
        """Whether the disk may become full in a moment."""
        return self._free() < _SCARCE

    def _free(self) -> int:
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize

    def before_opening(self) -> None:
        """Turn the kept file into the log."""
        if self._log.exists():
            self._kept.unlink(missing_ok=True)  # the daemon was killed: the log itself has the blocks
            return
        try:
            fd = os.open(self._kept, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.pwrite(fd, bytes(_HEADER), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._kept.rename(self._log)

    def after_opening(self) -> None:
        """Allocate the log's blocks, or as many as possible."""
        size = self._size
        while size >= _LEAST:
            try:
                fd = os.open(self._log, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                return
            try:
                there = os.fstat(fd).st_size
                os.posix_fallocate(fd, 0, size)
                # Write them once: later commits then only change bytes, and no metadata of the file.
                for at in range(there, size, _ZEROS):
                    os.pwrite(fd, bytes(min(_ZEROS, size - at)), at)
                return
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    return  # the file system does not support it
            finally:
                os.close(fd)
            size //= 2

    def open_log(self) -> int:
        """A descriptor of the log, for syncing it. :raises OSError: it does not exist."""
        return os.open(self._log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def before_closing(self) -> None:
        """Keep the blocks of the log, which SQLite removes when it closes the database."""
        with suppress(OSError):
            self._kept.unlink(missing_ok=True)
            os.link(self._log, self._kept)
