"""``wherry-hub team``, ``robot`` and ``trust``: rights of people and programs in an organisation."""

from __future__ import annotations

import argparse

from wherry.errors import InvalidArgument
from wherry.hub.auth import secrets
from wherry.hub.cli import config
from wherry.hub.cli.common import (
    Commands,
    by_number,
    change,
    command,
    finish,
    group,
    look,
    note,
    removal,
    shown,
)
from wherry.hub.cli.config import HubConfig
from wherry.hub.core import globs
from wherry.hub.core.rights import LEVELS
from wherry.hub.store import accounts, teams
from wherry.hub.store.sql import Tx, now


def add(commands: Commands) -> None:
    _add_teams(commands)
    _add_robots(commands)
    _add_trusts(commands)


def _add_teams(commands: Commands) -> None:
    inside = group(commands, "team", "manage teams: accounts of an organisation that share rights")
    for word, text, run in (("add", "create a team", _team_add), ("rm", "remove a team", _team_rm)):
        one = inside.add_parser(word, help=text)
        one.add_argument("team", metavar="ORGANISATION/TEAM")
        finish(one, run)
    member = inside.add_parser("member", help="add an account to a team, or remove it")
    member.add_argument("team", metavar="ORGANISATION/TEAM")
    member.add_argument("account")
    member.add_argument("--remove", action="store_true")
    finish(member, _team_member)
    grant = inside.add_parser("grant", help="grant the team a level in a repository, or in all")
    grant.add_argument("team", metavar="ORGANISATION/TEAM")
    grant.add_argument("repository", help="team/app, or * for all repositories of the organisation")
    grant.add_argument("level", choices=[*LEVELS, "none"])
    finish(grant, _team_grant)
    command(inside, "ls", "list an organisation's teams", _team_ls, "organisation")


def _add_robots(commands: Commands) -> None:
    inside = group(commands, "robot", "manage robots: accounts for programs, without a password")
    new = inside.add_parser("add", help="create a robot and its token; the token is shown once")
    new.add_argument("robot", metavar="ORGANISATION+NAME")
    new.add_argument("--level", choices=sorted(teams.ROBOT_ROLES), default="read")
    new.add_argument(
        "--repository",
        action="append",
        default=[],
        help="limit its token to repositories: team/app, or team/*",
    )
    new.add_argument(
        "--expires", metavar="TIME", default="365d", help="life of its token: 90d, 24h, … or never"
    )
    new.add_argument("--no-token", action="store_true", help="create no token; the robot logs in by a trust")
    finish(new, _robot_add)
    command(inside, "ls", "list an organisation's robots", _robot_ls, "organisation")
    command(inside, "rm", "remove a robot and its tokens", _robot_rm, "robot=ORGANISATION+NAME")


def _add_trusts(commands: Commands) -> None:
    inside = group(commands, "trust", "let CI jobs log in as a robot with their OIDC tokens")
    new = inside.add_parser("add", help="trust tokens of an issuer")
    new.add_argument("robot", metavar="ORGANISATION+NAME")
    new.add_argument("issuer", help="the iss of its tokens: https://token.ci.example")
    new.add_argument("--subject", required=True, metavar="PATTERN", help="a pattern for sub: repo:me/app:*")
    new.add_argument("--audience", required=True, help="the value of aud, for example the hub's address")
    finish(new, _trust_add)
    command(inside, "ls", "list trusts", _trust_ls)
    by_number(inside, "rm", "remove a trust", removal("trust", teams.remove_trust))


def _parts(text: str, mark: str) -> tuple[str, str]:
    org, there, name = text.partition(mark)
    if not there or not org or not name:
        raise InvalidArgument(f"invalid name {text!r}: use ORGANISATION{mark}NAME")
    return org, name


async def _team_add(given: argparse.Namespace, settings: HubConfig) -> int:
    org, name = _parts(given.team, "/")

    def work(tx: Tx) -> None:
        teams.add(tx, org, name)
        note(tx, "team.add", team=given.team)

    await change(settings, work)
    print(f"team {given.team} added")
    return 0


async def _team_rm(given: argparse.Namespace, settings: HubConfig) -> int:
    org, name = _parts(given.team, "/")

    def work(tx: Tx) -> None:
        teams.remove(tx, org, name)
        note(tx, "team.remove", team=given.team)

    await change(settings, work)
    print(f"team {given.team} removed")
    return 0


async def _team_member(given: argparse.Namespace, settings: HubConfig) -> int:
    org, name = _parts(given.team, "/")

    def work(tx: Tx) -> None:
        teams.set_member(tx, org, name, given.account, not given.remove)
        note(tx, "team.member", team=given.team, account=given.account, out=given.remove)

    await change(settings, work)
    print(f"{given.account} {'removed from' if given.remove else 'added to'} team {given.team}")
    return 0


async def _team_grant(given: argparse.Namespace, settings: HubConfig) -> int:
    org, name = _parts(given.team, "/")
    level = None if given.level == "none" else given.level

    def work(tx: Tx) -> None:
        teams.grant(tx, org, name, given.repository, level)
        note(tx, "team.grant", team=given.team, repository_=given.repository, level=given.level)

    await change(settings, work)
    print(f"team {given.team} now has {given.level} in {given.repository}")
    return 0


async def _team_ls(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, lambda tx: teams.all_of(tx, given.organisation))
    rows = [
        (one.name, " ".join(one.members), " ".join(f"{place}:{level}" for place, level in one.grants))
        for one in found
    ]
    return shown(("TEAM", "MEMBERS", "MAY"), rows)


async def _robot_add(given: argparse.Namespace, settings: HubConfig) -> int:
    org, name = _parts(given.robot, teams.ROBOT)
    secret, expires = secrets.make(), config.duration_or_never(given.expires)

    def work(tx: Tx) -> None:
        account = teams.add_robot(tx, org, name, given.level)
        note(tx, "robot.add", robot=given.robot, level=given.level)
        if not given.no_token:
            accounts.add_token(
                tx, account, kind="personal", name="robot", hashed=secrets.hashed(secret),
                prefix=secrets.shown(secret), scope=given.level, patterns=tuple(given.repository),
                expires=now() + expires if expires is not None else None,
            )  # fmt: skip

    await change(settings, work)
    print(f"robot {given.robot} added" if given.no_token else secret)
    return 0


async def _robot_ls(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, lambda tx: teams.robots(tx, given.organisation))
    levels = {role: level for level, role in teams.ROBOT_ROLES.items()}
    return shown(("ROBOT", "LEVEL"), [(name, levels.get(role, role)) for name, role in found])


async def _robot_rm(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        teams.remove_robot(tx, given.robot)
        note(tx, "robot.remove", robot=given.robot)

    await change(settings, work)
    print(f"robot {given.robot} removed")
    return 0


async def _trust_add(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.remote import issuers

    issuer, subject = issuers.check(given.issuer), globs.check(given.subject)

    def work(tx: Tx) -> int:
        made = teams.add_trust(tx, given.robot, issuer, given.audience, subject)
        note(tx, "trust.add", trust=made, robot=given.robot, issuer=issuer)
        return made

    print(f"trust {await change(settings, work)} added")
    return 0


async def _trust_ls(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, teams.trusts)
    rows = [(str(one.id), one.robot, one.issuer, one.audience, one.subject) for one in found]
    return shown(("ID", "ROBOT", "ISSUER", "AUDIENCE", "SUBJECT"), rows)
