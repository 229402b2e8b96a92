"""What happened, kept as rows so that ``--since`` reaches back across restarts.

events(seq, time, type, action, actor, scope, attributes)
    time        nanoseconds since the epoch
    attributes  JSON object of strings
"""

from __future__ import annotations

import msgspec

from wherry.model.events import Event
from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    type TEXT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    scope TEXT NOT NULL,
    attributes BLOB NOT NULL
);
CREATE INDEX events_by_time ON events (time);
"""

KEEP = 100_000
"""Rows; older ones are dropped, a few at a time, as new ones come."""


class EventLog:
    def __init__(self, db: Database) -> None:
        self._db = db

    def append(self, event: Event) -> None:
        with self._db.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO events (time, type, action, actor, scope, attributes) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    event.time,
                    event.type,
                    event.action,
                    event.actor,
                    event.scope,
                    msgspec.json.encode(event.attributes),
                ),
            )
            newest = cursor.lastrowid or 0
            if newest % 256 == 0:
                connection.execute("DELETE FROM events WHERE seq <= ?", (newest - KEEP,))

    def between(self, since: int | None, until: int | None) -> list[Event]:
        """Events with ``since <= time <= until`` (nanoseconds), oldest first."""
        rows = self._db.all(
            "SELECT * FROM events WHERE time >= ? AND time <= ? ORDER BY seq",
            (since or 0, until if until is not None else 1 << 62),
        )
        return [_event(row) for row in rows]


def _event(row: Row) -> Event:
    return Event(
        time=row["time"],
        type=row["type"],
        action=row["action"],
        actor=row["actor"],
        scope=row["scope"],
        attributes=msgspec.json.decode(row["attributes"], type=dict[str, str]),
    )
