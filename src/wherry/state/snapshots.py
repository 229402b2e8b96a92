"""Snapshots as rows; their files are ``<root>/snapshots/<driver>/<base 36 of id>/``.

snapshots(id, driver, key, kind, parent, created, size, inodes)
    id      a small number, never used again: it names the directory, and short names keep mount data short
    key     unique within the driver: an active snapshot's key, a committed one's name
    kind    active, view or committed
    parent  id of the committed snapshot below, or NULL
    size    bytes on disk, inodes; measured at commit, 0 before
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from wherry.errors import Conflict, NotFound
from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    driver TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots (id),
    created INTEGER NOT NULL,
    size INTEGER NOT NULL DEFAULT 0,
    inodes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (driver, key)
);
CREATE INDEX snapshots_by_parent ON snapshots (parent);
"""

_SELECT = (
    "SELECT s.*, p.key AS parent_key FROM snapshots AS s LEFT JOIN snapshots AS p ON s.parent = p.id "
    "WHERE s.driver = ?"
)


@dataclass(frozen=True)
class SnapshotRow:
    """``created`` in nanoseconds since the epoch, ``size`` in bytes."""

    id: int
    key: str
    kind: str
    parent: int | None
    parent_key: str | None
    created: int
    size: int
    inodes: int


class Snapshots:
    """The repository of one driver's snapshots. Every method is one short transaction."""

    def __init__(self, db: Database, driver: str) -> None:
        self._db = db
        self._driver = driver

    def insert(self, key: str, kind: str, parent: str | None) -> SnapshotRow:
        """:raises Conflict: the key exists. :raises NotFound: the parent is not a committed snapshot."""
        with self._db.transaction(growing=True) as connection:
            parent_id = None if parent is None else self._committed(parent).id
            try:
                connection.execute(
                    "INSERT INTO snapshots (driver, key, kind, parent, created) VALUES (?, ?, ?, ?, ?)",
                    (self._driver, key, kind, parent_id, time.time_ns()),
                )
            except sqlite3.IntegrityError as e:
                raise Conflict(f"cannot make snapshot {key}: it exists already") from e
            return self.get(key)

    def _committed(self, key: str) -> SnapshotRow:
        row = self.get(key)
        if row.kind != "committed":
            raise NotFound(f"cannot use snapshot {key} as a parent: it is not committed")
        return row

    def find(self, key: str) -> SnapshotRow | None:
        row = self._db.one(_SELECT + " AND s.key = ?", (self._driver, key))
        return None if row is None else _row(row)

    def get(self, key: str) -> SnapshotRow:
        """:raises NotFound: no such snapshot."""
        row = self.find(key)
        if row is None:
            raise NotFound(f"no such snapshot: {key}")
        return row

    def all(self) -> list[SnapshotRow]:
        """Every snapshot, parents before their children."""
        rows = [_row(r) for r in self._db.all(_SELECT + " ORDER BY s.id", (self._driver,))]
        children: dict[int | None, list[SnapshotRow]] = {}
        for row in rows:  # a layer may be newer than its child: it gets its parent at commit
            children.setdefault(row.parent, []).append(row)
        ordered = children.get(None, [])
        for row in ordered:
            ordered += children.get(row.id, [])
        return ordered

    def chain(self, snapshot_id: int | None) -> list[int]:
        """Ids from ``snapshot_id`` down to the lowest ancestor."""
        rows = self._db.all(
            "WITH RECURSIVE up(id, parent, depth) AS ("
            " SELECT id, parent, 0 FROM snapshots WHERE id = ?"
            " UNION ALL SELECT s.id, s.parent, up.depth + 1 FROM snapshots AS s JOIN up ON s.id = up.parent"
            ") SELECT id FROM up ORDER BY depth",
            (snapshot_id,),
        )
        return [row["id"] for row in rows]

    def commit(
        self, key: str, name: str, *, size: int, inodes: int, parent: str | None, rebase: bool
    ) -> SnapshotRow:
        """Turn an active snapshot into a committed one called ``name``.

        :param rebase: put it on top of ``parent`` instead of the parent it was prepared with.
        :raises Conflict: ``name`` exists. :raises NotFound: ``key`` is not an active snapshot.
        """
        with self._db.transaction() as connection:
            row = self.get(key)
            if row.kind != "active":
                raise NotFound(f"cannot commit snapshot {key}: it is not active")
            parent_id = row.parent
            if rebase:
                parent_id = None if parent is None else self._committed(parent).id
            try:
                connection.execute(
                    "UPDATE snapshots SET key = ?, kind = 'committed', parent = ?, size = ?, inodes = ?, "
                    "created = ? WHERE id = ?",
                    (name, parent_id, size, inodes, time.time_ns(), row.id),
                )
            except sqlite3.IntegrityError as e:
                raise Conflict(f"cannot commit snapshot {name}: it exists already") from e
            return self.get(name)

    def take_up(self, row: SnapshotRow) -> None:
        """Insert a row again for a snapshot whose files exist; its parent is ``parent_key``."""
        with self._db.transaction() as connection:
            parent = None if row.parent_key is None else self._committed(row.parent_key).id
            connection.execute(
                "INSERT INTO snapshots (id, driver, key, kind, parent, created, size, inodes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(row.id, self._driver, row.key, row.kind, parent),
                    *(row.created or time.time_ns(), row.size, row.inodes),
                ),
            )

    def start_above(self, number: int) -> None:
        """From now on use only ids above ``number``."""
        with self._db.transaction() as connection:
            (last,) = connection.execute(
                "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'snapshots'"
            ).fetchone()
            if number > last:
                connection.execute("DELETE FROM sqlite_sequence WHERE name = 'snapshots'")
                connection.execute("INSERT INTO sqlite_sequence VALUES ('snapshots', ?)", (number,))

    def rename(self, old: str, new: str) -> bool:
        """Give a committed snapshot another key; ``False`` when that is taken. Its files stay where they are.

        :raises NotFound: it is not there, or not committed.
        """
        with self._db.transaction() as connection:
            row = self._committed(old)
            try:
                connection.execute("UPDATE snapshots SET key = ? WHERE id = ?", (new, row.id))
            except sqlite3.IntegrityError:
                return False
            # In the same transaction: the build cache refers to its snapshots by their keys.
            connection.execute("UPDATE build_records SET snapshot = ? WHERE snapshot = ?", (new, old))
            return True

    def delete(self, key: str) -> int:
        """Delete a snapshot's row and return its id.

        :raises NotFound: no such snapshot. :raises Conflict: it has children.
        """
        with self._db.transaction() as connection:
            row = self.get(key)
            try:
                connection.execute("DELETE FROM snapshots WHERE id = ?", (row.id,))
            except sqlite3.IntegrityError as e:
                raise Conflict(f"cannot remove snapshot {key}: other snapshots are based on it") from e
            return row.id

    def delete_unreferenced(self) -> list[tuple[int, int]]:
        """Delete the rows of all committed snapshots that no image, lease, build or other snapshot needs.

        Returns the id and the size in bytes of each.
        """
        gone: list[tuple[int, int]] = []
        with self._db.transaction() as connection:
            while True:
                rows = connection.execute(
                    "DELETE FROM snapshots WHERE driver = ? AND kind = 'committed' "
                    "AND key NOT IN (SELECT chain_id FROM image_snapshots) "
                    "AND key NOT IN (SELECT key FROM lease_items WHERE kind = 'snapshot') "
                    "AND key NOT IN (SELECT snapshot FROM build_records WHERE snapshot IS NOT NULL) "
                    "AND id NOT IN (SELECT parent FROM snapshots WHERE parent IS NOT NULL) "
                    "RETURNING id, size",
                    (self._driver,),
                ).fetchall()
                if not rows:
                    return gone
                gone += [(row["id"], row["size"]) for row in rows]


def _row(row: Row) -> SnapshotRow:
    return SnapshotRow(
        row["id"],
        row["key"],
        row["kind"],
        row["parent"],
        row["parent_key"],
        row["created"],
        row["size"],
        row["inodes"],
    )
