"""Rows of teams (accounts of an organisation that share the same rights) and of robots (accounts for
programs)."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.hub.core import names
from wherry.hub.store import accounts, orgs, repositories
from wherry.hub.store.sql import Broken, Tx, now

ROBOT = "+"
"""Separates the organisation from the name of a robot. Names of other accounts cannot contain it."""
ROBOT_ROLES = {"read": "member", "write": "editor"}


def add(tx: Tx, org: str, team: str) -> None:
    """:raises Conflict: the team already exists. :raises NotFound: no such organisation."""
    try:
        tx.run(
            "INSERT INTO team (namespace_id, name, created) VALUES (?, ?, ?)",
            orgs.namespace(tx, org), names.check_account(team, reserved=True), now(),
        )  # fmt: skip
    except Broken as e:
        raise Conflict(f"team {org}/{team} already exists") from e


def _team(tx: Tx, org: str, team: str) -> int:
    row = tx.one("SELECT id FROM team WHERE namespace_id = ? AND name = ?", orgs.namespace(tx, org), team)
    if row is None:
        raise NotFound(f"no such team: {org}/{team}")
    return int(row[0])


def remove(tx: Tx, org: str, team: str) -> None:
    """Its members lose the team's rights within seconds. :raises NotFound:"""
    number = _team(tx, org, team)
    _revoke(tx, number)
    tx.run("DELETE FROM team WHERE id = ?", number)


def set_member(tx: Tx, org: str, team: str, account: str, member: bool) -> None:
    """:raises NotFound:"""
    number, one = _team(tx, org, team), accounts.needed(tx, account)
    tx.run("DELETE FROM team_member WHERE team_id = ? AND account_id = ?", number, one.id)
    if member:
        tx.run("INSERT INTO team_member (team_id, account_id) VALUES (?, ?)", number, one.id)
    accounts.revoke(tx, f"account:{one.id}")


def leave(tx: Tx, org: str, account: str) -> None:
    """Take an account out of all teams of an organisation. :raises NotFound:"""
    one = accounts.needed(tx, account)
    tx.run(
        "DELETE FROM team_member WHERE account_id = ? AND team_id IN"
        " (SELECT id FROM team WHERE namespace_id = ?)",
        one.id, orgs.namespace(tx, org),
    )  # fmt: skip


def grant(tx: Tx, org: str, team: str, repository: str, level: str | None) -> None:
    """Grant a team a level in a repository of its organisation, or in all (``*``); None revokes the grant.

    :raises NotFound: no such team or repository.
    :raises InvalidArgument: the repository belongs to another namespace.
    """
    number = _team(tx, org, team)
    if repository == "*":
        tx.run("DELETE FROM team_grant WHERE team_id = ? AND repository_id IS NULL", number)
        place = None
    else:
        if names.namespace_of(repository) != org:
            raise InvalidArgument(f"repository {repository} does not belong to organisation {org}")
        place = repositories.needed(tx, repository).id
        tx.run("DELETE FROM team_grant WHERE team_id = ? AND repository_id = ?", number, place)
    if level is not None:
        tx.run(
            "INSERT INTO team_grant (team_id, repository_id, level) VALUES (?, ?, ?)", number, place, level
        )
    _revoke(tx, number)


def _revoke(tx: Tx, team: int) -> None:
    for (account,) in tx.all("SELECT account_id FROM team_member WHERE team_id = ?", team):
        accounts.revoke(tx, f"account:{account}")


@dataclass(frozen=True)
class Team:
    name: str
    members: list[str]
    grants: list[tuple[str, str]]
    """The repository (``*`` for all) and the level of each grant."""


def all_of(tx: Tx, org: str) -> list[Team]:
    """:raises NotFound: no such organisation."""
    found = []
    for number, name in tx.all(
        "SELECT id, name FROM team WHERE namespace_id = ? ORDER BY name", orgs.namespace(tx, org)
    ):
        members = tx.all(
            "SELECT a.name FROM team_member m JOIN account a ON a.id = m.account_id"
            " WHERE m.team_id = ? ORDER BY a.name",
            number,
        )
        grants = tx.all(
            "SELECT coalesce(r.name, '*'), g.level FROM team_grant g"
            " LEFT JOIN repository r ON r.id = g.repository_id WHERE g.team_id = ? ORDER BY 1",
            number,
        )
        found.append(Team(name, [row[0] for row in members], [(row[0], row[1]) for row in grants]))
    return found


def add_robot(tx: Tx, org: str, name: str, level: str) -> int:
    """Create the account ``org+name``. It has no password, and can read or write in the organisation.

    :returns: its id.
    :raises Conflict: the robot already exists.
    :raises NotFound: no such organisation.
    """
    space = orgs.namespace(tx, org)
    full = f"{org}{ROBOT}{names.check_account(name, reserved=True)}"
    try:
        row = tx.one(
            "INSERT INTO account (name, folded, password, created) VALUES (?, ?, '', ?) RETURNING id",
            full, full, now(),
        )  # fmt: skip
    except Broken as e:
        raise Conflict(f"robot {full} already exists") from e
    assert row is not None
    tx.run(
        "INSERT INTO org_member (namespace_id, account_id, role) VALUES (?, ?, ?)",
        space, row[0], ROBOT_ROLES[level],
    )  # fmt: skip
    return int(row[0])


def robots(tx: Tx, org: str) -> list[tuple[str, str]]:
    """The name and the role of each robot. :raises NotFound: no such organisation."""
    return [(name, role) for name, role in orgs.members(tx, org) if ROBOT in name]


def remove_robot(tx: Tx, full: str) -> None:
    """Remove a robot and its tokens. :raises NotFound:"""
    account = accounts.needed(tx, full)
    if ROBOT not in full:
        raise NotFound(f"no such robot: {full}")
    accounts.revoke(tx, f"account:{account.id}")
    tx.run("DELETE FROM account WHERE id = ?", account.id)


@dataclass(frozen=True)
class Trust:
    """:ivar subject: a pattern that must match the token's ``sub``."""

    id: int
    account: int
    robot: str
    issuer: str
    audience: str
    subject: str


_TRUST = "t.id, t.account_id, a.name, t.issuer, t.audience, t.subject"


def add_trust(tx: Tx, robot: str, issuer: str, audience: str, subject: str) -> int:
    """:raises NotFound: no such robot."""
    if ROBOT not in robot:
        raise InvalidArgument(f"no such robot: {robot}: use ORGANISATION{ROBOT}NAME")
    row = tx.one(
        "INSERT INTO trust (account_id, issuer, audience, subject, created) VALUES (?, ?, ?, ?, ?)"
        " RETURNING id",
        accounts.needed(tx, robot).id, issuer, audience, subject, now(),
    )  # fmt: skip
    assert row is not None
    return int(row[0])


def trusts(tx: Tx, robot: str = "") -> list[Trust]:
    """The trusts of an active robot; those of all robots if the name is empty."""
    rows = tx.all(
        f"SELECT {_TRUST} FROM trust t JOIN account a ON a.id = t.account_id"
        " WHERE (? = '' OR (a.name = ? AND a.active)) ORDER BY t.id",
        robot, robot,
    )  # fmt: skip
    return [Trust(int(row[0]), int(row[1]), *row[2:]) for row in rows]


def remove_trust(tx: Tx, number: int) -> None:
    """Sessions that began with this trust end within seconds. :raises NotFound:"""
    if not tx.run("DELETE FROM trust WHERE id = ?", number):
        raise NotFound(f"no such trust: {number}")
    accounts.revoke(tx, f"trust:{number}")
