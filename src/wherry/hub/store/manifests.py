"""Rows of manifests and their references.

    manifest -> manifest_blob  -> repository_blob   foreign keys: no deletion of used content
             -> manifest_child -> manifest          an index and its existing members
             -> manifest_missing                    members that do not exist (yet): a sparse index

A push writes all these rows and its tags in one transaction. The foreign keys guarantee consistency; the
check before the write only produces an error that names the missing content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.hub.core.manifests import ParsedManifest
from wherry.hub.core.refusals import Refusal
from wherry.hub.store import profiles, repositories, tags
from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx, now


@dataclass(frozen=True)
class StoredManifest:
    id: int
    repository: int
    digest: str
    media_type: str
    body: bytes


_FOUND = (
    "SELECT m.id, m.repository_id, m.digest, m.media_type, m.body FROM repository r"
    " JOIN manifest m ON m.repository_id = r.id"
)


def by_digest(tx: Tx, repository: str, digest: str) -> StoredManifest | None:
    row = tx.one(
        f"{_FOUND} WHERE r.name = ? AND r.deleted IS NULL AND m.digest = ? AND m.deleted IS NULL",
        repository, digest,
    )  # fmt: skip
    return StoredManifest(int(row[0]), int(row[1]), row[2], row[3], bytes(row[4])) if row else None


def by_tag(tx: Tx, repository: str, tag: str) -> StoredManifest | None:
    row = tx.one(
        "SELECT m.id, m.repository_id, m.digest, m.media_type, m.body FROM repository r"
        " JOIN tag t ON t.repository_id = r.id JOIN manifest m ON m.id = t.manifest_id"
        " WHERE r.name = ? AND r.deleted IS NULL AND t.name = ?",
        repository, tag,
    )  # fmt: skip
    return StoredManifest(int(row[0]), int(row[1]), row[2], row[3], bytes(row[4])) if row else None


@dataclass(frozen=True)
class Push:
    """A manifest that is being pushed. ``actor`` is the account's name, for the tags' history."""

    repository: str
    digest: str
    manifest: ParsedManifest
    body: bytes
    tags: Sequence[str]
    account: int | None
    actor: str


def put(tx: Tx, push: Push, settings: HubSettings) -> None:
    """Write a manifest, its references, and its tags.

    :raises Refusal: ``MANIFEST_BLOB_UNKNOWN`` with each missing blob; ``DENIED`` for an immutable tag.
    :raises Broken: content was deleted meanwhile. A second call raises the error that names it.
    """
    repository = repositories.ensure(tx, push.repository, settings)
    profiles.check_open(tx, repository.id)
    manifest = push.manifest
    moment = now()
    until = None  # a tag keeps it, or it is kept for ever
    if not push.tags and settings.keep_untagged is not None:
        until = moment + max(settings.grace, settings.keep_untagged)
    row = tx.one(
        "INSERT INTO manifest (repository_id, digest, media_type, artifact_type, size, total_size, body,"
        " annotations, subject, created, pushed_by, keep_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        # Reuse an existing manifest, even if it is deleted or due.
        " ON CONFLICT (repository_id, digest) DO UPDATE SET deleted = NULL, keep_until = excluded.keep_until"
        " RETURNING id",
        repository.id, push.digest, manifest.media_type, manifest.artifact_type, manifest.size,
        manifest.total_size, push.body, _listed_annotations(manifest), manifest.subject or None, moment,
        push.account, until,
    )  # fmt: skip
    assert row is not None
    made = int(row[0])
    _name_blobs(tx, repository, made, manifest)
    _name_children(tx, repository, made, push)
    _join_parents(tx, repository, made, push.digest)
    for tag in push.tags:
        tags.move(tx, repository, tag, made, push.digest, push.account, push.actor, "push", settings)
    tx.run("UPDATE repository SET pushed = ? WHERE id = ?", moment, repository.id)


def _listed_annotations(manifest: ParsedManifest) -> str:
    """Only lists of referrers show annotations, so they are stored for manifests with a subject only."""
    return json.dumps(manifest.annotations) if manifest.subject and manifest.annotations else ""


def _name_blobs(tx: Tx, repository: RepositoryRow, made: int, manifest: ParsedManifest) -> None:
    missing: list[str] = []
    rows: list[tuple[int, int, int, str, int]] = []
    for place, (role, descriptor) in enumerate(manifest.blobs):
        found = tx.one(
            "SELECT l.blob_id FROM blob b JOIN repository_blob l ON l.blob_id = b.id"
            " WHERE b.digest = ? AND l.repository_id = ? AND NOT l.hidden AND NOT b.lost /*shared of l*/",
            descriptor.digest, repository.id,
        )  # fmt: skip
        if found is not None:
            rows.append((made, repository.id, int(found[0]), role, place))
        elif not descriptor.foreign:
            missing.append(descriptor.digest)
    if missing:
        raise Refusal(
            "MANIFEST_BLOB_UNKNOWN",
            "blob unknown to registry: " + ", ".join(dict.fromkeys(missing)),
            detail=[{"digest": digest} for digest in dict.fromkeys(missing)],
        )
    tx.many(
        "INSERT INTO manifest_blob (manifest_id, repository_id, blob_id, role, place) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        rows,
    )


def _name_children(tx: Tx, repository: RepositoryRow, made: int, push: Push) -> None:
    for descriptor in push.manifest.children:
        if descriptor.digest == push.digest:
            continue  # impossible: the manifest would contain its own digest
        child = tx.one(
            "SELECT id FROM manifest WHERE repository_id = ? AND digest = ? AND deleted IS NULL",
            repository.id, descriptor.digest,
        )  # fmt: skip
        if child is not None:
            tx.run(
                "INSERT INTO manifest_child (parent_id, child_id, os, architecture, variant)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                made, child[0], *descriptor.platform,
            )  # fmt: skip
            continue
        blob = tx.one(
            "SELECT l.blob_id FROM blob b JOIN repository_blob l ON l.blob_id = b.id"
            " WHERE b.digest = ? AND l.repository_id = ? AND NOT l.hidden AND NOT b.lost /*shared of l*/",
            descriptor.digest, repository.id,
        )  # fmt: skip
        if blob is not None:  # an index may name any manifest
            tx.run(
                "INSERT INTO manifest_blob (manifest_id, repository_id, blob_id, role, place)"
                " VALUES (?, ?, ?, 'member', 0) ON CONFLICT DO NOTHING",
                made, repository.id, blob[0],
            )  # fmt: skip
        else:
            tx.run(
                "INSERT INTO manifest_missing (parent_id, repository_id, digest, os, architecture, variant)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                made, repository.id, descriptor.digest, *descriptor.platform,
            )  # fmt: skip


def _join_parents(tx: Tx, repository: RepositoryRow, made: int, digest: str) -> None:
    """Complete indexes that were pushed before this member."""
    tx.run(
        "INSERT INTO manifest_child (parent_id, child_id, os, architecture, variant)"
        " SELECT parent_id, ?, os, architecture, variant FROM manifest_missing"
        " WHERE repository_id = ? AND digest = ? AND parent_id <> ? ON CONFLICT DO NOTHING",
        made, repository.id, digest, made,
    )  # fmt: skip
    tx.run("DELETE FROM manifest_missing WHERE repository_id = ? AND digest = ?", repository.id, digest)


def delete(tx: Tx, name: str, digest: str, actor: str, settings: HubSettings, cause: str = "delete") -> bool:
    """Delete a manifest and all its tags. :returns: whether it existed. It can be restored until
    ``keep_deleted`` has passed."""
    repository = repositories.needed(tx, name)
    row = tx.one(
        "SELECT id FROM manifest WHERE repository_id = ? AND digest = ? AND deleted IS NULL",
        repository.id, digest,
    )  # fmt: skip
    if row is None:
        return False
    tx.run(
        "UPDATE manifest SET deleted = ?, keep_until = ? WHERE id = ?",
        now(), now() + settings.keep_deleted, row[0],
    )  # fmt: skip
    for tag in tx.all("SELECT name FROM tag WHERE manifest_id = ?", row[0]):
        tags.remove(tx, repository, tag[0], actor, cause)
    return True


def undelete(tx: Tx, name: str, digest: str) -> bool:
    """Restore a deleted manifest and its references. :returns: whether there was one.

    :func:`wherry.hub.store.tags.revert` restores its tags.
    """
    repository = repositories.needed(tx, name)
    row = tx.one(
        "SELECT id FROM manifest WHERE repository_id = ? AND digest = ? AND deleted IS NOT NULL",
        repository.id, digest,
    )  # fmt: skip
    if row is None:
        return False
    tx.run("UPDATE manifest SET deleted = NULL WHERE id = ?", row[0])
    tx.run(
        "UPDATE repository_blob SET hidden = FALSE WHERE repository_id = ?"
        " AND blob_id IN (SELECT blob_id FROM manifest_blob WHERE manifest_id = ?)",
        repository.id, row[0],
    )  # fmt: skip
    for child in tx.all(
        "SELECT m.digest FROM manifest_child c JOIN manifest m ON m.id = c.child_id WHERE c.parent_id = ?",
        row[0],
    ):
        undelete(tx, name, child[0])
    return True


@dataclass(frozen=True)
class Referrer:
    id: int
    digest: str
    media_type: str
    artifact_type: str
    size: int


def referrers(
    tx: Tx, repository: RepositoryRow, subject: str, artifact_type: str, after: int, count: int
) -> list[Referrer]:
    """Manifests with a subject, oldest first, from id ``after`` on."""
    rows = tx.all(
        "SELECT id, digest, media_type, artifact_type, size FROM manifest"
        " WHERE repository_id = ? AND subject = ? AND id > ? AND deleted IS NULL"
        " AND (? = '' OR artifact_type = ?) ORDER BY id LIMIT ?",
        repository.id, subject, after, artifact_type, artifact_type, count,
    )  # fmt: skip
    return [Referrer(int(row[0]), row[1], row[2], row[3], int(row[4])) for row in rows]


def annotations_of(tx: Tx, manifest: int) -> str:
    """The annotations of a manifest that has a subject, as a JSON object; empty if it has none."""
    row = tx.one("SELECT annotations FROM manifest WHERE id = ?", manifest)
    return str(row[0]) if row is not None else ""


def parents(tx: Tx, manifest: int) -> list[str]:
    """The digests of the indexes that contain a manifest."""
    rows = tx.all(
        "SELECT m.digest FROM manifest_child c JOIN manifest m ON m.id = c.parent_id"
        " WHERE c.child_id = ? AND m.deleted IS NULL ORDER BY m.id",
        manifest,
    )
    return [row[0] for row in rows]


def has_signature_tag(tx: Tx, found: StoredManifest) -> bool:
    """Whether a signature's tag points to the manifest."""
    row = tx.one(
        "SELECT 1 FROM tag WHERE manifest_id = ? AND (name LIKE '%.sig' OR name LIKE '%.att'"
        " OR name LIKE '%.sbom')",
        found.id,
    )
    return row is not None
