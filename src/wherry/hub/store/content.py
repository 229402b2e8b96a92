"""Rows of blobs, and of the links between repositories and blobs.

After a successful response (200 to HEAD, 201 to an upload or a mount) a blob is kept for at least the grace
time: its link's ``keep_until`` is set to the end of this time, and the collector ignores the link until then.
While a manifest uses a link, its time is NULL.
"""

from __future__ import annotations

from dataclasses import dataclass

from wherry.hub.core import rights
from wherry.hub.core.rights import Principal
from wherry.hub.store import repositories
from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx, now


@dataclass(frozen=True)
class Blob:
    id: int
    digest: str
    size: int
    key: str
    keep_until: int | None = None


def find(tx: Tx, repository: str, digest: str) -> Blob | None:
    """A blob in a repository. A lookup by digest only would reveal private content."""
    row = tx.one(
        "SELECT b.id, b.size, b.storage_key, l.keep_until FROM repository r"
        " JOIN repository_blob l ON l.repository_id = r.id JOIN blob b ON b.id = l.blob_id"
        " WHERE r.name = ? AND r.deleted IS NULL AND b.digest = ? AND NOT l.hidden AND NOT b.lost",
        repository, digest,
    )  # fmt: skip
    return Blob(int(row[0]), digest, int(row[1]), row[2], row[3]) if row else None


def promise(tx: Tx, repository: RepositoryRow, blob: int, settings: HubSettings) -> bool:
    """Keep a link for at least the grace time from now. :returns: whether the link exists."""
    until = now() + settings.grace
    tx.run(
        "UPDATE repository_blob SET keep_until = ? WHERE repository_id = ? AND blob_id = ?"
        " AND keep_until IS NOT NULL AND keep_until < ?",
        until, repository.id, blob, until,
    )  # fmt: skip
    row = tx.one(
        "SELECT 1 FROM repository_blob WHERE repository_id = ? AND blob_id = ? AND NOT hidden",
        repository.id, blob,
    )  # fmt: skip
    return row is not None


def half_over(blob: Blob, settings: HubSettings) -> bool:
    """Whether the link must be renewed, because it is due within half the grace time."""
    return blob.keep_until is not None and blob.keep_until < now() + settings.grace // 2


def link(tx: Tx, repository: RepositoryRow, blob: int, size: int, settings: HubSettings) -> None:
    """Link a blob to a repository, for at least the grace time. :raises Refusal: the quota is exceeded."""
    until = now() + settings.grace
    made = tx.run(
        "INSERT INTO repository_blob (repository_id, blob_id, keep_until) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        repository.id, blob, until,
    )  # fmt: skip
    if made:
        repositories.use(tx, repository, size)
    else:
        tx.run(
            "UPDATE repository_blob SET hidden = FALSE,"
            " keep_until = CASE WHEN keep_until IS NULL OR keep_until > ? THEN keep_until ELSE ? END"
            " WHERE repository_id = ? AND blob_id = ?",
            until, until, repository.id, blob,
        )  # fmt: skip


def add(tx: Tx, repository: RepositoryRow, digest: str, size: int, key: str, settings: HubSettings) -> None:
    """Record a complete object of a repository. If the same blob already exists, its object is kept and the
    new one is put into the trash; but if the blob is marked as lost, the new object replaces the old one."""
    moment = now()
    row = tx.one(
        "INSERT INTO blob (digest, size, storage_key, created, verified, gc_after) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET gc_after = excluded.gc_after"
        " RETURNING id, storage_key, lost",
        digest, size, key, moment, moment, moment + settings.grace,
    )  # fmt: skip
    assert row is not None
    blob, there, lost = int(row[0]), row[1], bool(row[2])
    if there != key and lost:
        tx.run("UPDATE blob SET storage_key = ?, lost = FALSE, verified = ? WHERE id = ?", key, moment, blob)
        throw_away(tx, there, 0)
    elif there != key:
        throw_away(tx, key, 0)
    link(tx, repository, blob, size, settings)


def throw_away(tx: Tx, key: str, after: int) -> None:
    """Put an object into the trash; it is deleted after ``after`` seconds at the earliest."""
    tx.run(
        "INSERT INTO trash (storage_key, delete_after) VALUES (?, ?) ON CONFLICT DO NOTHING",
        key, now() + after,
    )  # fmt: skip


def mount(
    tx: Tx, repository: RepositoryRow, digest: str, source: str, caller: Principal, settings: HubSettings
) -> bool:
    """Link a blob of another repository to a repository, if the caller can read it there.

    :param source: the other repository; empty: any repository that the caller can read.
    :return: whether the blob was linked. The reason of a refusal would reveal private content.
    """
    if source:
        if rights.PULL not in repositories.allowed_to(tx, caller, source):
            return False
        found = find(tx, source, digest)
    else:
        found = _anywhere(tx, caller, digest)
    if found is None:
        return False
    link(tx, repository, found.id, found.size, settings)
    return True


def _anywhere(tx: Tx, caller: Principal, digest: str) -> Blob | None:
    rows = tx.all(
        "SELECT b.id, b.size, b.storage_key, r.name, r.public FROM blob b"
        " JOIN repository_blob l ON l.blob_id = b.id AND NOT l.hidden"
        " JOIN repository r ON r.id = l.repository_id AND r.deleted IS NULL"
        f" WHERE b.digest = ? AND NOT b.lost AND {repositories.VISIBLE} LIMIT 20",
        digest, *repositories.viewer(caller),
    )  # fmt: skip
    for blob, size, key, name, public in rows:
        if rights.PULL in rights.limited(caller, name, rights.READ, public=bool(public)):
            return Blob(int(blob), digest, int(size), key)
    return None


def hide(tx: Tx, repository: str, digest: str) -> bool:
    """Remove a blob from a repository. :returns: whether the repository had it.

    :raises Named: a manifest refers to it.
    """
    place = repositories.needed(tx, repository)
    row = tx.one(
        "SELECT l.blob_id FROM repository_blob l JOIN blob b ON b.id = l.blob_id"
        " WHERE l.repository_id = ? AND b.digest = ? AND NOT l.hidden",
        place.id, digest,
    )  # fmt: skip
    if row is None:
        return False
    tx.run(
        "UPDATE repository_blob SET hidden = TRUE, keep_until = ? WHERE repository_id = ? AND blob_id = ?",
        now(), place.id, row[0],
    )  # fmt: skip
    # A second statement sees changes that a push committed while the update waited for its lock.
    named = tx.one(
        "SELECT m.digest FROM manifest_blob n JOIN manifest m ON m.id = n.manifest_id"
        " WHERE n.repository_id = ? AND n.blob_id = ? AND m.deleted IS NULL LIMIT 1",
        place.id, row[0],
    )  # fmt: skip
    if named is not None:
        raise Named(named[0])
    return True


class Named(Exception):
    """A blob cannot be deleted, because a manifest refers to it (the first argument is its digest)."""


def mark_lost(tx: Tx, digest: str, key: str) -> bool:
    """Mark a blob as lost, because its object is missing. The next push of the blob stores it again."""
    return bool(tx.run("UPDATE blob SET lost = TRUE WHERE digest = ? AND storage_key = ?", digest, key))


def by_digest(tx: Tx, digest: str) -> Blob | None:
    """Find a blob in any repository: only for the operator's commands."""
    row = tx.one("SELECT id, size, storage_key FROM blob WHERE digest = ? AND NOT lost", digest)
    return Blob(int(row[0]), digest, int(row[1]), row[2]) if row else None
