"""The queries of ``fsck``: pages of blobs, known keys, the real usage of namespaces."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.hub.store.sql import Tx


@dataclass(frozen=True)
class CheckedBlob:
    id: int
    digest: str
    size: int
    key: str


def blobs(tx: Tx, after: int, count: int) -> list[CheckedBlob]:
    """A page of the blobs that are not marked as lost, by id."""
    rows = tx.all(
        "SELECT id, digest, size, storage_key FROM blob WHERE id > ? AND NOT lost ORDER BY id LIMIT ?",
        after, count,
    )  # fmt: skip
    return [CheckedBlob(int(row[0]), row[1], int(row[2]), row[3]) for row in rows]


def is_there(tx: Tx, blob: CheckedBlob) -> bool:
    """Whether the row still exists unchanged: the collector may run at the same time."""
    return tx.one("SELECT 1 FROM blob WHERE id = ? AND storage_key = ?", blob.id, blob.key) is not None


def is_known(tx: Tx, key: str) -> bool:
    """Whether any row refers to an object."""
    row = tx.one(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM blob WHERE storage_key = ?)"
        " OR EXISTS (SELECT 1 FROM upload WHERE storage_key = ?)"
        " OR EXISTS (SELECT 1 FROM trash WHERE storage_key = ?)",
        key, key, key,
    )  # fmt: skip
    return row is not None


def verified(tx: Tx, blob: CheckedBlob, moment: int) -> None:
    tx.run("UPDATE blob SET verified = ? WHERE id = ?", moment, blob.id)


def used(tx: Tx) -> list[tuple[int, str, int, int]]:
    """Namespaces with a wrong sum of bytes: id, name, recorded sum, actual sum."""
    rows = tx.all(
        "SELECT n.id, n.name, n.used_bytes, coalesce(s.bytes, 0) FROM namespace n LEFT JOIN"
        " (SELECT r.namespace_id AS space, sum(b.size) AS bytes FROM repository_blob l"
        "  JOIN repository r ON r.id = l.repository_id JOIN blob b ON b.id = l.blob_id"
        "  GROUP BY r.namespace_id) s"
        " ON s.space = n.id WHERE n.used_bytes <> coalesce(s.bytes, 0)"
    )
    return [(int(row[0]), row[1], int(row[2]), int(row[3])) for row in rows]


def recount(tx: Tx) -> int:
    """Correct the sums of bytes of all namespaces. :returns: the number of corrected ones."""
    wrong = used(tx)
    for number, _, _, there in wrong:
        tx.run("UPDATE namespace SET used_bytes = ? WHERE id = ?", there, number)
    return len(wrong)


def broken(tx: Tx) -> list[str]:
    """Images that refer to missing content. The foreign keys prevent this, unless the database file is
    damaged."""
    rows = tx.all(
        "SELECT m.digest, r.name FROM manifest m JOIN repository r ON r.id = m.repository_id"
        " JOIN manifest_blob n ON n.manifest_id = m.id LEFT JOIN repository_blob l"
        " ON l.repository_id = n.repository_id AND l.blob_id = n.blob_id LEFT JOIN blob b ON b.id = n.blob_id"
        " WHERE m.deleted IS NULL AND (l.blob_id IS NULL OR b.id IS NULL OR l.hidden) LIMIT 100"
    )
    return [f"{row[1]}@{row[0]}" for row in rows]
