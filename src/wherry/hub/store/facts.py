"""Rows of facts about images: the platform of each, what platforms a repository has, and whether it has
signed images. They are read from the images' configurations, after the push (see
:mod:`wherry.hub.worker.facts`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wherry.hub.store.sql import Tx

CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
SIGNATURES = (
    "application/vnd.dev.cosign.artifact.sig.v1+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.cncf.notary.signature",
)
_MOST = 1 << 20
"""The largest configuration that is read, in bytes."""


@dataclass(frozen=True)
class Unread:
    """An image whose configuration has not been read: ``key`` is the object (empty: there is none to
    read)."""

    manifest: int
    repository: int
    key: str
    size: int


def unread(tx: Tx, after: int, count: int) -> list[Unread]:
    """Manifests from id ``after`` on that have no facts yet, oldest first."""
    rows = tx.all(
        "SELECT m.id, m.repository_id, coalesce(b.storage_key, ''), coalesce(b.size, 0), m.artifact_type"
        " FROM manifest m LEFT JOIN image_fact f ON f.manifest_id = m.id"
        " LEFT JOIN manifest_blob l ON l.manifest_id = m.id AND l.role = 'config'"
        " LEFT JOIN blob b ON b.id = l.blob_id AND NOT b.lost"
        " WHERE m.id > ? AND f.manifest_id IS NULL AND m.deleted IS NULL ORDER BY m.id LIMIT ?",
        after, count,
    )  # fmt: skip
    return [
        Unread(int(row[0]), int(row[1]), row[2] if row[4] in CONFIGS and row[3] <= _MOST else "", int(row[3]))
        for row in rows
    ]


def note(tx: Tx, manifest: int, os: str, architecture: str, variant: str) -> None:
    """Record the platform of an image; empty for what is not an image. Nothing if it is gone meanwhile."""
    tx.run(
        "INSERT INTO image_fact (manifest_id, os, architecture, variant)"
        " SELECT id, ?, ?, ? FROM manifest WHERE id = ? ON CONFLICT DO NOTHING",
        os[:32], architecture[:32], variant[:32], manifest,
    )  # fmt: skip


def signed_among(tx: Tx, repository: int, digests: Sequence[str]) -> set[str]:
    """Those of the images that have a signature: as a referrer, or under a tag as cosign writes it. Whether
    it is valid is another matter."""
    if not digests:
        return set()
    marks, kinds = (", ".join("?" for _ in some) for some in (digests, SIGNATURES))
    found = tx.all(
        f"SELECT DISTINCT subject FROM manifest WHERE repository_id = ? AND subject IN ({marks})"
        f" AND artifact_type IN ({kinds}) AND deleted IS NULL",
        repository, *digests, *SIGNATURES,
    )  # fmt: skip
    tags = {f"{digest.replace(':', '-')}.sig": digest for digest in digests}
    named = tx.all(f"SELECT name FROM tag WHERE repository_id = ? AND name IN ({marks})", repository, *tags)
    return {row[0] for row in found} | {tags[row[0]] for row in named}


def refresh(tx: Tx, repository: int) -> None:
    """Sum up what the tags of a repository have."""
    rows = tx.all(
        "SELECT DISTINCT f.os, f.architecture FROM tag t JOIN image_fact f ON f.manifest_id = t.manifest_id"
        " WHERE t.repository_id = ? AND f.architecture <> ''"
        " UNION SELECT DISTINCT c.os, c.architecture FROM tag t JOIN manifest_child c"
        " ON c.parent_id = t.manifest_id WHERE t.repository_id = ? AND c.architecture NOT IN ('', 'unknown')",
        repository, repository,
    )  # fmt: skip
    words = sorted({f"{row[0] or 'linux'}/{row[1]}" for row in rows if " " not in f"{row[0]}{row[1]}"})[:32]
    marks = ", ".join("?" for _ in SIGNATURES)
    signed = tx.one(
        f"SELECT 1 FROM manifest WHERE repository_id = ? AND deleted IS NULL AND artifact_type IN ({marks})"
        " UNION ALL SELECT 1 FROM tag WHERE repository_id = ? AND name LIKE 'sha256-%.sig' LIMIT 1",
        repository, *SIGNATURES, repository,
    )  # fmt: skip
    tx.run(
        "UPDATE repository SET platforms = ?, signed = ? WHERE id = ?",
        f" {' '.join(words)} " if words else "", signed is not None, repository,
    )  # fmt: skip
