"""PostgreSQL, for more than one machine: psycopg 3, a pool of connections, read committed.

Work runs on threads of a separate class, with one connection each. After a deadlock or a serialisation
failure the work is repeated. A broken connection is replaced, and the work is repeated once if its commit had
not begun.
"""

from __future__ import annotations

import functools
import queue
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo, errors

from wherry import threads
from wherry.errors import InvalidArgument
from wherry.hub.store.sql import Broken, DatabaseAway, Row, Tx

T = TypeVar("T")
CONNECTIONS = 12
_TRIES = 8
_PATIENCE = "-c lock_timeout=20s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
_WORDS = {"/*locked*/": "FOR UPDATE SKIP LOCKED", "/*shared of l*/": "FOR SHARE OF l"}


@functools.lru_cache(maxsize=512)
def translate(statement: str) -> str:
    """The statement in psycopg's syntax."""
    for word, meaning in _WORDS.items():
        statement = statement.replace(word, meaning)
    return statement.replace("%", "%%").replace("?", "%s")


class PostgresTx:
    """A connection with a transaction, as :class:`~wherry.hub.store.sql.Tx`."""

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> None:
        self._cursor = cursor

    def one(self, statement: str, *values: Any) -> Row | None:
        return self._execute(statement, values).fetchone()

    def all(self, statement: str, *values: Any) -> list[Row]:
        return list(self._execute(statement, values).fetchall())

    def run(self, statement: str, *values: Any) -> int:
        return self._execute(statement, values).rowcount

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        if values:
            with _broken():
                self._cursor.executemany(translate(statement).encode(), values)

    def _execute(self, statement: str, values: Sequence[Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        with _broken():
            return self._cursor.execute(translate(statement).encode(), values)


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except errors.IntegrityError as e:
        raise Broken(str(e)) from e


class Postgres:
    """A PostgreSQL database; see the module's docstring."""

    engine = "postgres"

    def __init__(self, url: str, connections: int = CONNECTIONS) -> None:
        """:raises DatabaseAway: the database does not answer, or refuses the connection."""
        try:
            self._url = conninfo.make_conninfo(url, options=_PATIENCE, connect_timeout=10)
        except psycopg.Error as e:
            raise InvalidArgument(f"database: {str(e).strip()}") from e
        self._threads = threads.Pool("hub-rows", connections)
        self._idle: queue.SimpleQueue[psycopg.Connection[tuple[Any, ...]]] = queue.SimpleQueue()
        self._idle.put(self._connect())

    def describe(self) -> str:
        parts = conninfo.conninfo_to_dict(self._url)
        return f"PostgreSQL {parts.get('host', 'local')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        try:
            return psycopg.connect(self._url)
        except psycopg.Error as e:
            raise DatabaseAway(f"cannot reach the database: {str(e).strip()}") from e

    async def read(self, work: Callable[[Tx], T]) -> T:
        # Read committed gives each statement its own snapshot, so a transaction around them adds nothing.
        return await self._threads(self._carry_out, work, True)

    scan = read

    async def write(self, work: Callable[[Tx], T]) -> T:
        return await self._threads.to_end(self._carry_out, work)

    def _carry_out(self, work: Callable[[Tx], T], reads: bool = False) -> T:
        """Run the work on a thread, in a transaction unless it only ``reads``; repeat it if the database asks
        for that."""
        for attempt in range(_TRIES):
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._connect()
            committing = False
            try:
                connection.autocommit = reads
                with connection.cursor() as cursor:
                    result = work(PostgresTx(cursor))
                    committing = not reads
                    if committing:
                        connection.commit()
            except (errors.DeadlockDetected, errors.SerializationFailure) as e:
                self._give_back(connection)
                if attempt == _TRIES - 1:
                    raise DatabaseAway(f"the database is too busy: {e}") from e
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # random, to avoid another collision
            except psycopg.OperationalError as e:
                lost = connection.closed
                self._give_back(connection)
                # If the response to a commit is lost, the commit may have happened. The client must check.
                if not lost or committing or attempt > 1:
                    raise DatabaseAway(f"the database does not answer: {str(e).strip()}") from e
            except BaseException:
                self._give_back(connection)
                raise
            else:
                self._idle.put(connection)
                return result
        raise DatabaseAway("the database is too busy")

    def _give_back(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        try:
            connection.rollback()
        except psycopg.Error:
            pass
        if connection.closed:
            # A restart of the server breaks all connections, so close the others too.
            self._forget()
        else:
            self._idle.put(connection)

    def _forget(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    async def close(self) -> None:
        await self._threads(self._forget)
