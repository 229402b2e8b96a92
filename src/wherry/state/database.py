"""One SQLite file, ``<root>/wherry.db``: what must survive a restart is a row in it.

Journal mode is WAL, so readers do not wait for the writer, and ``synchronous`` is NORMAL: a killed process
loses nothing, a lost machine may lose the last commits but never the file's consistency
(sqlite.org/pragma.html#pragma_synchronous).

One connection serves the process, behind one re-entrant lock. Statements here are short, so the lock is
held for microseconds; a transaction never spans a wait on anything but the disk.

The tables stand beside the code that reads them: every module of this package names its own in ``TABLES``
and ``schema.py`` puts them together.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wherry.errors import Internal, Unavailable

Row = sqlite3.Row
RESERVE = 1 << 20
"""Bytes kept back beside the file, given up when the disk is full."""


class Database:
    """The connection, its lock and its migrations. Safe to use from any thread."""

    def __init__(self, path: Path | str, migrations: Sequence[str]) -> None:
        """Open or create the file at ``path`` (mode 0600) and bring it to the newest version.

        :param migrations: scripts, oldest first; a file of version *n* has run the first *n*.
        :raises Internal: the file was written by a newer version, or cannot be opened.
        """
        self._lock = threading.RLock()
        self._depth = 0
        self._reserve = None if str(path) == ":memory:" else Path(f"{path}.reserve")
        try:
            if str(path) != ":memory:":
                Path(path).touch(mode=0o600, exist_ok=True)
            self._connection = sqlite3.connect(
                str(path), isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._connection.row_factory = sqlite3.Row
            self._open(migrations)
        except (sqlite3.Error, OSError) as e:
            raise Internal(f"cannot open database {path}: {e}") from e

    def _open(self, migrations: Sequence[str]) -> None:
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(migrations)
            self._make_reserve()
        except BaseException:
            self._connection.close()  # Which rolls back, and gives up the lock.
            raise

    def _migrate(self, migrations: Sequence[str]) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise Internal(
                f"cannot open database: its version {version} is newer than this program's {len(migrations)}"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            self._connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version={number};\nCOMMIT;"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All statements inside happen or none does. Nests: the outermost one commits.

        :raises Unavailable: the disk is full.
        """
        with self._lock, self._full_disk_named():
            outermost = self._depth == 0
            if outermost:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
                if outermost:
                    self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some errors, a full disk among them.
                if outermost and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            freed = self._free_reserve()
            hint = "; a reserve was freed so that containers and images can be removed" if freed else ""
            raise Unavailable(f"cannot write to the database: {e}: no space left on device{hint}") from e

    def _make_reserve(self) -> None:
        """Keep some room back, so that what frees space can still be written down on a full disk."""
        if self._reserve is None or self._reserve.exists():
            return
        try:
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE)
            finally:
                os.close(fd)
        except OSError:
            self._free_reserve()

    def _free_reserve(self) -> bool:
        try:
            if self._reserve is not None:
                self._reserve.unlink()
                return True
        except OSError:
            pass
        return False

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the number of rows it changed. :raises Unavailable: the disk is full."""
        with self._lock, self._full_disk_named():
            return self._connection.execute(sql, parameters).rowcount

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        with self._lock:
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
            return row

    def close(self) -> None:
        """Checkpoint and close. Using the database afterwards raises ``sqlite3.ProgrammingError``."""
        with self._lock:
            self._connection.close()
