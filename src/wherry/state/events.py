"""Events as rows, so that ``--since`` also works after a restart of the daemon.

events(seq, time, type, action, actor, scope, attributes, initiator)
    time        nanoseconds since the epoch
    attributes  JSON object of strings
    initiator   JSON of model.events.Initiator, NULL for what happened by itself (since version 2)
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from wherry.model import typed
from wherry.model.base import decode
from wherry.model.events import Event, Initiator
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

ADD_INITIATOR = "ALTER TABLE events ADD COLUMN initiator BLOB;"

KEEP = 100_000
"""The most rows; as new ones are added, the oldest are dropped, a few at a time."""
KEEP_DAYS = 30
_NEWEST = 256
"""Docker's daemon keeps so many events."""
_PAGE = 500
_DAY = 24 * 3600 * 10**9


class EventLog:
    """:param keep: the most rows. :param keep_days: the greatest age; 0: no limit."""

    def __init__(self, db: Database, *, keep: int = KEEP, keep_days: int = KEEP_DAYS) -> None:
        self._db = db
        self._keep = keep
        self._keep_days = keep_days

    def append(self, event: Event) -> None:
        with self._db.transaction(growing=True) as connection:
            cursor = connection.execute(
                "INSERT INTO events (time, type, action, actor, scope, attributes, initiator)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    event.time,
                    event.type,
                    event.action,
                    event.actor,
                    event.scope,
                    msgspec.json.encode(event.attributes),
                    None if event.initiator is None else msgspec.json.encode(event.initiator),
                ),
            )
            newest = cursor.lastrowid or 0
            if newest % 256 == 0:
                connection.execute("DELETE FROM events WHERE seq <= ?", (newest - self._keep,))
                if self._keep_days:
                    oldest = event.time - self._keep_days * _DAY
                    connection.execute("DELETE FROM events WHERE time < ?", (oldest,))

    def between(self, since: int | None, until: int | None) -> Iterator[Event]:
        """Events with ``since <= time <= until`` (nanoseconds) that exist now, oldest first. With
        ``until`` alone only the newest of all are looked at, as many as Docker remembers.

        They are read a page at a time: there may be a hundred thousand.
        """
        last = self._db.one("SELECT max(seq) AS last FROM events")
        end = (last["last"] if last is not None else None) or 0
        seq = max(0, end - _NEWEST) if since is None and until is not None else 0
        while True:
            rows = self._db.all(
                "SELECT * FROM events WHERE seq > ? AND seq <= ? AND time >= ? AND time <= ?"
                " ORDER BY seq LIMIT ?",
                (seq, end, since or 0, until if until is not None else 1 << 62, _PAGE),
            )
            yield from map(_event, rows)
            if len(rows) < _PAGE:
                return
            seq = rows[-1]["seq"]


def _event(row: Row) -> Event:
    return Event(
        time=row["time"],
        type=row["type"],
        action=row["action"],
        actor=row["actor"],
        scope=row["scope"],
        attributes=typed.from_json(row["attributes"], dict[str, str]),
        initiator=None if row["initiator"] is None else decode(row["initiator"], Initiator),
    )
