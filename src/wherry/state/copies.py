"""Check a database, copy one that is in use, and read what is left of a damaged one.

The copy is SQLite's own backup (sqlite.org/backup.html): one consistent state of the file, even if others
write meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from wherry.errors import Internal, Unavailable
from wherry.state.database import Database

_BESIDE = ("-wal", "-shm", "-journal")


def files_of(path: Path) -> list[Path]:
    """The existing files of a database."""
    return [p for p in (path, *(path.with_name(path.name + end) for end in _BESIDE)) if p.exists()]


def problem(path: Path) -> str:
    """What is wrong with a database file, as text; empty if it is intact.
    Reads all of it (20 ms for 20 MB)."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            rows = connection.execute("PRAGMA quick_check(3)").fetchall()
    except sqlite3.DatabaseError as e:
        return str(e)
    found = "; ".join(str(row[0]).splitlines()[0] for row in rows)
    return "" if found == "ok" else found


def copy(db: Database, to: Path) -> None:
    """Copy a database that is in use, completely or not at all; ``to`` is replaced.

    :raises Unavailable: no room. :raises Internal: it cannot be read.
    """
    temporary = to.with_name(f".{to.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db.copy_to(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(to)
    except (sqlite3.Error, OSError) as e:
        full = isinstance(e, OSError) or getattr(e, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        raise (Unavailable if full else Internal)(f"cannot copy the database to {to}: {e}") from e
    finally:
        for left in files_of(temporary):
            left.unlink(missing_ok=True)


def salvage(target: Database, sources: Sequence[Path]) -> list[str]:
    """Fill an empty database with what can be read from others, the best one first. A table is taken from the
    next one only if the former one could not be read to its end. Rows whose parents are missing are left out.

    :returns: lines that say what was read from which database.
    """
    lines: list[str] = []
    with _unchecked(target) as connection:
        wanted = set(_tables(connection))
        for source in sources:
            if not wanted:
                break
            counts, wanted = _read(connection, source, wanted)
            found = ", ".join(f"{count} {table}" for table, count in counts.items() if count)
            lines.append(f"read of {source}: {found or 'nothing'}")
        _drop_dangling(connection)
    return lines


@contextmanager
def _unchecked(target: Database) -> Iterator[sqlite3.Connection]:
    with target.raw() as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            connection.execute("PRAGMA foreign_keys=ON")


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [row[0] for row in connection.execute(query)]


def _read(target: sqlite3.Connection, source: Path, wanted: set[str]) -> tuple[dict[str, int], set[str]]:
    """Copy tables row by row.
    Returns the number of rows of each, and the tables that could not be read to the end."""
    counts: dict[str, int] = {}
    broken: set[str] = set()
    with closing(sqlite3.connect(f"file:{source}?mode=ro&immutable=1", uri=True)) as old:
        for table in sorted(wanted):
            counts[table] = 0
            try:
                columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
                names = ", ".join(columns)
                marks = ", ".join("?" * len(columns))
                for row in old.execute(f"SELECT {names} FROM {table}"):
                    with suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
                        statement = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"
                        counts[table] += target.execute(statement, tuple(row)).rowcount
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                broken.add(table)  # the rows read before are kept
    return counts, broken


def _drop_dangling(connection: sqlite3.Connection) -> None:
    """Delete rows whose parents could not be read."""
    while True:
        rows: Iterable[sqlite3.Row] = connection.execute("PRAGMA foreign_key_check").fetchall()
        found = [(row[0], row[1]) for row in rows]
        if not found:
            return
        for table, rowid in found:
            if rowid is not None:
                connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
            else:
                _drop_without_rowid(connection, table)


def _drop_without_rowid(connection: sqlite3.Connection, table: str) -> None:
    """These tables have no row numbers to identify the wrong row: check every reference of the table."""
    for reference in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
        parent, column, key = reference[2], reference[3], reference[4]
        connection.execute(
            f"DELETE FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {parent})"
        )
