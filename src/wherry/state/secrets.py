"""Secrets, encrypted: the values are useless without the key, which is not in this file.

secrets(id, name, version, created, updated, labels, sealed)
    name     unique; version counts changes; created and updated nanoseconds since the epoch
    labels   a JSON object; sealed the value as :mod:`wherry.volumes.secrets` encrypts it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from wherry.model import typed
from wherry.state.database import Database, Row

TABLES = """
CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    labels BLOB NOT NULL,
    sealed BLOB NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = "id, name, version, created, updated, labels"


@dataclass(frozen=True)
class SecretRow:
    """All fields except the value."""

    id: str
    name: str
    version: int
    created: int
    updated: int
    labels: Mapping[str, str]


class Secrets:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def insert(self, row: SecretRow, sealed: bytes) -> bool:
        """:returns: False if the name is taken."""
        labels = msgspec.json.encode(dict(row.labels))
        parameters = (row.id, row.name, row.version, row.created, row.updated, labels, sealed)
        statement = "INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return self._db.execute(statement, parameters) == 1

    def find(self, wanted: str) -> list[SecretRow]:
        """By id, else by name, else all whose id begins with it."""
        for condition in ("id = ?", "name = ?", "substr(id, 1, length(?)) = ?"):
            given = (wanted,) * condition.count("?")
            found = self._db.all(f"SELECT {_COLUMNS} FROM secrets WHERE {condition}", given)
            if found:
                return [_secret(row) for row in found]
        return []

    def all(self) -> list[SecretRow]:
        """Every secret, by name."""
        return [_secret(row) for row in self._db.all(f"SELECT {_COLUMNS} FROM secrets ORDER BY name")]

    def sealed(self, secret_id: str) -> bytes | None:
        row = self._db.one("SELECT sealed FROM secrets WHERE id = ?", (secret_id,))
        return None if row is None else bytes(row["sealed"])

    def relabel(self, secret_id: str, version: int, labels: Mapping[str, str], now: int) -> bool:
        """:returns: False if the secret's version is not ``version`` any more."""
        statement = "UPDATE secrets SET labels = ?, version = ?, updated = ? WHERE id = ? AND version = ?"
        parameters = (msgspec.json.encode(dict(labels)), version + 1, now, secret_id, version)
        return self._db.execute(statement, parameters) == 1

    def delete(self, secret_id: str) -> None:
        self._db.execute("DELETE FROM secrets WHERE id = ?", (secret_id,))


def _secret(row: Row) -> SecretRow:
    labels = typed.from_json(row["labels"], dict[str, str])
    return SecretRow(row["id"], row["name"], row["version"], row["created"], row["updated"], labels)
