"""Transactions of the hub's statements on Django's connection, one for each thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import IntegrityError, OperationalError, connection, transaction

from wherry.hub.store.sql import Broken, DatabaseAway, Row, Tx

T = TypeVar("T")
_POSTGRES = {"/*locked*/": "FOR UPDATE SKIP LOCKED", "/*shared of l*/": "FOR SHARE OF l"}


class DjangoTx:
    """Django's connection, as :class:`~wherry.hub.store.sql.Tx`."""

    def one(self, statement: str, *values: Any) -> Row | None:
        with self._executed(statement, values) as cursor:
            row: Row | None = cursor.fetchone()
            return row

    def all(self, statement: str, *values: Any) -> list[Row]:
        with self._executed(statement, values) as cursor:
            return list(cursor.fetchall())

    def run(self, statement: str, *values: Any) -> int:
        with self._executed(statement, values) as cursor:
            return int(cursor.rowcount)

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        for row in values:
            self.run(statement, *row)

    @contextmanager
    def _executed(self, statement: str, values: Sequence[Any]) -> Iterator[Any]:
        if connection.vendor == "postgresql":
            for word, meaning in _POSTGRES.items():
                statement = statement.replace(word, meaning)
        with connection.cursor() as cursor:
            try:
                cursor.execute(statement.replace("%", "%%").replace("?", "%s"), list(values))
            except IntegrityError as e:
                raise Broken(str(e)) from e
            yield cursor


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as e:
        raise DatabaseAway(f"the database does not answer: {e}") from e


def read(work: Callable[[Tx], T]) -> T:
    """Read rows, each statement on its own. :raises DatabaseAway:"""
    with _away():
        return work(DjangoTx())


def write(work: Callable[[Tx], T]) -> T:
    """Change rows in one transaction. :raises DatabaseAway:"""
    with _away(), transaction.atomic():
        return work(DjangoTx())
