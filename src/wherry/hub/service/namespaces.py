"""Organisations and the namespaces of accounts: members, teams, robots, trusts, invitations, settings."""

from __future__ import annotations

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.hub.auth import secrets
from wherry.hub.core import names, rights
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import accounts, invitations, orgs, profiles, teams
from wherry.hub.store.invitations import Invitation
from wherry.hub.store.sql import Tx, now
from wherry.hub.store.teams import Team, Trust

_INVITATIONS_MAX = 100
ROBOT_TOKEN_DAYS = 365


def create(tx: Tx, caller: HubCaller, name: str, title: str = "") -> None:
    """The caller becomes its owner. :raises InvalidArgument: :raises Conflict: :raises Refusal:"""
    who.full(caller)
    names.check_account(name)
    orgs.add(tx, name, caller.name)
    found = profiles.namespace(tx, name)
    assert found is not None
    profiles.set_namespace(tx, found.id, title, "", "")
    caller.note(tx, "org.add", namespace=name, org=name)


def describe(tx: Tx, caller: HubCaller, name: str, title: str, about: str, link: str) -> None:
    """:raises Refusal: :raises NotFound: :raises InvalidArgument:"""
    profiles.set_namespace(tx, who.owned(tx, caller, name).id, title, about, link)
    caller.note(tx, "namespace.describe", namespace=name)


def remove(tx: Tx, caller: HubCaller, name: str) -> None:
    """:raises Refusal: :raises NotFound: :raises InvalidArgument: it has repositories."""
    who.organisation(tx, caller, name)
    profiles.remove_organisation(tx, name)
    caller.note(tx, "org.remove", namespace=name, org=name)


def members(tx: Tx, caller: HubCaller, name: str) -> list[tuple[str, str]]:
    """Accounts with their roles, without robots; members see them. :raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name, owner=False)
    return [(account, role) for account, role in orgs.members(tx, name) if teams.ROBOT not in account]


def set_role(tx: Tx, caller: HubCaller, name: str, account: str, role: str | None) -> None:
    """Add a member, change its role, or remove it (None); everybody can leave.

    :raises Refusal: :raises NotFound: :raises Conflict: nobody would own it. :raises InvalidArgument:
    """
    if role is not None or account != caller.name:
        who.organisation(tx, caller, name)
    else:
        who.organisation(tx, caller, name, owner=False)
    if role is not None and role not in rights.ROLES:
        raise InvalidArgument(f"no such role: {role[:40]!r}")
    if teams.ROBOT in account:
        raise InvalidArgument("a robot is not a member: its level is chosen when it is created")
    orgs.set_role(tx, name, account, role)
    if role is None:
        teams.leave(tx, name, account)
    caller.note(tx, "org.member", namespace=name, org=name, account=account, role=role or "none")


def all_teams(tx: Tx, caller: HubCaller, name: str) -> list[Team]:
    """:raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name, owner=False)
    return teams.all_of(tx, name)


def add_team(tx: Tx, caller: HubCaller, name: str, team: str) -> None:
    """:raises Refusal: :raises NotFound: :raises Conflict: :raises InvalidArgument:"""
    who.organisation(tx, caller, name)
    teams.add(tx, name, team)
    caller.note(tx, "team.add", namespace=name, team=team)


def remove_team(tx: Tx, caller: HubCaller, name: str, team: str) -> None:
    """:raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    teams.remove(tx, name, team)
    caller.note(tx, "team.remove", namespace=name, team=team)


def set_team_member(tx: Tx, caller: HubCaller, name: str, team: str, account: str, member: bool) -> None:
    """Only members of the organisation can be in its teams. :raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    if member and account not in dict(orgs.members(tx, name)):
        raise NotFound(f"{account} is not a member of {name}")
    teams.set_member(tx, name, team, account, member)
    caller.note(tx, "team.member", namespace=name, team=team, account=account, member=member)


def team_grant(tx: Tx, caller: HubCaller, name: str, team: str, repository: str, level: str | None) -> None:
    """:param repository: ``*``: all of the organisation. :raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    if level is not None and level not in rights.LEVELS:
        raise InvalidArgument(f"no such level: {level[:40]!r}")
    teams.grant(tx, name, team, repository, level)
    caller.note(tx, "team.grant", namespace=name, team=team, to=repository, level=level or "none")


def robots(tx: Tx, caller: HubCaller, name: str) -> list[tuple[str, str]]:
    """:raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    return teams.robots(tx, name)


def trusts(tx: Tx, caller: HubCaller, name: str) -> list[Trust]:
    """Of all robots of the organisation. :raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    return [one for one in teams.trusts(tx) if one.robot.startswith(f"{name}{teams.ROBOT}")]


def add_robot(tx: Tx, caller: HubCaller, name: str, robot: str, level: str, token: bool) -> str:
    """:returns: its token, which is shown once; empty without one. :raises Refusal: :raises Conflict:"""
    who.organisation(tx, caller, name)
    if level not in teams.ROBOT_ROLES:
        raise InvalidArgument(f"no such level: {level[:40]!r}")
    made = teams.add_robot(tx, name, robot, level)
    full = f"{name}{teams.ROBOT}{robot}"
    caller.note(tx, "robot.add", namespace=name, robot=full, level=level)
    if not token:
        return ""
    secret = secrets.make()
    accounts.add_token(
        tx, made, kind="personal", name="robot", hashed=secrets.hashed(secret), prefix=secrets.shown(secret),
        scope=level, expires=now() + ROBOT_TOKEN_DAYS * 86400, address=caller.address,
    )  # fmt: skip
    return secret


def _robot(name: str, full: str) -> str:
    if not full.startswith(f"{name}{teams.ROBOT}"):
        raise NotFound(f"no such robot of {name}: {full}")
    return full


def remove_robot(tx: Tx, caller: HubCaller, name: str, full: str) -> None:
    """:raises Refusal: :raises NotFound:"""
    who.organisation(tx, caller, name)
    teams.remove_robot(tx, _robot(name, full))
    caller.note(tx, "robot.remove", namespace=name, robot=full)


def add_trust(
    tx: Tx, caller: HubCaller, name: str, full: str, issuer: str, audience: str, subject: str
) -> int:
    """:raises Refusal: :raises NotFound: :raises InvalidArgument:"""
    who.organisation(tx, caller, name)
    if not issuer.startswith("https://") or not audience or not subject:
        raise InvalidArgument("a trust needs an https issuer, an audience and a subject")
    if subject.startswith("*"):
        raise InvalidArgument("the subject must not begin with *: it would trust everybody at the issuer")
    made = teams.add_trust(tx, _robot(name, full), issuer[:500], audience[:500], subject[:500])
    caller.note(tx, "trust.add", namespace=name, robot=full, issuer=issuer, subject=subject)
    return made


def remove_trust(tx: Tx, caller: HubCaller, name: str, number: int) -> None:
    """:raises Refusal: :raises NotFound:"""
    if number not in {one.id for one in trusts(tx, caller, name)}:
        raise NotFound(f"no such trust: {number}")
    teams.remove_trust(tx, number)
    caller.note(tx, "trust.remove", namespace=name, trust=number)


def invite(tx: Tx, caller: HubCaller, name: str, email: str, role: str) -> str:
    """Invite somebody to an organisation; if the name is empty, to sign up (administrators only).

    :returns: the secret of the link. :raises Refusal: :raises InvalidArgument: :raises Conflict: too many.
    """
    if name:
        who.organisation(tx, caller, name)
        if role not in rights.ROLES:
            raise InvalidArgument(f"no such role: {role[:40]!r}")
    else:
        who.administrator(caller)
        role = ""
    if len(invitations.open_ones(tx, name)) >= _INVITATIONS_MAX:
        raise Conflict(f"there are {_INVITATIONS_MAX} open invitations: withdraw some of them")
    secret = secrets.make()
    invitations.add(tx, secrets.hashed(secret), email, name, role, caller.name)
    caller.note(tx, "invitation.add", namespace=name, email=email, role=role)
    return secret


def open_invitations(tx: Tx, caller: HubCaller, name: str) -> list[Invitation]:
    """:raises Refusal: :raises NotFound:"""
    if name:
        who.organisation(tx, caller, name)
    else:
        who.administrator(caller)
    return invitations.open_ones(tx, name)


def withdraw(tx: Tx, caller: HubCaller, name: str, number: int) -> None:
    """:raises Refusal: :raises NotFound:"""
    open_invitations(tx, caller, name)
    invitations.withdraw(tx, number, name)
    caller.note(tx, "invitation.withdraw", namespace=name, invitation=number)


def accept(tx: Tx, caller: HubCaller, secret: str) -> Invitation:
    """:raises Refusal: nobody is logged in. :raises NotFound: the invitation is not valid (any more)."""
    assert caller.account
    found = invitations.accept(tx, secrets.hashed(secret), caller.name)
    if found.organisation:
        caller.note(tx, "invitation.accept", namespace=found.organisation, invitation=found.id)
    return found
