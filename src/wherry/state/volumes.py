"""Named volumes and which containers use them.

volumes(name, driver, created, options, labels)
    name     unique; created nanoseconds since the epoch; options and labels JSON objects of strings
volume_users(name, container_id)
    a container that was made with the volume, running or not
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

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


@dataclass(frozen=True)
class VolumeRow:
    name: str
    driver: str
    created: int
    options: Mapping[str, str]
    labels: Mapping[str, str]


class Volumes:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, row: VolumeRow, user: str | None = None) -> bool:
        """Insert a volume, with its first user where there is one. :returns: False if the name is taken."""
        encode = msgspec.json.encode
        parameters = (row.name, row.driver, row.created, encode(dict(row.options)), encode(dict(row.labels)))
        statement = "INSERT INTO volumes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        with self._db.transaction():
            new = self._db.execute(statement, parameters) == 1
            if new and user is not None:
                self.add_user(row.name, user)
        return new

    def find(self, name: str) -> VolumeRow | None:
        row = self._db.one("SELECT * FROM volumes WHERE name = ?", (name,))
        return None if row is None else _volume(row)

    def all(self) -> list[VolumeRow]:
        """Every volume, by name."""
        return [_volume(r) for r in self._db.all("SELECT * FROM volumes ORDER BY name")]

    def delete_unused(self, name: str) -> bool:
        """Delete the row of a volume nobody uses. :returns: False if someone does."""
        try:
            self._db.execute("DELETE FROM volumes WHERE name = ?", (name,))
        except sqlite3.IntegrityError:
            return False
        return True

    def add_user(self, name: str, container_id: str) -> bool:
        """:returns: False if there is no such volume."""
        try:
            self._db.execute(
                "INSERT INTO volume_users VALUES (?, ?) ON CONFLICT DO NOTHING", (name, container_id)
            )
        except sqlite3.IntegrityError:
            return False
        return True

    def remove_user(self, name: str, container_id: str) -> None:
        self._db.execute("DELETE FROM volume_users WHERE name = ? AND container_id = ?", (name, container_id))

    def users(self, name: str) -> list[str]:
        """Container ids, sorted."""
        query = "SELECT container_id FROM volume_users WHERE name = ? ORDER BY container_id"
        return [r["container_id"] for r in self._db.all(query, (name,))]

    def used_by(self, container_id: str) -> list[str]:
        """Names of the volumes of a container, sorted."""
        query = "SELECT name FROM volume_users WHERE container_id = ? ORDER BY name"
        return [r["name"] for r in self._db.all(query, (container_id,))]


def _volume(row: Row) -> VolumeRow:
    decode = msgspec.json.decode
    return VolumeRow(
        row["name"],
        row["driver"],
        row["created"],
        decode(row["options"], type=dict[str, str]),
        decode(row["labels"], type=dict[str, str]),
    )
