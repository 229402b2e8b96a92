"""One SQLite file, ``<root>/wherry.db``: what must survive a restart is a row in it.

Journal mode is WAL, so readers do not wait for the writer. ``synchronous`` is NORMAL: a killed process loses
nothing; a power cut may lose the last commits, but never the file's consistency
(sqlite.org/pragma.html#pragma_synchronous). A change that was confirmed to a client must not be lost. So
:meth:`Database.settle` is called before the answer: one fsync for all commits up to then, for all who wait
for it.

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
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from wherry.errors import Internal, Unavailable
from wherry.state.room import Room

Row = sqlite3.Row
WAY_OUT = (
    "put a backup in its place, or run wherryd --rebuild, which makes its rows again as far as that goes"
)
_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_PAGES_MOST = 4294967294
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's error code; errors that the Python module itself raises are about invalid values."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF


class Database:
    """The connection, its lock and its migrations. Safe to use from any thread."""

    def __init__(self, path: Path | str, migrations: Sequence[str]) -> None:
        """Open or create the file at ``path`` (mode 0600) and bring it to the newest version.

        :param migrations: scripts, oldest first; a file of version *n* has run the first *n*.
        :raises Internal: the file was written by a newer version, cannot be opened, or is damaged; the text
        says
            what to do then. All of it is read for that: 20 ms for 20 MB.
        """
        self._lock = threading.RLock()
        self._depth = 0
        self._settling = threading.Lock()
        self._settled = {False: 0, True: 0}
        """Changes that survive a power cut, by ``rows_only``."""
        self._log = -1
        self._path = path
        self._room = None if str(path) == ":memory:" else Room(Path(path))
        try:
            if self._room is not None:
                Path(path).touch(mode=0o600, exist_ok=True)
                self._room.before_opening()
            self._connection = sqlite3.connect(
                str(path), isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._connection.row_factory = sqlite3.Row
            self._open(migrations)
        except sqlite3.DatabaseError as e:
            if _code(e) in _DAMAGED[:2]:
                raise Internal(f"cannot open database {path}: it is damaged: {e}: {WAY_OUT}") from e
            raise Internal(f"cannot open database {path}: {e}") from e
        except OSError as e:
            raise Internal(f"cannot open database {path}: {e}") from e

    def _open(self, migrations: Sequence[str]) -> None:
        try:
            if self._room is not None and self._room.is_full():
                # Then the log's index is in memory: there is no room for a file.
                self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._check()
            self._migrate(migrations)
            if self._room is not None:
                self._connection.execute(f"PRAGMA wal_autocheckpoint={self._room.checkpoint}")
                self._connection.execute("BEGIN IMMEDIATE")  # this creates the log
                self._connection.execute("COMMIT")
                self._room.after_opening()
                self._log = self._room.open_log()
        except BaseException:
            self._connection.close()  # This rolls back and releases the lock.
            raise

    def _check(self) -> None:
        rows = self._connection.execute("PRAGMA quick_check(3)").fetchall()
        found = "; ".join(str(row[0]).splitlines()[0] for row in rows)
        if found != "ok":
            raise Internal(f"cannot open database {self._path}: it is damaged: {found}: {WAY_OUT}")

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
    def transaction(self, *, growing: bool = False) -> Iterator[sqlite3.Connection]:
        """All statements inside are carried out, or none. Nests: the outermost one commits.

        :param growing: whether it adds something that may wait until there is room.
        :raises Unavailable: the disk is full.
        """
        with self._lock, self._explained(), self._bounded(growing=growing):
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
    def _bounded(self, *, growing: bool) -> Iterator[None]:
        """Limit the log. On a nearly full disk, transactions that add data are written into the database at
        once; on a full disk they may only use existing pages. So the log can always be emptied, and then be
        used again by removals.

        :raises Unavailable: it could not be emptied when the disk became full; the rest of it is for
            removals.
        """
        room = self._room
        if not growing or room is None or self._depth or not room.is_scarce():
            yield
            return
        held = self._checkpoint()
        if not room.is_full():
            yield
            self._checkpoint()
            return
        if held > room.bound:
            raise Unavailable("cannot write to the database: no space left on device")
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count={pages}")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA max_page_count={_PAGES_MOST}")

    def _checkpoint(self) -> int:
        """The number of frames in the log that could not be written into the database."""
        _, frames, written = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(frames - written)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except sqlite3.DatabaseError as e:
            if _code(e) == sqlite3.SQLITE_FULL:
                raise Unavailable(f"cannot write to the database: {e}: no space left on device") from e
            if _code(e) in _DAMAGED:
                raise Internal(f"cannot read the database: it is damaged: {e}: {WAY_OUT}") from e
            if _code(e) in _DISK:
                raise Unavailable(f"cannot use the database: {e}: its disk fails") from e
            raise

    @contextmanager
    def raw(self) -> Iterator[sqlite3.Connection]:
        """The connection itself, for code that repairs a database; nobody else may use it meanwhile."""
        with self._lock, self._explained():
            yield self._connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the number of rows it changed. :raises Unavailable: the disk is full."""
        with self._lock, self._explained(), self._bounded(growing=sql.startswith("INSERT")):
            return self._connection.execute(sql, parameters).rowcount

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self._lock, self._explained():
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        with self._lock, self._explained():
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
            return row

    def is_settled(self, *, rows_only: bool = False) -> bool:
        """Whether :meth:`settle` has nothing to do;
        transactions of others that are still open do not count."""
        return self._log < 0 or self._settled[rows_only] >= self._connection.total_changes

    def settle(self, *, rows_only: bool = False) -> None:
        """Returns when every commit up to now survives a power cut.

        :param rows_only: rows alone, which is quicker; else what was done before to directories of the file
        system
            as well, as far as its journal keeps an order: of what goes, the mark must not be lost if the row
            is.
        :raises Internal: the disk fails.
        """
        with self._lock:  # no transaction is open
            wanted = self._connection.total_changes
        with self._settling:
            if self._log < 0 or self._settled[rows_only] >= wanted:
                return  # another caller's sync came after these commits
            with self._lock:
                covered = self._connection.total_changes
            try:
                if rows_only:
                    os.fdatasync(self._log)
                else:
                    # fsync commits the journal up to the last change of this file's inode. Two writes within
                    # one tick of the clock change it once: the second, and what was done between them to
                    # directories, could be left out.
                    os.utime(self._log)
                    os.fsync(self._log)
            except OSError as e:
                raise Internal(f"cannot make the database durable: {e.strerror}") from e
            self._settled[True] = covered
            if not rows_only:
                self._settled[False] = covered

    def close(self) -> None:
        """Checkpoint and close. Using the database afterwards raises ``sqlite3.ProgrammingError``."""
        with self._lock:
            if self._room is not None:
                self._room.before_closing()
            self._connection.close()
            if self._log >= 0:
                os.close(self._log)
                self._log = -1

    def copy_to(self, path: Path) -> None:
        """Copy it into a new file, as it is at one moment (sqlite.org/backup.html).

        :raises sqlite3.Error: there is no room.
        """
        with closing(sqlite3.connect(path)) as target:
            with self._lock:
                self._connection.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # a single file, without others beside it
