"""Blobs and leases as rows; the bytes are files below ``<root>/content``.

content(digest, size, media_type, created)
    digest      sha256:…; a row exists only for a file that is whole and verified
    size        bytes
    media_type  as its describer named it; informative, never trusted
    created     nanoseconds since the epoch
leases(id, created, why)
lease_items(lease, kind, key)
    kind        content (key is a digest) or snapshot (key is a snapshot's key or name)
    Rows here keep their objects from the collector; a lease's rows go with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from wherry.model.digest import Digest
from wherry.state.database import Database

TABLES = """
CREATE TABLE content (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    why TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE lease_items (
    lease TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (lease, kind, key)
) WITHOUT ROWID;
CREATE INDEX lease_items_by_key ON lease_items (kind, key);
"""

_UNREFERENCED = (
    "WHERE digest NOT IN (SELECT digest FROM image_content) "
    "AND digest NOT IN (SELECT key FROM lease_items WHERE kind = 'content')"
)


@dataclass(frozen=True)
class BlobRow:
    """``size`` in bytes, ``created`` in nanoseconds since the epoch."""

    digest: Digest
    size: int
    media_type: str
    created: int


class Contents:
    """The repository of blobs. Every method is one short transaction.

    :ivar generation: changes whenever a blob may have come or gone. What is concluded from which blobs
    there are
        holds for the generation that was read before.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.generation = 0

    def insert(self, digest: Digest, size: int, media_type: str, *, lease: str | None = None) -> None:
        """Record a complete blob, and lease it in the same transaction. Known blobs are kept."""
        with self._db.transaction(growing=True) as connection:
            # Within the transaction: who reads it now waits for the end of this before it reads a row.
            self.generation += 1
            connection.execute(
                "INSERT INTO content VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (digest, size, media_type, time.time_ns()),
            )
            if lease is not None:
                connection.execute(
                    "INSERT INTO lease_items VALUES (?, 'content', ?) ON CONFLICT DO NOTHING", (lease, digest)
                )

    def lease(self, digest: Digest, lease: str) -> bool:
        """Lease a blob if it is known; ``False`` if not. No collection can happen in between."""
        return (
            self._db.execute(
                "INSERT INTO lease_items SELECT ?, 'content', digest FROM content WHERE digest = ? "
                "ON CONFLICT DO UPDATE SET key = excluded.key",
                (lease, digest),
            )
            > 0
        )

    def get(self, digest: Digest) -> BlobRow | None:
        row = self._db.one("SELECT * FROM content WHERE digest = ?", (digest,))
        return None if row is None else BlobRow(**dict(row))

    def delete(self, digest: Digest) -> bool:
        """Delete a blob's row; ``False`` if there was none."""
        return self._deleted("DELETE FROM content WHERE digest = ?", digest)

    def delete_unleased(self, digest: Digest) -> bool:
        """Delete a blob's row unless a lease keeps it; ``False`` if a lease does, or there was no row."""
        statement = (
            "DELETE FROM content WHERE digest = ? "
            "AND digest NOT IN (SELECT key FROM lease_items WHERE kind = 'content')"
        )
        return self._deleted(statement, digest)

    def _deleted(self, statement: str, digest: Digest) -> bool:
        with self._db.transaction() as connection:
            self.generation += 1
            return connection.execute(statement, (digest,)).rowcount > 0

    def all(self) -> list[BlobRow]:
        return [BlobRow(**dict(row)) for row in self._db.all("SELECT * FROM content ORDER BY digest")]

    def unreferenced(self) -> list[Digest]:
        """Every blob that no image and no lease refers to."""
        return [Digest(row["digest"]) for row in self._db.all(f"SELECT digest FROM content {_UNREFERENCED}")]

    def delete_unreferenced(self) -> list[Digest]:
        """Delete the rows of all blobs that no image and no lease refers to; returns those blobs."""
        with self._db.transaction():
            self.generation += 1
            rows = self._db.all(f"DELETE FROM content {_UNREFERENCED} RETURNING digest")
        return [Digest(row["digest"]) for row in rows]


class LeaseRows:
    """The repository of leases."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, lease: str, why: str) -> None:
        """Make a lease, or renew one."""
        self._db.execute(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET created = excluded.created",
            (lease, time.time_ns(), why),
        )

    def add(self, lease: str, kind: str, key: str) -> None:
        """Keep ``key``, which need not exist yet."""
        self._db.execute(
            "INSERT INTO lease_items VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (lease, kind, key)
        )

    def delete(self, lease: str) -> None:
        self._db.execute("DELETE FROM leases WHERE id = ?", (lease,))

    def delete_empty(self, lease: str) -> None:
        """Drop a lease that keeps nothing."""
        self._db.execute(
            "DELETE FROM leases WHERE id = ? AND NOT EXISTS (SELECT 1 FROM lease_items WHERE lease = ?)",
            (lease, lease),
        )

    def delete_all(self, *, but: str, since: int) -> int:
        """Drop the leases of an earlier process, except those whose ``why`` begins with ``but`` and that were
        renewed after ``since`` (nanoseconds since the epoch); returns how many there were."""
        return self._db.execute(
            "DELETE FROM leases WHERE substr(why, 1, ?) != ? OR created < ?", (len(but), but, since)
        )

    def named(self, beginning: str) -> list[str]:
        """Leases whose ``why`` begins with this."""
        rows = self._db.all("SELECT id FROM leases WHERE substr(why, 1, ?) = ?", (len(beginning), beginning))
        return [row["id"] for row in rows]
