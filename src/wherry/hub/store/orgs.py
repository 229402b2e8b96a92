"""Rows of organisations: namespaces that several accounts share. An owner has all rights in its repositories,
an editor can push, a member can read private repositories."""

from __future__ import annotations

from wherry.errors import Conflict, NotFound
from wherry.hub.core import names
from wherry.hub.store import accounts
from wherry.hub.store.sql import Tx, now


def add(tx: Tx, name: str, owner: str) -> None:
    """:raises Conflict: the name is in use, or too similar to the name of an account.
    :raises NotFound: no such owner.
    """
    if tx.one("SELECT 1 FROM account WHERE folded = ?", names.folded(name)) is not None:
        raise Conflict(f"name {name!r}, or a similar name, belongs to an account")
    made = tx.run("INSERT INTO namespace (name, created) VALUES (?, ?) ON CONFLICT DO NOTHING", name, now())
    if not made:
        raise Conflict(f"namespace {name!r} already exists")
    set_role(tx, name, owner, "owner")


def namespace(tx: Tx, name: str) -> int:
    """The id of an organisation. :raises NotFound:"""
    row = tx.one("SELECT id FROM namespace WHERE name = ? AND owner_id IS NULL AND name <> ''", name)
    if row is None:
        raise NotFound(f"no such organisation: {name}")
    return int(row[0])


def set_role(tx: Tx, name: str, account: str, role: str | None) -> None:
    """Give an account a role of :data:`~wherry.hub.core.rights.ROLES`; None removes the account. Its bearer
    tokens become invalid within seconds.

    :raises NotFound: no such organisation or account.
    :raises Conflict: the organisation would have no owner.
    """
    space, member = namespace(tx, name), accounts.needed(tx, account)
    tx.run("DELETE FROM org_member WHERE namespace_id = ? AND account_id = ?", space, member.id)
    if role is not None:
        tx.run(
            "INSERT INTO org_member (namespace_id, account_id, role) VALUES (?, ?, ?)", space, member.id, role
        )
    if tx.one("SELECT 1 FROM org_member WHERE namespace_id = ? AND role = 'owner'", space) is None:
        raise Conflict(f"organisation {name} would have no owner")
    accounts.revoke(tx, f"account:{member.id}")


def members(tx: Tx, name: str) -> list[tuple[str, str]]:
    """The account and the role of each member. :raises NotFound:"""
    rows = tx.all(
        "SELECT a.name, m.role FROM org_member m JOIN account a ON a.id = m.account_id"
        " WHERE m.namespace_id = ? ORDER BY a.name",
        namespace(tx, name),
    )
    return [(row[0], row[1]) for row in rows]


def all_of(tx: Tx) -> list[tuple[str, int]]:
    """The name and the number of members of each organisation."""
    rows = tx.all(
        "SELECT n.name, count(*) FROM namespace n JOIN org_member m ON m.namespace_id = n.id"
        " GROUP BY n.name ORDER BY n.name"
    )
    return [(row[0], int(row[1])) for row in rows]
