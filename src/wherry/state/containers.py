"""Containers as rows.

containers(id, name, created, record, state)
    id      64 hex digits
    name    unique, without the leading slash
    created nanoseconds since the epoch
    record  JSON of model.container.Container, written once (``update`` and ``rename`` rewrite it)
    state   JSON of model.container.ContainerState
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass

import msgspec

from wherry.errors import Conflict, InvalidArgument, NotFound, Unavailable
from wherry.model import typed
from wherry.model.container import Container, ContainerState
from wherry.state.database import WAY_OUT, Database, Row

TABLES = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    record BLOB NOT NULL,
    state BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX containers_by_created ON containers (created);
"""


@dataclass(frozen=True)
class ContainerRow:
    name: str
    record: Container
    state: ContainerState

    @property
    def id(self) -> str:
        return self.record.id


class Containers:
    """The repository. Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._record = typed.decoder(Container)
        self._state = typed.decoder(ContainerState)
        self._decoded: dict[str, tuple[bytes, Container]] = {}
        """Decoded records by id, with their encoded bytes:
        a list reads a thousand, and few of them ever change."""

    def insert(self, name: str, record: Container, state: ContainerState) -> None:
        """:raises Conflict: the name is taken, with the message that Docker's clients look for."""
        try:
            self._db.execute(
                "INSERT INTO containers VALUES (?, ?, ?, ?, ?)",
                (record.id, name, record.created, msgspec.json.encode(record), msgspec.json.encode(state)),
            )
        except sqlite3.IntegrityError as e:
            raise self._name_taken(name) from e

    def _name_taken(self, name: str) -> Conflict:
        row = self._db.one("SELECT id FROM containers WHERE name = ?", (name,))
        holder = row["id"] if row else "unknown"
        return Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )

    def rename(self, container_id: str, name: str) -> None:
        """:raises Conflict: the name is taken."""
        try:
            self._db.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container_id))
        except sqlite3.IntegrityError as e:
            raise self._name_taken(name) from e

    def set_state(self, container_id: str, state: ContainerState) -> None:
        self._db.execute(
            "UPDATE containers SET state = ? WHERE id = ?", (msgspec.json.encode(state), container_id)
        )

    def set_record(self, record: Container) -> None:
        self._db.execute(
            "UPDATE containers SET record = ? WHERE id = ?", (msgspec.json.encode(record), record.id)
        )

    def transaction(self) -> AbstractContextManager[object]:
        """Everything inside is done completely or not at all, including changes by other repositories."""
        return self._db.transaction()

    def delete(self, container_id: str) -> None:
        self._db.execute("DELETE FROM containers WHERE id = ?", (container_id,))
        self._decoded.pop(container_id, None)

    def name_exists(self, name: str) -> bool:
        return self._db.one("SELECT 1 FROM containers WHERE name = ?", (name,)) is not None

    def all(self) -> list[ContainerRow]:
        """Every container, newest first."""
        rows = self._db.all("SELECT * FROM containers ORDER BY created DESC")
        if len(self._decoded) > 2 * len(rows) + 64:
            self._decoded.clear()  # A concurrent reader may have put an entry of a removed container back.
        return [self._row(r) for r in rows]

    def find(self, wanted: str) -> ContainerRow:
        """A container by full id, name (a leading slash is ignored), or unambiguous id prefix.

        :raises InvalidArgument: the empty string. :raises NotFound: none matches.
        :raises Conflict: several ids start with it.
        """
        if not wanted:
            raise InvalidArgument('invalid name or ID supplied: ""')
        name = wanted.removeprefix("/")
        row = self._db.one(
            "SELECT * FROM containers WHERE id = ? OR name = ? ORDER BY id = ? DESC", (name, name, name)
        )
        if row is not None:
            return self._row(row)
        if name and all(c in "0123456789abcdef" for c in name):
            rows = self._db.all(
                "SELECT * FROM containers WHERE id >= ? AND id < ? LIMIT 2", (name, name + "g")
            )
            if len(rows) > 1:
                raise Conflict(f"multiple IDs found with provided prefix: {name}")
            if rows:
                return self._row(rows[0])
        raise NotFound(f"No such container: {wanted}")

    def by_id(self, container_id: str) -> ContainerRow:
        """A container by its full id only: a reference in a record must not match another container's name or
        id prefix. :raises NotFound: it is gone.
        """
        row = self._db.one("SELECT * FROM containers WHERE id = ?", (container_id,))
        if row is None:
            raise NotFound(f"No such container: {container_id}")
        return self._row(row)

    def _row(self, row: Row) -> ContainerRow:
        name, raw = row["name"], row["record"]
        try:
            held = self._decoded.get(row["id"])
            if held is None or held[0] != raw:
                held = self._decoded[row["id"]] = (raw, self._record.decode(raw))
            return ContainerRow(name, held[1], self._state.decode(row["state"]))
        except (msgspec.DecodeError, ValueError) as e:
            raise Unavailable(f"cannot read the row of container {row['id'][:12]}: {e}; {WAY_OUT}") from e
