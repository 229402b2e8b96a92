"""Rows of earlier names of repositories. A name that was given up stays taken: whoever pulls it gets the
content of the repository that had it, and nobody else can put other content under it."""

from __future__ import annotations

from wherry.errors import Conflict, NotFound
from wherry.hub.core import names
from wherry.hub.store import accounts, repositories
from wherry.hub.store.sql import Tx, now


def of(tx: Tx, repository: int) -> list[str]:
    rows = tx.all("SELECT name FROM repository_alias WHERE repository_id = ? ORDER BY created", repository)
    return [row[0] for row in rows]


def release(tx: Tx, repository: int, name: str) -> None:
    """Give an earlier name up: others can use it. :raises NotFound:"""
    if not tx.run("DELETE FROM repository_alias WHERE repository_id = ? AND name = ?", repository, name):
        raise NotFound(f"no such earlier name: {name}")


def rename(tx: Tx, before: str, after: str) -> None:
    """Rename a repository, within its namespace or to another one; what it uses of the quota moves with it.
    Bearer tokens for either name become invalid within seconds.

    :raises Conflict: the new name is in use.
    :raises Refusal: no such repository, an invalid name, or the quota of the other namespace is too small.
    :raises NotFound: no such namespace.
    """
    names.check_repository(after)
    repository = repositories.needed(tx, before)
    if before == after:
        return
    holder = tx.one("SELECT repository_id FROM repository_alias WHERE name = ?", after)
    if repositories.find(tx, after) is not None or (holder is not None and holder[0] != repository.id):
        raise Conflict(f"the name {after} is in use")
    space = tx.one("SELECT id FROM namespace WHERE name = ?", names.namespace_of(after))
    if space is None:
        raise NotFound(f"no such namespace: {names.namespace_of(after)}")
    tx.run("DELETE FROM repository_alias WHERE name = ?", after)
    if space[0] != repository.namespace:
        _move(tx, repository, int(space[0]))
    tx.run("UPDATE repository SET name = ?, namespace_id = ? WHERE id = ?", after, space[0], repository.id)
    tx.run(
        "INSERT INTO repository_alias (name, repository_id, created) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET repository_id = excluded.repository_id, created ="
        " excluded.created",
        before, repository.id, now(),
    )  # fmt: skip
    # Rules and webhooks that name exactly this repository go with it; patterns stay where they are.
    for table in ("tag_rule", "webhook"):
        tx.run(f"UPDATE {table} SET repository = ? WHERE repository = ?", after, before)
    for name in (before, after):
        accounts.revoke(tx, f"repository:{name}")


def _move(tx: Tx, repository: repositories.RepositoryRow, space: int) -> None:
    row = tx.one(
        "SELECT coalesce(sum(b.size), 0) FROM repository_blob l JOIN blob b ON b.id = l.blob_id"
        " WHERE l.repository_id = ?",
        repository.id,
    )
    size = int(row[0]) if row is not None else 0
    there = repositories.RepositoryRow(repository.id, space, repository.name, repository.public)
    repositories.use(tx, there, size)
    repositories.use(tx, repository, -size)
    # Grants to teams belong to the organisation that is left.
    tx.run("DELETE FROM team_grant WHERE repository_id = ?", repository.id)
