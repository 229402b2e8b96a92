"""``wherry-hub org``."""

from __future__ import annotations

import argparse

from wherry.hub.cli.common import Commands, change, command, finish, group, look, note, shown
from wherry.hub.cli.config import HubConfig
from wherry.hub.core import names
from wherry.hub.core.rights import ROLES
from wherry.hub.store import orgs
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    inside = group(commands, "org", "manage organisations: namespaces that several accounts share")
    new = inside.add_parser("add", help="create an organisation")
    new.add_argument("name")
    new.add_argument("owner", help="the account that becomes its owner")
    finish(new, _add)
    member = inside.add_parser("member", help="give an account a role, or remove the account (none)")
    member.add_argument("name")
    member.add_argument("account")
    member.add_argument("role", choices=[*ROLES, "none"])
    finish(member, _member)
    command(inside, "ls", "list organisations", _list)
    command(inside, "members", "list an organisation's members", _members, "name")


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    name = names.check_account(given.name)

    def work(tx: Tx) -> None:
        orgs.add(tx, name, given.owner)
        note(tx, "org.add", org=name, owner=given.owner)

    await change(settings, work)
    print(f"organisation {name} added, {given.owner} owns it")
    return 0


async def _member(given: argparse.Namespace, settings: HubConfig) -> int:
    role = None if given.role == "none" else given.role

    def work(tx: Tx) -> None:
        orgs.set_role(tx, given.name, given.account, role)
        note(tx, "org.member", org=given.name, account=given.account, role=given.role)

    await change(settings, work)
    print(f"{given.account} is {given.role} of {given.name}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, orgs.all_of)
    return shown(("NAME", "MEMBERS"), [(name, str(count)) for name, count in found])


async def _members(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, lambda tx: orgs.members(tx, given.name))
    return shown(("ACCOUNT", "ROLE"), found)
