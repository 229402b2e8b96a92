"""Named volumes and which containers use them.

volumes(id, name, driver, created, options, labels)
    id       never changes and is where the driver keeps the data; the first name, where that was free
    name     unique, may change; created nanoseconds since the epoch; options and labels JSON objects
volume_users(volume_id, container_id, since)
    a container that was made with the volume, running or not; nanoseconds since the epoch, 0 for unknown
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from wherry.model import typed
from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    driver TEXT NOT NULL,
    created INTEGER NOT NULL,
    options BLOB NOT NULL,
    labels BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE volume_users (
    name TEXT NOT NULL REFERENCES volumes (name),
    container_id TEXT NOT NULL,
    PRIMARY KEY (name, container_id)
) WITHOUT ROWID;
CREATE INDEX volume_users_by_container ON volume_users (container_id);
"""

ADD_IDS = """
CREATE TABLE volumes_with_ids (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,
    created INTEGER NOT NULL,
    options BLOB NOT NULL,
    labels BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE volume_users_with_ids (
    volume_id TEXT NOT NULL REFERENCES volumes_with_ids (id),
    container_id TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (volume_id, container_id)
) WITHOUT ROWID;
INSERT INTO volumes_with_ids SELECT name, name, driver, created, options, labels FROM volumes;
INSERT INTO volume_users_with_ids SELECT name, container_id, 0 FROM volume_users;
DROP TABLE volume_users;
DROP TABLE volumes;
ALTER TABLE volumes_with_ids RENAME TO volumes;
ALTER TABLE volume_users_with_ids RENAME TO volume_users;
CREATE INDEX volume_users_by_container ON volume_users (container_id);
"""

_TEXTS = typed.decoder(dict[str, str])
"""Made once: making it costs more than ten decodings, and lists are long."""


@dataclass(frozen=True)
class VolumeRow:
    id: str
    name: str
    driver: str
    created: int
    options: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class VolumeUser:
    """``since`` in nanoseconds since the epoch."""

    container_id: str
    since: int


class Volumes:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, row: VolumeRow, user: str | None = None) -> bool:
        """Insert a volume, with its first user if there is one. :returns: False if the name is taken."""
        encode = msgspec.json.encode
        parameters = (
            row.id,
            row.name,
            row.driver,
            row.created,
            encode(dict(row.options)),
            encode(dict(row.labels)),
        )
        statement = "INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        with self._db.transaction(growing=True):
            new = self._db.execute(statement, parameters) == 1
            if new and user is not None:
                self.add_user(row.id, user)
        return new

    def find(self, name: str) -> VolumeRow | None:
        row = self._db.one("SELECT * FROM volumes WHERE name = ?", (name,))
        return None if row is None else _volume(row)

    def by_id(self, volume_id: str) -> VolumeRow | None:
        row = self._db.one("SELECT * FROM volumes WHERE id = ?", (volume_id,))
        return None if row is None else _volume(row)

    def all(self) -> list[VolumeRow]:
        """Every volume, by name."""
        return [_volume(r) for r in self._db.all("SELECT * FROM volumes ORDER BY name")]

    def name_of(self, volume_id: str) -> str | None:
        row = self._db.one("SELECT name FROM volumes WHERE id = ?", (volume_id,))
        return None if row is None else str(row["name"])

    def rename(self, volume_id: str, name: str) -> bool:
        """:returns: False if the name is taken."""
        try:
            self._db.execute("UPDATE volumes SET name = ? WHERE id = ?", (name, volume_id))
        except sqlite3.IntegrityError:
            return False
        return True

    def delete_unused(self, volume_id: str) -> bool:
        """Delete the row of an unused volume. :returns: False if it is used."""
        try:
            self._db.execute("DELETE FROM volumes WHERE id = ?", (volume_id,))
        except sqlite3.IntegrityError:
            return False
        return True

    def add_user(self, volume_id: str, container_id: str) -> bool:
        """:returns: False if there is no such volume."""
        try:
            self._db.execute(
                "INSERT INTO volume_users VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (volume_id, container_id, time.time_ns()),
            )
        except sqlite3.IntegrityError:
            return False
        return True

    def remove_user(self, volume_id: str, container_id: str) -> None:
        self._db.execute(
            "DELETE FROM volume_users WHERE volume_id = ? AND container_id = ?", (volume_id, container_id)
        )

    def users(self, volume_id: str) -> list[VolumeUser]:
        """Sorted by container id."""
        query = "SELECT container_id, since FROM volume_users WHERE volume_id = ? ORDER BY container_id"
        return [VolumeUser(r["container_id"], r["since"]) for r in self._db.all(query, (volume_id,))]

    def used(self) -> set[str]:
        """Ids of the volumes that containers use."""
        return {r["volume_id"] for r in self._db.all("SELECT DISTINCT volume_id FROM volume_users")}


def _volume(row: Row) -> VolumeRow:
    volume_id, name, driver, created, options, labels = row
    return VolumeRow(volume_id, name, driver, created, _TEXTS.decode(options), _TEXTS.decode(labels))
