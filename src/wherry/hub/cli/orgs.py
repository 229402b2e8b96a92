"""``wherry-hub org``."""

from __future__ import annotations

import argparse

from wherry.hub.cli import stores
from wherry.hub.cli.accounts import ACTOR, Commands, finish
from wherry.hub.cli.config import HubConfig
from wherry.hub.cli.tables import table
from wherry.hub.core import names
from wherry.hub.core.rights import ROLES
from wherry.hub.store import events, orgs
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    org = commands.add_parser("org", help="organisations: namespaces that several accounts share")
    inside = org.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser("add", help="make an organisation")
    new.add_argument("name")
    new.add_argument("owner", help="the account that owns it at first")
    finish(new, _add)
    member = inside.add_parser("member", help="give an account a role, or take it out")
    member.add_argument("name")
    member.add_argument("account")
    member.add_argument("role", choices=[*ROLES, "none"])
    finish(member, _member)
    finish(inside.add_parser("ls", help="list organisations"), _list)
    members = inside.add_parser("members", help="list an organisation's members")
    members.add_argument("name")
    finish(members, _members)


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    name = names.check_account(given.name)

    def work(tx: Tx) -> None:
        orgs.add(tx, name, given.owner)
        events.note(tx, ACTOR, "", "org.add", org=name, owner=given.owner)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"organisation {name} added, {given.owner} owns it")
    return 0


async def _member(given: argparse.Namespace, settings: HubConfig) -> int:
    role = None if given.role == "none" else given.role

    def work(tx: Tx) -> None:
        orgs.set_role(tx, given.name, given.account, role)
        events.note(tx, ACTOR, "", "org.member", org=given.name, account=given.account, role=given.role)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"{given.account} is {given.role} of {given.name}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(orgs.all_of)
    print(table(("NAME", "MEMBERS"), [(name, str(count)) for name, count in found]))
    return 0


async def _members(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(lambda tx: orgs.members(tx, given.name))
    print(table(("ACCOUNT", "ROLE"), found))
    return 0
