"""Rows of repositories, and the rights of callers in them."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import NotFound
from wherry.hub.core import names, rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import Actions, Principal
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Row, Tx, now


@dataclass(frozen=True)
class RepositoryRow:
    id: int
    namespace: int
    name: str
    public: bool


def find(tx: Tx, name: str) -> RepositoryRow | None:
    row = tx.one(
        "SELECT id, namespace_id, name, public FROM repository WHERE name = ? AND deleted IS NULL", name
    )
    return _repository(row) if row else None


def _repository(row: Row) -> RepositoryRow:
    return RepositoryRow(int(row[0]), int(row[1]), row[2], bool(row[3]))


def needed(tx: Tx, name: str) -> RepositoryRow:
    """:raises Refusal: ``NAME_UNKNOWN``."""
    found = find(tx, name)
    if found is None:
        raise unknown(name)
    return found


def unknown(name: str) -> Refusal:
    return Refusal("NAME_UNKNOWN", f"repository name not known to registry: {name}", detail={"name": name})


def renamed(tx: Tx, name: str) -> str | None:
    """The present name of the repository that had this one before (see :mod:`wherry.hub.store.aliases`); None
    if there is none."""
    row = tx.one(
        "SELECT r.name FROM repository_alias a JOIN repository r ON r.id = a.repository_id"
        " WHERE a.name = ? AND r.deleted IS NULL",
        name,
    )
    return str(row[0]) if row is not None else None


def allowed(tx: Tx, caller: Principal, name: str) -> Actions:
    """The rights of ``caller`` in ``name`` according to rows, whether the repository exists or not."""
    row = tx.one(
        "SELECT r.public, n.owner_id, m.role, g.level, r.proxy_id, r.archived FROM repository r"
        " JOIN namespace n ON n.id = r.namespace_id"
        " LEFT JOIN org_member m ON m.namespace_id = n.id AND m.account_id = ?"
        " LEFT JOIN access_grant g ON g.repository_id = r.id AND g.account_id = ?"
        " WHERE r.name = ? AND r.deleted IS NULL",
        caller.account, caller.account, name,
    )  # fmt: skip
    if row is None:
        after = renamed(tx, name)
        if after is not None:
            return allowed(tx, caller, after) & rights.READ
        # Only callers who can create the repository may learn that it does not exist.
        row = tx.one(
            "SELECT FALSE, n.owner_id, m.role, NULL, NULL, FALSE FROM namespace n"
            " LEFT JOIN org_member m ON m.namespace_id = n.id AND m.account_id = ? WHERE n.name = ?",
            caller.account, names.namespace_of(name),
        )  # fmt: skip
        through = _proxy_for(tx, name)
    else:
        through = None
    public, owner, role, level, copied, archived = (
        row if row is not None else (False, None, None, None, None, None)
    )
    if through is not None:
        public = bool(through[1])
        # The namespace of a proxy contains only copies. A mirror does not affect the namespaces of accounts.
        copied = through[0] or None
    given = rights.READ if public else rights.NOTHING
    if caller.known:
        if caller.admin or owner == caller.account:
            given = rights.ADMIN
        given |= rights.ROLES.get(role or "", rights.NOTHING) | rights.LEVELS.get(level or "", rights.NOTHING)
        given |= _by_teams(tx, caller, name)
        if through is not None or copied is not None:
            given |= rights.READ
        if copied is not None or archived:
            given -= {rights.PUSH}
    return rights.limited(caller, name, given, public=bool(public))


def _by_teams(tx: Tx, caller: Principal, name: str) -> Actions:
    """The levels granted to the caller's teams, in the repository or in all of the organisation."""
    rows = tx.all(
        "SELECT g.level FROM team_member m JOIN team t ON t.id = m.team_id JOIN team_grant g"
        " ON g.team_id = t.id JOIN namespace n ON n.id = t.namespace_id"
        " LEFT JOIN repository r ON r.id = g.repository_id"
        " WHERE m.account_id = ? AND n.name = ? AND (g.repository_id IS NULL"
        " OR (r.name = ? AND r.deleted IS NULL))",
        caller.account, names.namespace_of(name), name,
    )  # fmt: skip
    return rights.NOTHING.union(*(rights.LEVELS[row[0]] for row in rows))


def _proxy_for(tx: Tx, name: str) -> Row | None:
    """The namespace (empty: the mirror) and the visibility of the proxy for a name that the hub does not
    have."""
    return tx.one(
        "SELECT namespace, public FROM proxy WHERE namespace = ? OR namespace = ''"
        " ORDER BY namespace DESC LIMIT 1",
        names.namespace_of(name),
    )


def allowed_to(tx: Tx, caller: Principal, name: str) -> Actions:
    """The rights of ``caller`` in ``name``: those that the bearer token lists, or else those in rows.
    Everybody can read a public repository, whatever the token lists."""
    if caller.access is None:
        return allowed(tx, caller, name)
    listed = caller.access.get(name, rights.NOTHING)
    if rights.PULL in listed:
        return listed
    found = find(tx, name)
    return listed | rights.READ if found is not None and found.public else listed


def ensure(tx: Tx, name: str, settings: HubSettings) -> RepositoryRow:
    """The repository; created if it does not exist. The caller's right must be checked before.

    :raises Refusal: ``DENIED``: the namespace has the maximum number of repositories.
    """
    found = find(tx, name)
    if found is not None:
        return found
    after = renamed(tx, name)
    if after is not None:
        raise Refusal("DENIED", f"{name} was renamed to {after}", detail={"name": after})
    space = names.namespace_of(name)
    tx.run("INSERT INTO namespace (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING", space, now())
    row = tx.one("SELECT id FROM namespace WHERE name = ?", space)
    assert row is not None
    count = tx.one("SELECT count(*) FROM repository WHERE namespace_id = ? AND deleted IS NULL", row[0])
    if count is not None and count[0] >= settings.repositories_max:
        raise Refusal(
            "DENIED", f"namespace {space!r} already has {count[0]} repositories, which is the maximum"
        )
    tx.run(
        "INSERT INTO repository (namespace_id, name, public, created) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) WHERE deleted IS NULL DO NOTHING",
        row[0], name, settings.public, now(),
    )  # fmt: skip
    return needed(tx, name)


def set_public(tx: Tx, name: str, public: bool) -> None:
    repository = needed(tx, name)
    tx.run("UPDATE repository SET public = ? WHERE id = ?", public, repository.id)


def grant(tx: Tx, name: str, account: int, level: str | None) -> None:
    """Grant an account a level of :data:`~wherry.hub.core.rights.LEVELS` in a repository; None revokes it."""
    repository = needed(tx, name)
    tx.run("DELETE FROM access_grant WHERE repository_id = ? AND account_id = ?", repository.id, account)
    if level is not None:
        tx.run(
            "INSERT INTO access_grant (account_id, repository_id, level) VALUES (?, ?, ?)",
            account, repository.id, level,
        )  # fmt: skip


def grants(tx: Tx, repository: int) -> list[tuple[str, str]]:
    """The account and the level of each grant in a repository."""
    rows = tx.all(
        "SELECT a.name, g.level FROM access_grant g JOIN account a ON a.id = g.account_id"
        " WHERE g.repository_id = ? ORDER BY a.name",
        repository,
    )
    return [(row[0], row[1]) for row in rows]


VISIBLE = (
    "(r.public OR ? OR r.namespace_id IN (SELECT id FROM namespace WHERE owner_id = ?)"
    " OR r.namespace_id IN (SELECT namespace_id FROM org_member WHERE account_id = ?)"
    " OR r.id IN (SELECT repository_id FROM access_grant WHERE account_id = ?)"
    " OR EXISTS (SELECT 1 FROM team_member m JOIN team t ON t.id = m.team_id JOIN team_grant g"
    " ON g.team_id = t.id WHERE m.account_id = ? AND t.namespace_id = r.namespace_id"
    " AND (g.repository_id IS NULL OR g.repository_id = r.id)))"
)
"""A condition on ``repository r``: whether the caller can read it; its parameters are :func:`viewer`."""


def viewer(caller: Principal) -> tuple[bool, int | None, int | None, int | None, int | None]:
    """The parameters of :data:`VISIBLE`."""
    sees = caller.known and caller.scope != "public_read"
    account = caller.account if sees else None
    return caller.admin and sees, account, account, account, account


def page(tx: Tx, caller: Principal, last: str, count: int) -> list[str]:
    """The names of repositories that the caller can read, in byte order, after ``last``."""
    found: list[str] = []
    while len(found) < count:
        rows = tx.all(
            f"SELECT r.name, r.public FROM repository r WHERE r.deleted IS NULL AND r.name > ? AND {VISIBLE}"
            " ORDER BY r.name LIMIT ?",
            last, *viewer(caller), count,
        )  # fmt: skip
        for name, public in rows:
            last = name
            if rights.PULL in rights.limited(caller, name, rights.READ, public=bool(public)):
                found.append(name)
        if len(rows) < count:
            break
    return found[:count]


def use(tx: Tx, repository: RepositoryRow, size: int) -> None:
    """Add ``size`` bytes (may be negative) to the sum of the repository's namespace.

    :raises Refusal: ``DENIED``: the quota would be exceeded. The check and the addition are one statement, so
        parallel pushes cannot exceed the quota together.
    """
    done = tx.run(
        "UPDATE namespace SET used_bytes = used_bytes + ? WHERE id = ?"
        " AND (quota_bytes IS NULL OR ? <= 0 OR used_bytes + ? <= quota_bytes)",
        size, repository.namespace, size, size,
    )  # fmt: skip
    if not done:
        raise over_quota(tx, repository, size)


def check_quota(tx: Tx, repository: RepositoryRow, size: int) -> None:
    """:raises Refusal: ``DENIED``: at present, ``size`` more bytes would exceed the quota."""
    row = tx.one("SELECT quota_bytes, used_bytes FROM namespace WHERE id = ?", repository.namespace)
    if row is not None and row[0] is not None and row[1] + size > row[0]:
        raise over_quota(tx, repository, size)


def over_quota(tx: Tx, repository: RepositoryRow, size: int) -> Refusal:
    row = tx.one("SELECT name, quota_bytes, used_bytes FROM namespace WHERE id = ?", repository.namespace)
    assert row is not None
    return Refusal(
        "DENIED",
        f"quota exceeded: namespace {row[0]!r} uses {row[2]} of {row[1]} bytes, {size} more are needed",
        detail={"quota": row[1], "used": row[2], "wanted": size},
    )


@dataclass(frozen=True)
class RepositoryLine:
    """A repository in a list. ``size`` is the sum of its blobs, in bytes."""

    name: str
    public: bool
    tags: int
    size: int
    pulls: int
    pushed: int | None


def overview(tx: Tx) -> list[RepositoryLine]:
    rows = tx.all(
        "SELECT r.name, r.public, (SELECT count(*) FROM tag t WHERE t.repository_id = r.id),"
        " (SELECT coalesce(sum(b.size), 0) FROM repository_blob l JOIN blob b ON b.id = l.blob_id"
        "  WHERE l.repository_id = r.id), r.pulls, r.pushed"
        " FROM repository r WHERE r.deleted IS NULL ORDER BY r.name"
    )
    return [
        RepositoryLine(row[0], bool(row[1]), int(row[2]), int(row[3]), int(row[4]), row[5]) for row in rows
    ]


def delete(tx: Tx, name: str) -> None:
    """Delete a repository. Its name is free at once. It can be restored until ``keep_deleted`` has passed."""
    repository = needed(tx, name)
    tx.run("UPDATE repository SET deleted = ? WHERE id = ?", now(), repository.id)


def undelete(tx: Tx, name: str) -> bool:
    """Restore the last deleted repository with this name. :returns: whether there was one.

    :raises Refusal: ``DENIED``: another repository has this name now.
    """
    row = tx.one(
        "SELECT id FROM repository WHERE name = ? AND deleted IS NOT NULL"
        " ORDER BY deleted DESC, id DESC LIMIT 1",
        name,
    )
    if row is None:
        return False
    if find(tx, name) is not None:
        raise Refusal("DENIED", f"another repository {name} exists now: delete it first")
    tx.run("UPDATE repository SET deleted = NULL WHERE id = ?", row[0])
    return True


def set_quota(tx: Tx, namespace: str, quota: int | None) -> None:
    """:raises NotFound: no such namespace."""
    if not tx.run("UPDATE namespace SET quota_bytes = ? WHERE name = ?", quota, namespace):
        raise NotFound(f"no such namespace: {namespace!r}")
