"""The embedded database: one SQLite file in WAL mode.

    <root>/hub.db (-wal, -shm)     mode 0600

Readers never wait. Single rows are read on the loop's thread: this takes 7 µs, on another thread 130 µs. One
thread writes. Work that arrives during a commit is done together in the next transaction, each piece in its
own savepoint, so that eight clients share one fsync. ``synchronous`` is FULL: confirmed changes survive a
power cut. Other processes (the command line, other roles) use SQLite's lock.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from wherry import threads
from wherry.errors import Internal
from wherry.hub.store.sql import Broken, DatabaseAway, Row, Tx

T = TypeVar("T")
_TURN = 30_000
"""Milliseconds to wait for another process that writes."""
_TOGETHER = 64
"""The largest number of pieces of work in one commit."""
_Piece = tuple[Callable[[Tx], Any], "Future[Any]"]


class SqliteTx:
    """A connection with a transaction, as :class:`~wherry.hub.store.sql.Tx`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, statement: str, *values: Any) -> Row | None:
        try:
            row: Row | None = self._connection.execute(statement, values).fetchone()
        except sqlite3.IntegrityError as e:
            raise Broken(str(e)) from e
        return row

    def all(self, statement: str, *values: Any) -> list[Row]:
        return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: Any) -> int:
        try:
            return self._connection.execute(statement, values).rowcount
        except sqlite3.IntegrityError as e:
            raise Broken(str(e)) from e

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(statement, values)
        except sqlite3.IntegrityError as e:
            raise Broken(str(e)) from e


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the common pragmas. The file is created if it does not exist."""
    try:
        if not path.exists():
            path.touch(mode=0o600)
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_TURN / 1000, cached_statements=256
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_TURN}"):
            connection.execute(f"PRAGMA {pragma}")
    except (sqlite3.DatabaseError, OSError) as e:
        raise Internal(f"cannot open database {path}: {e}") from e
    return connection


class Sqlite:
    """An SQLite database; see the module's docstring."""

    engine = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = connect(path)
        self._writer = connect(path)
        self._reading = SqliteTx(self._reader)
        self._threads = threads.Pool("hub-rows", 1)
        self._lock = threading.Lock()
        self._line: deque[_Piece] = deque()
        self._serving = False

    def describe(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}, {self._path}"

    async def read(self, work: Callable[[Tx], T]) -> T:
        try:
            return work(self._reading)
        except sqlite3.OperationalError as e:
            raise DatabaseAway(f"cannot read the database: {e}") from e

    async def scan(self, work: Callable[[Tx], T]) -> T:
        def alone() -> T:
            connection = connect(self._path)
            try:
                connection.execute("BEGIN")
                return work(SqliteTx(connection))
            except sqlite3.OperationalError as e:
                raise DatabaseAway(f"cannot read the database: {e}") from e
            finally:
                connection.close()

        return await threads.short(alone)

    async def write(self, work: Callable[[Tx], T]) -> T:
        future: Future[T] = Future()
        with self._lock:
            self._line.append((work, future))
            begin, self._serving = not self._serving, True
        if begin:
            self._threads.submit(self._serve)
        # Shielded: started work is committed, even if the caller is cancelled.
        return await asyncio.shield(asyncio.wrap_future(future))

    def _serve(self) -> None:
        while True:
            with self._lock:
                pieces = [self._line.popleft() for _ in range(min(_TOGETHER, len(self._line)))]
                if not pieces:
                    self._serving = False
                    return
            self._together(pieces)

    def _together(self, pieces: list[_Piece]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for work, future in pieces:
                try:
                    done.append((future, self._alone(work)))
                except sqlite3.OperationalError:
                    raise
                except BaseException as e:
                    future.set_exception(e)
            self._writer.execute("COMMIT")
        except BaseException as e:
            self._give_up()
            text = f"cannot write to the database: {e}"
            for _, future in pieces:
                if not future.done():
                    future.set_exception(DatabaseAway(text))
            return
        for future, result in done:
            future.set_result(result)

    def _alone(self, work: Callable[[Tx], T]) -> T:
        self._writer.execute("SAVEPOINT piece")
        try:
            result = work(SqliteTx(self._writer))
        except BaseException:
            self._writer.execute("ROLLBACK TO piece")
            raise
        finally:
            if self._writer.in_transaction:
                self._writer.execute("RELEASE piece")
        return result

    def _give_up(self) -> None:
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.OperationalError:
                pass  # SQLite has already rolled back, for example on a full disk.

    async def close(self) -> None:
        await self.write(lambda tx: None)  # the work queued before
        self._reader.close()
        self._writer.close()
