"""The statements of the collector: one batch of one kind in each short transaction.

There are no scans. The collector reads only *due* rows: those whose time (``keep_until``, ``gc_after``) has
passed. If a due row is still in use, its time is set to NULL; the row gets a new time when it is released. On
PostgreSQL each step first locks its rows and checks in a second statement whether they are in use, so that it
sees changes that were committed while it waited for the lock; rows locked by others are skipped. SQLite has
one writer at a time. If this code had a bug, the foreign keys would refuse the deletion, and the batch would
be rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence

from wherry.hub.store import content, repositories
from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx, now

BATCH = 100


def manifests(tx: Tx, settings: HubSettings) -> tuple[int, int]:
    """Delete due manifests that no tag and no index refers to, and whose subject does not exist.

    :returns: the numbers of checked and of deleted manifests.
    """
    due = tx.all(
        "SELECT id, repository_id, digest, subject, deleted FROM manifest WHERE keep_until <= ?"
        " ORDER BY id LIMIT ? /*locked*/",
        now(), BATCH,
    )  # fmt: skip
    gone = 0
    for manifest, repository, digest, subject, deleted in due:
        if _is_held(tx, manifest, repository, subject, deleted is not None):
            tx.run("UPDATE manifest SET keep_until = NULL WHERE id = ?", manifest)
        else:
            _remove_manifest(tx, int(manifest), int(repository), digest, settings)
            gone += 1
    return len(due), gone


def _is_held(tx: Tx, manifest: int, repository: int, subject: str | None, deleted: bool) -> bool:
    row = tx.one(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM tag WHERE manifest_id = ?)"
        " OR EXISTS (SELECT 1 FROM manifest_child WHERE child_id = ?)",
        manifest, manifest,
    )  # fmt: skip
    if row is not None:
        return True
    if subject is None or deleted:
        return False
    living = tx.one(
        "SELECT 1 FROM manifest WHERE repository_id = ? AND digest = ? AND deleted IS NULL",
        repository, subject,
    )  # fmt: skip
    return living is not None


def _remove_manifest(tx: Tx, manifest: int, repository: int, digest: str, settings: HubSettings) -> None:
    until = now() + settings.grace
    freed = tx.all("SELECT blob_id FROM manifest_blob WHERE manifest_id = ? ORDER BY blob_id", manifest)
    # Check the members of the index and the referrers of this manifest soon.
    tx.run(
        "UPDATE manifest SET keep_until = ? WHERE keep_until IS NULL AND (id IN"
        " (SELECT child_id FROM manifest_child WHERE parent_id = ?) OR (repository_id = ? AND subject = ?))",
        until, manifest, repository, digest,
    )  # fmt: skip
    tx.run("DELETE FROM manifest WHERE id = ?", manifest)
    for (blob,) in freed:
        tx.run(
            "UPDATE repository_blob SET keep_until = CASE WHEN keep_until > ? THEN keep_until ELSE ? END"
            " WHERE repository_id = ? AND blob_id = ?",
            until, until, repository, blob,
        )  # fmt: skip


def links(tx: Tx, settings: HubSettings) -> tuple[int, int]:
    """Delete due links that no manifest uses."""
    due = tx.all(
        "SELECT repository_id, blob_id FROM repository_blob WHERE keep_until <= ?"
        " ORDER BY repository_id, blob_id LIMIT ? /*locked*/",
        now(), BATCH,
    )  # fmt: skip
    gone = 0
    for repository, blob in due:
        removed = tx.run(
            "DELETE FROM repository_blob WHERE repository_id = ? AND blob_id = ? AND NOT EXISTS"
            " (SELECT 1 FROM manifest_blob n WHERE n.repository_id = ? AND n.blob_id = ?)",
            repository, blob, repository, blob,
        )  # fmt: skip
        if not removed:
            tx.run(
                "UPDATE repository_blob SET keep_until = NULL WHERE repository_id = ? AND blob_id = ?",
                repository, blob,
            )  # fmt: skip
            continue
        gone += 1
        row = tx.one(
            "SELECT b.size, r.namespace_id FROM blob b, repository r WHERE b.id = ? AND r.id = ?",
            blob, repository,
        )  # fmt: skip
        assert row is not None
        repositories.use(tx, RepositoryRow(int(repository), int(row[1]), "", False), -int(row[0]))
        tx.run(
            "UPDATE blob SET gc_after = ? WHERE id = ? AND (gc_after IS NULL OR gc_after < ?)",
            now() + settings.grace, blob, now() + settings.grace,
        )  # fmt: skip
    return len(due), gone


def blobs(tx: Tx, settings: HubSettings) -> tuple[int, int]:
    """Delete due blobs that no repository has, and put their objects into the trash in the same
    transaction."""
    due = tx.all(
        "SELECT id, storage_key FROM blob WHERE gc_after <= ? ORDER BY id LIMIT ? /*locked*/", now(), BATCH
    )
    gone = 0
    for blob, key in due:
        removed = tx.run(
            "DELETE FROM blob WHERE id = ? AND NOT EXISTS"
            " (SELECT 1 FROM repository_blob l WHERE l.blob_id = ?)",
            blob, blob,
        )  # fmt: skip
        if removed:
            content.throw_away(tx, key, settings.trash)
            gone += 1
        else:
            tx.run("UPDATE blob SET gc_after = NULL WHERE id = ?", blob)
    return len(due), gone


def deleted_repositories(tx: Tx, settings: HubSettings) -> tuple[int, int]:
    """Delete the content of repositories whose restore time has passed, one batch of manifests at a time. The
    repository's row is deleted when it is empty."""
    due = tx.all(
        "SELECT id FROM repository WHERE deleted <= ? ORDER BY id LIMIT 10 /*locked*/",
        now() - settings.keep_deleted,
    )
    gone = 0
    for (repository,) in due:
        tx.run("DELETE FROM tag WHERE repository_id = ?", repository)
        tx.run(
            "UPDATE manifest SET deleted = coalesce(deleted, ?), keep_until = ? WHERE repository_id = ?"
            " AND (keep_until IS NULL OR keep_until > ?)",
            now(), now(), repository, now(),
        )  # fmt: skip
        left = tx.one(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM manifest WHERE repository_id = ?)"
            " OR EXISTS (SELECT 1 FROM repository_blob WHERE repository_id = ?)"
            " OR EXISTS (SELECT 1 FROM upload WHERE repository_id = ?)",
            repository, repository, repository,
        )  # fmt: skip
        if left is None:
            tx.run("DELETE FROM repository WHERE id = ?", repository)
            gone += 1
        else:
            tx.run(
                "UPDATE repository_blob SET keep_until = ? WHERE repository_id = ?"
                " AND (keep_until IS NULL OR keep_until > ?) AND NOT EXISTS"
                " (SELECT 1 FROM manifest_blob n WHERE n.repository_id = repository_blob.repository_id"
                " AND n.blob_id = repository_blob.blob_id)",
                now(), repository, now(),
            )  # fmt: skip
    return gone, gone


def trash(tx: Tx) -> list[str]:
    """The keys of objects to delete now; empty while deletion is suspended. The row is deleted after the
    object."""
    if tx.one("SELECT 1 FROM hold WHERE until > ?", now()) is not None:
        return []
    rows = tx.all(
        "SELECT storage_key FROM trash WHERE delete_after <= ? ORDER BY delete_after LIMIT ? /*locked*/",
        now(), BATCH,
    )  # fmt: skip
    return [row[0] for row in rows]


def emptied(tx: Tx, keys: Sequence[str]) -> None:
    """The objects with these keys are deleted."""
    tx.many("DELETE FROM trash WHERE storage_key = ?", [(key,) for key in keys])


def hold(tx: Tx, name: str, seconds: int) -> None:
    """Suspend the deletion of objects for this many seconds; 0 resumes it."""
    tx.run("DELETE FROM hold WHERE name = ?", name)
    if seconds:
        tx.run("INSERT INTO hold (name, until) VALUES (?, ?)", name, now() + seconds)
