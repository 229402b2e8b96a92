"""Snapshots of volumes, and when the next ones are due.

volume_snapshots(id, volume_id, name, created, origin, frozen)
    id       where the data are; name unique in its volume; created nanoseconds since the epoch
    origin   ``manual``, ``schedule`` or ``restore`` (what a restore replaced)
    frozen   whether its writers were held still
volume_schedules(volume_id, every, keep, freeze, due)
    every seconds; keep that many of the schedule's own; due nanoseconds since the epoch

Both go with their volume.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE volume_snapshots (
    id TEXT PRIMARY KEY,
    volume_id TEXT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created INTEGER NOT NULL,
    origin TEXT NOT NULL,
    frozen INTEGER NOT NULL,
    UNIQUE (volume_id, name)
) WITHOUT ROWID;
CREATE TABLE volume_schedules (
    volume_id TEXT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    every INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    freeze INTEGER NOT NULL,
    due INTEGER NOT NULL
) WITHOUT ROWID;
"""

MANUAL, SCHEDULE, RESTORE = "manual", "schedule", "restore"


@dataclass(frozen=True)
class VolumeSnapshotRow:
    id: str
    volume_id: str
    name: str
    created: int
    origin: str
    frozen: bool


@dataclass(frozen=True)
class ScheduleRow:
    volume_id: str
    every: int
    keep: int
    freeze: bool
    due: int


class VolumeSnapshots:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, row: VolumeSnapshotRow) -> bool:
        """:returns: False if the name is taken, or the volume is gone."""
        values = (row.id, row.volume_id, row.name, row.created, row.origin, int(row.frozen))
        try:
            self._db.execute("INSERT INTO volume_snapshots VALUES (?, ?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            return False
        return True

    def of(self, volume_id: str) -> list[VolumeSnapshotRow]:
        """Oldest first."""
        query = "SELECT * FROM volume_snapshots WHERE volume_id = ? ORDER BY created, id"
        return [_snapshot(r) for r in self._db.all(query, (volume_id,))]

    def find(self, volume_id: str, name: str) -> VolumeSnapshotRow | None:
        query = "SELECT * FROM volume_snapshots WHERE volume_id = ? AND name = ?"
        row = self._db.one(query, (volume_id, name))
        return None if row is None else _snapshot(row)

    def ids(self) -> set[tuple[str, str]]:
        """Volume id and snapshot id of all of them."""
        rows = self._db.all("SELECT volume_id, id FROM volume_snapshots")
        return {(r["volume_id"], r["id"]) for r in rows}

    def delete(self, snapshot_id: str) -> None:
        self._db.execute("DELETE FROM volume_snapshots WHERE id = ?", (snapshot_id,))

    # ---- schedules -------------------------------------------------------------------------------------

    def schedule(self, row: ScheduleRow) -> bool:
        """Set a volume's schedule. :returns: False if the volume is gone."""
        values = (row.volume_id, row.every, row.keep, int(row.freeze), row.due)
        statement = "INSERT OR REPLACE INTO volume_schedules VALUES (?, ?, ?, ?, ?)"
        try:
            self._db.execute(statement, values)
        except sqlite3.IntegrityError:
            return False
        return True

    def unschedule(self, volume_id: str) -> None:
        self._db.execute("DELETE FROM volume_schedules WHERE volume_id = ?", (volume_id,))

    def schedule_of(self, volume_id: str) -> ScheduleRow | None:
        row = self._db.one("SELECT * FROM volume_schedules WHERE volume_id = ?", (volume_id,))
        return None if row is None else _schedule(row)

    def schedules(self) -> list[ScheduleRow]:
        """The next one due first."""
        return [_schedule(r) for r in self._db.all("SELECT * FROM volume_schedules ORDER BY due")]


def _snapshot(row: Row) -> VolumeSnapshotRow:
    return VolumeSnapshotRow(
        row["id"], row["volume_id"], row["name"], row["created"], row["origin"], bool(row["frozen"])
    )


def _schedule(row: Row) -> ScheduleRow:
    return ScheduleRow(row["volume_id"], row["every"], row["keep"], bool(row["freeze"]), row["due"])
