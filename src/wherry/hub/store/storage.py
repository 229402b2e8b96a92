"""Figures of the stored content: what is kept once and used several times, by namespace, repository and
age."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.hub.store.sql import Tx, now

_DAY = 86400
AGES = ((7, "a week"), (30, "a month"), (90, "three months"), (365, "a year"), (0, "longer"))


@dataclass(frozen=True)
class Usage:
    """A namespace or a repository: ``size`` counts each blob once in each repository, in bytes."""

    name: str
    size: int
    things: int


@dataclass(frozen=True)
class StorageReport:
    """Sizes in bytes. ``logical``: each blob counted in each repository that has it."""

    physical: int
    logical: int
    blobs: int
    trash: int
    uploads: int
    upload_bytes: int
    namespaces: list[Usage]
    repositories: list[Usage]
    ages: list[Usage]
    pulled: list[Usage]

    @property
    def ratio(self) -> float:
        """How much larger it would be without sharing."""
        return self.logical / self.physical if self.physical else 1.0


def report(tx: Tx, most: int = 20) -> StorageReport:
    """A scan of all blobs: call it on a thread."""

    def number(statement: str) -> tuple[int, int]:
        row = tx.one(statement)
        assert row is not None
        return int(row[0]), int(row[1])

    blobs, physical = number("SELECT count(*), coalesce(sum(size), 0) FROM blob")
    _, logical = number(
        "SELECT 0, coalesce(sum(b.size), 0) FROM repository_blob l JOIN blob b ON b.id = l.blob_id"
    )
    trash, _ = number("SELECT count(*), 0 FROM trash")
    uploads, pending = number("SELECT count(*), coalesce(sum(received), 0) FROM upload")
    spaces = tx.all(
        "SELECT n.name, n.used_bytes, (SELECT count(*) FROM repository r WHERE r.namespace_id = n.id"
        " AND r.deleted IS NULL) FROM namespace n ORDER BY n.used_bytes DESC, n.name LIMIT ?",
        most,
    )
    repositories = tx.all(
        "SELECT r.name, s.size, s.things FROM (SELECT l.repository_id AS id, sum(b.size) AS size,"
        " count(*) AS things FROM repository_blob l JOIN blob b ON b.id = l.blob_id GROUP BY l.repository_id"
        " ORDER BY 2 DESC LIMIT ?) s JOIN repository r ON r.id = s.id ORDER BY s.size DESC, r.name",
        most,
    )
    return StorageReport(
        physical, logical, blobs, trash, uploads, pending,
        [Usage(row[0] or "(the hub's own)", int(row[1]), int(row[2])) for row in spaces],
        [Usage(row[0], int(row[1]), int(row[2])) for row in repositories],
        _by_age(tx, "SELECT created AS at, size FROM blob"),
        _by_age(
            tx,
            "SELECT coalesce(t.last_pulled, t.updated) AS at, m.total_size AS size FROM tag t"
            " JOIN manifest m ON m.id = t.manifest_id",
        ),
    )  # fmt: skip


def _by_age(tx: Tx, rows: str) -> list[Usage]:
    """Sums of rows with ``at`` and ``size``, by how long ago the time is."""
    moment, found, before = now(), list[Usage](), None
    for days, words in AGES:
        conditions, values = ["at <= ?"], [moment if before is None else moment - before * _DAY]
        if days:
            conditions.append("at > ?")
            values.append(moment - days * _DAY)
        row = tx.one(
            f"SELECT coalesce(sum(size), 0), count(*) FROM ({rows}) x WHERE {' AND '.join(conditions)}",
            *values,
        )
        assert row is not None
        found.append(Usage(words, int(row[0]), int(row[1])))
        before = days
    return found
