"""Rows of tags and their history."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.hub.core.refusals import Refusal
from wherry.hub.store import profiles, repositories, rules
from wherry.hub.store.repositories import RepositoryRow
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Row, Tx, now


def move(
    tx: Tx, repository: RepositoryRow, tag: str, manifest: int, digest: str,
    account: int | None, actor: str, cause: str, settings: HubSettings,
) -> None:  # fmt: skip
    """Point ``tag`` to ``manifest``, and record the change in its history.

    :raises Refusal: ``DENIED``: a rule makes the tag immutable.
    """
    profiles.check_open(tx, repository.id)
    before = tx.one("SELECT manifest_id FROM tag WHERE repository_id = ? AND name = ?", repository.id, tag)
    if before is not None and before[0] == manifest:
        return
    if before is not None:
        rules.check_mutable(tx, repository.name, tag)
    tx.run(
        "INSERT INTO tag (repository_id, name, manifest_id, updated, updated_by) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (repository_id, name) DO UPDATE SET manifest_id = excluded.manifest_id,"
        " updated = excluded.updated, updated_by = excluded.updated_by, expires = NULL",
        repository.id, tag, manifest, now(), account,
    )  # fmt: skip
    if before is not None:
        _untagged(tx, int(before[0]), settings)
    _note(tx, repository, tag, digest, actor, cause)


def _untagged(tx: Tx, manifest: int, settings: HubSettings) -> None:
    """Set the time at which the collector checks an image that may have lost its last tag."""
    if settings.keep_untagged is not None:
        until = now() + max(settings.grace, settings.keep_untagged)
        tx.run(
            "UPDATE manifest SET keep_until = ? WHERE id = ? AND (keep_until IS NULL OR keep_until < ?)"
            " AND deleted IS NULL",
            until, manifest, until,
        )  # fmt: skip


def _note(tx: Tx, repository: RepositoryRow, tag: str, digest: str | None, actor: str, cause: str) -> None:
    tx.run(
        "INSERT INTO tag_history (repository_id, name, digest, at, actor, cause) VALUES (?, ?, ?, ?, ?, ?)",
        repository.id, tag, digest, now(), actor, cause,
    )  # fmt: skip


def remove(tx: Tx, repository: RepositoryRow, tag: str, actor: str, cause: str) -> None:
    """:raises Refusal: ``DENIED``: a rule makes the tag immutable."""
    profiles.check_open(tx, repository.id)
    rules.check_mutable(tx, repository.name, tag)
    tx.run("DELETE FROM tag WHERE repository_id = ? AND name = ?", repository.id, tag)
    _note(tx, repository, tag, None, actor, cause)


def delete(tx: Tx, name: str, tag: str, actor: str, settings: HubSettings, cause: str = "delete") -> bool:
    """Delete a tag. :returns: whether it existed. An image without another tag is kept for
    ``keep_untagged``."""
    repository = repositories.needed(tx, name)
    row = tx.one("SELECT manifest_id FROM tag WHERE repository_id = ? AND name = ?", repository.id, tag)
    if row is None:
        return False
    remove(tx, repository, tag, actor, cause)
    until = now() + settings.keep_deleted
    tx.run(
        "UPDATE manifest SET keep_until = ? WHERE id = ? AND (keep_until IS NULL OR keep_until < ?)",
        until, row[0], until,
    )  # fmt: skip
    return True


def page(tx: Tx, name: str, last: str, count: int) -> list[str]:
    """Names of tags in byte order, after ``last``.

    :raises Refusal: ``NAME_UNKNOWN``.
    """
    repository = repositories.needed(tx, name)
    rows = tx.all(
        "SELECT name FROM tag WHERE repository_id = ? AND name > ? ORDER BY name LIMIT ?",
        repository.id, last, count,
    )  # fmt: skip
    return [row[0] for row in rows]


@dataclass(frozen=True)
class TagMove:
    """A change of a tag: ``digest`` is its new target, None if the tag was deleted."""

    digest: str | None
    at: int
    actor: str
    cause: str


def history(tx: Tx, name: str, tag: str, count: int = 100) -> list[TagMove]:
    """The moves of a tag, newest first."""
    repository = repositories.needed(tx, name)
    rows = tx.all(
        "SELECT digest, at, actor, cause FROM tag_history WHERE repository_id = ? AND name = ?"
        " ORDER BY id DESC LIMIT ?",
        repository.id, tag, count,
    )  # fmt: skip
    return [TagMove(row[0], int(row[1]), row[2], row[3]) for row in rows]


def revert(
    tx: Tx, name: str, tag: str, digest: str, account: int | None, actor: str, settings: HubSettings
) -> None:
    """Point a tag to its previous target again. The manifest must exist (or have been restored).

    :raises Refusal: ``MANIFEST_UNKNOWN``.
    """
    repository = repositories.needed(tx, name)
    row = tx.one(
        "SELECT id FROM manifest WHERE repository_id = ? AND digest = ? AND deleted IS NULL",
        repository.id, digest,
    )  # fmt: skip
    if row is None:
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no image {digest}, or it was deleted")
    move(tx, repository, tag, int(row[0]), digest, account, actor, "revert", settings)


def delete_if(
    tx: Tx, name: str, tag: str, digest: str, actor: str, settings: HubSettings, cause: str
) -> bool:
    """Delete a tag if it still points to ``digest``. :returns: whether it did."""
    repository = repositories.needed(tx, name)
    row = tx.one(
        "SELECT 1 FROM tag t JOIN manifest m ON m.id = t.manifest_id"
        " WHERE t.repository_id = ? AND t.name = ? AND m.digest = ?",
        repository.id, tag, digest,
    )  # fmt: skip
    return row is not None and delete(tx, name, tag, actor, settings, cause)


@dataclass(frozen=True)
class TagPlatform:
    """One platform of a tag."""

    os: str
    architecture: str
    variant: str
    digest: str
    size: int


@dataclass(frozen=True)
class Shown:
    """A tag in a list. ``size`` is the size of all its content, in bytes."""

    id: int
    name: str
    digest: str
    media_type: str
    size: int
    updated: int
    pulled: int | None
    updater: str
    images: list[TagPlatform]


_SHOWN = (
    "SELECT m.id, t.name, m.digest, m.media_type, m.total_size, t.updated, t.last_pulled, a.name,"
    " f.os, f.architecture, f.variant FROM tag t JOIN manifest m ON m.id = t.manifest_id"
    " LEFT JOIN account a ON a.id = t.updated_by LEFT JOIN image_fact f ON f.manifest_id = m.id"
)


def _shown(tx: Tx, row: Row) -> Shown:
    members = tx.all(
        "SELECT c.os, c.architecture, c.variant, m.digest, m.total_size FROM manifest_child c"
        " JOIN manifest m ON m.id = c.child_id WHERE c.parent_id = ? ORDER BY c.child_id",
        row[0],
    )
    images = [TagPlatform(one[0], one[1], one[2], one[3], int(one[4])) for one in members]
    return Shown(
        int(row[0]), row[1], row[2], row[3], int(row[4]), int(row[5]), row[6], row[7] or "",
        images or [TagPlatform(row[8] or "", row[9] or "", row[10] or "", row[2], int(row[4]))],
    )  # fmt: skip


def shown(tx: Tx, name: str, tag: str) -> Shown | None:
    """:raises Refusal: ``NAME_UNKNOWN``."""
    repository = repositories.needed(tx, name)
    row = tx.one(f"{_SHOWN} WHERE t.repository_id = ? AND t.name = ?", repository.id, tag)
    return _shown(tx, row) if row is not None else None


def shown_page(tx: Tx, name: str, part: str, order: str, count: int, skip: int) -> tuple[int, list[Shown]]:
    """The number of tags that have ``part`` in their name, and a page of them.

    :param order: ``last_updated`` (newest first, as on Docker Hub) or ``name``; a ``-`` in front reverses it.
    :raises Refusal: ``NAME_UNKNOWN``.
    """
    repository = repositories.needed(tx, name)
    literal = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    words = {
        "last_updated": "t.updated DESC, t.name", "-last_updated": "t.updated, t.name",
        "name": "t.name", "-name": "t.name DESC",
    }  # fmt: skip
    where = " WHERE t.repository_id = ? AND t.name LIKE ? ESCAPE '\\'"
    total = tx.one(f"SELECT count(*) FROM tag t{where}", repository.id, f"%{literal}%")
    rows = tx.all(
        f"{_SHOWN}{where} ORDER BY {words[order]} LIMIT ? OFFSET ?",
        repository.id, f"%{literal}%", count, skip,
    )  # fmt: skip
    return int(total[0]) if total is not None else 0, [_shown(tx, row) for row in rows]


def expire(tx: Tx, name: str, tag: str, at: int | None) -> None:
    """Set or remove the time at which a tag is deleted.

    :raises Refusal: no such tag, or a rule makes it immutable.
    """
    repository = repositories.needed(tx, name)
    if at is not None:
        rules.check_mutable(tx, name, tag)
    if not tx.run("UPDATE tag SET expires = ? WHERE repository_id = ? AND name = ?", at, repository.id, tag):
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no tag {tag}")


def expired(tx: Tx, count: int) -> list[tuple[str, str, str]]:
    """The repository, the tag and the digest of each expired tag."""
    rows = tx.all(
        "SELECT r.name, t.name, m.digest FROM tag t JOIN repository r ON r.id = t.repository_id"
        " JOIN manifest m ON m.id = t.manifest_id WHERE t.expires <= ? AND r.deleted IS NULL LIMIT ?",
        now(), count,
    )  # fmt: skip
    return [(row[0], row[1], row[2]) for row in rows]
