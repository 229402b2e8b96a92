"""The interface of databases: work that runs in a transaction, in SQL that both databases understand.

Statements have ``?`` for parameters. Where the databases differ, a statement has a word that each replaces:

    /*locked*/        PostgreSQL: FOR UPDATE SKIP LOCKED. SQLite has one writer at a time and needs no lock.
    /*shared of l*/   PostgreSQL: FOR SHARE OF l.

Migrations also have ``$ID`` (a key that is never reused), ``$BYTES`` and ``$ASCII`` (comparison by bytes).
Times are whole seconds since the epoch, sizes are bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from wherry.errors import Conflict, Unavailable

T = TypeVar("T")
Row = Sequence[Any]


class Broken(Conflict):
    """A statement violates a foreign key or a unique constraint: something was deleted or added meanwhile."""


class DatabaseAway(Unavailable):
    """The database does not answer, or its disk is full; nothing was changed."""


class Tx(Protocol):
    """A running transaction: all changes are committed, or none."""

    def one(self, statement: str, *values: Any) -> Row | None:
        """The first row of the result; None if there is none."""
        ...

    def all(self, statement: str, *values: Any) -> list[Row]: ...

    def run(self, statement: str, *values: Any) -> int:
        """Execute a statement. :returns: the number of affected rows. :raises Broken:"""
        ...

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Execute a statement once for each row. :raises Broken:"""
        ...


class HubDatabase(Protocol):
    """Durable rows. ``work`` is called with a transaction, possibly on a thread, and possibly again (after a
    deadlock), so it must change nothing except rows."""

    engine: str

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Read single rows or short pages. An embedded database does this on the loop's thread."""
        ...

    async def scan(self, work: Callable[[Tx], T]) -> T:
        """Read many rows, on another thread than the loop's."""
        ...

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Change rows. When this returns the change is durable.

        :raises DatabaseAway: it is not available; nothing was changed.
        """
        ...

    async def close(self) -> None: ...

    def describe(self) -> str:
        """A description for people; without credentials."""
        ...


def now() -> int:
    return int(time.time())
