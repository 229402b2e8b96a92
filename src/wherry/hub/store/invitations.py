"""Rows of invitations: to sign up, and to an organisation. The link has a secret, of which the hash is kept;
it works once, for 24 hours, and only for the address that it was sent to, if there is one."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import NotFound
from wherry.hub.store import accounts, orgs
from wherry.hub.store.sql import Row, Tx, now

LIFE = 86400


@dataclass(frozen=True)
class Invitation:
    """``organisation`` is empty for one that only lets somebody sign up."""

    id: int
    email: str
    organisation: str
    role: str
    invited_by: str
    created: int
    expires: int


_COLUMNS = (
    "SELECT i.id, i.email, coalesce(n.name, ''), i.role, i.invited_by, i.created, i.expires FROM invitation i"
    " LEFT JOIN namespace n ON n.id = i.namespace_id WHERE i.used IS NULL AND i.expires > ?"
)


def _made(row: Row) -> Invitation:
    return Invitation(int(row[0]), row[1], row[2], row[3], row[4], int(row[5]), int(row[6]))


def add(tx: Tx, hashed: str, email: str, organisation: str, role: str, by: str) -> int:
    """:param organisation: empty: only to sign up. :raises NotFound: no such organisation."""
    space = orgs.namespace(tx, organisation) if organisation else None
    row = tx.one(
        "INSERT INTO invitation (hash, email, namespace_id, role, invited_by, created, expires)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        hashed, email.lower(), space, role, by, now(), now() + LIFE,
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def by_hash(tx: Tx, hashed: str) -> Invitation | None:
    row = tx.one(f"{_COLUMNS} AND i.hash = ?", now(), hashed)
    return _made(row) if row is not None else None


def open_ones(tx: Tx, organisation: str) -> list[Invitation]:
    """Those that can still be used, of an organisation (empty: only to sign up), newest first."""
    rows = tx.all(f"{_COLUMNS} AND coalesce(n.name, '') = ? ORDER BY i.id DESC", now(), organisation)
    return [_made(row) for row in rows]


def withdraw(tx: Tx, number: int, organisation: str) -> None:
    """:raises NotFound:"""
    if not any(one.id == number for one in open_ones(tx, organisation)):
        raise NotFound(f"no such invitation: {number}")
    tx.run("DELETE FROM invitation WHERE id = ?", number)


def accept(tx: Tx, hashed: str, account: str) -> Invitation:
    """Use an invitation: the account becomes a member.

    :raises NotFound: it does not exist, is used or has expired; another request used it first.
    """
    found = by_hash(tx, hashed)
    if found is None or not tx.run(
        "UPDATE invitation SET used = ? WHERE id = ? AND used IS NULL", now(), found.id
    ):
        raise NotFound("the invitation is not valid any more")
    if found.organisation:
        space = orgs.namespace(tx, found.organisation)
        member = accounts.needed(tx, account).id
        there = tx.one("SELECT role FROM org_member WHERE namespace_id = ? AND account_id = ?", space, member)
        if there is None:  # an invitation never lowers the role that somebody has
            orgs.set_role(tx, found.organisation, account, found.role)
    return found
