"""``wherry-hub account`` and ``wherry-hub token``."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime
from typing import Any

from wherry.errors import InvalidArgument
from wherry.hub.auth import secrets
from wherry.hub.cli import config, stores
from wherry.hub.cli.config import HubConfig
from wherry.hub.cli.tables import table
from wherry.hub.core import names, rights
from wherry.hub.store import accounts, events
from wherry.hub.store.sql import Tx, now

Commands = Any  # argparse's own type has no public name
ACTOR = "(command line)"


def add(commands: Commands) -> None:
    account = commands.add_parser("account", help="make, list, block accounts; set passwords")
    inside = account.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser("add", help="make an account and its namespace")
    new.add_argument("name")
    new.add_argument("--admin", action="store_true", help="may do everything")
    new.add_argument("--email", help="address of the account")
    _password_flag(new)
    finish(new, _add)
    finish(inside.add_parser("ls", help="list accounts"), _list)
    password = inside.add_parser("password", help="set a password; ends what was logged in with the old one")
    password.add_argument("name")
    _password_flag(password)
    finish(password, _password)
    for word, text in (("block", "let an account do nothing"), ("unblock", "let it in again")):
        one = inside.add_parser(word, help=text)
        one.add_argument("name")
        finish(one, _active)
    for word, text in (("promote", "make an administrator"), ("demote", "take that back")):
        one = inside.add_parser(word, help=text)
        one.add_argument("name")
        finish(one, _admin)
    _add_tokens(commands)


def _add_tokens(commands: Commands) -> None:
    token = commands.add_parser("token", help="make, list, revoke personal tokens")
    inside = token.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser("create", help="make a token; it is shown once")
    new.add_argument("account")
    new.add_argument("--name", default="", help="what it is for")
    new.add_argument("--scope", choices=sorted(rights.SCOPES), default="read", help="the most it allows")
    new.add_argument("--repository", action="append", default=[], help="only here: team/app, or team/*")
    new.add_argument("--expires", metavar="TIME", default="365d", help="90d, 24h, … or never")
    finish(new, _create_token)
    ls = inside.add_parser("ls", help="list an account's tokens")
    ls.add_argument("account")
    finish(ls, _list_tokens)
    rm = inside.add_parser("rm", help="revoke a token")
    rm.add_argument("account")
    rm.add_argument("id", type=int)
    finish(rm, _remove_token)


def finish(parser: argparse.ArgumentParser, run: Any) -> None:
    config.arguments(parser)
    parser.set_defaults(run=run)


def _password_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")


def _read_password(given: argparse.Namespace) -> str:
    """:raises InvalidArgument: none was given."""
    from wherry.hub.auth import passwords

    if given.password_stdin:
        return passwords.check(sys.stdin.readline().rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise InvalidArgument("give the password on stdin with --password-stdin")
    first = passwords.check(getpass.getpass("Password: "))
    if getpass.getpass("Again: ") != first:
        raise InvalidArgument("the two are not the same")
    return first


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    name = names.check_account(given.name)
    from wherry.hub.auth import passwords

    hashed = passwords.make(_read_password(given))

    def work(tx: Tx) -> None:
        accounts.add(tx, name, hashed, admin=given.admin, email=given.email)
        events.note(tx, ACTOR, "", "account.add", account=name, admin=given.admin)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"account {name} added{', an administrator' if given.admin else ''}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(accounts.all_of)
    rows = [
        (name, "admin" if admin else "member", "active" if active else "blocked", moment(created))
        for name, admin, active, created in found
    ]
    print(table(("NAME", "ROLE", "STATE", "CREATED"), rows))
    return 0


async def _password(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.auth import passwords

    hashed = passwords.make(_read_password(given))
    async with stores.database(settings) as db:
        await db.write(lambda tx: accounts.set_password(tx, given.name, hashed))
    print(f"password of {given.name} set")
    return 0


async def _active(given: argparse.Namespace, settings: HubConfig) -> int:
    active = given.subcommand == "unblock"

    def work(tx: Tx) -> None:
        accounts.set_active(tx, given.name, active)
        events.note(tx, ACTOR, "", f"account.{given.subcommand}", account=given.name)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"account {given.name} {'may log in again' if active else 'is blocked'}")
    return 0


async def _admin(given: argparse.Namespace, settings: HubConfig) -> int:
    admin = given.subcommand == "promote"

    def work(tx: Tx) -> None:
        accounts.set_admin(tx, given.name, admin)
        events.note(tx, ACTOR, "", f"account.{given.subcommand}", account=given.name)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"account {given.name} is {'an administrator' if admin else 'a member'}")
    return 0


async def _create_token(given: argparse.Namespace, settings: HubConfig) -> int:
    secret = secrets.make()
    expires = config.duration_or_never(given.expires)

    def work(tx: Tx) -> int:
        account = accounts.needed(tx, given.account)
        made = accounts.add_token(
            tx, account.id, kind="personal", name=given.name, hashed=secrets.hashed(secret),
            prefix=secrets.shown(secret), scope=given.scope, patterns=tuple(given.repository),
            expires=now() + expires if expires is not None else None,
        )  # fmt: skip
        events.note(tx, ACTOR, "", "token.create", account=account.name, token=made, scope=given.scope)
        return made

    async with stores.database(settings) as db:
        await db.write(work)
    print(secret)
    return 0


async def _list_tokens(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> list[accounts.TokenLine]:
        return accounts.tokens_of(tx, accounts.needed(tx, given.account).id)

    async with stores.database(settings) as db:
        found = await db.scan(work)
    rows = [
        (
            str(t.id),
            t.name,
            f"{t.prefix}…",
            t.scope,
            t.patterns or "*",
            moment(t.expires),
            moment(t.last_used),
        )
        for t in found
    ]
    print(table(("ID", "NAME", "TOKEN", "SCOPE", "REPOSITORIES", "EXPIRES", "LAST USED"), rows))
    return 0


async def _remove_token(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        account = accounts.needed(tx, given.account)
        accounts.remove_token(tx, account.id, given.id)
        events.note(tx, ACTOR, "", "token.revoke", account=account.name, token=given.id)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"token {given.id} revoked")
    return 0


def moment(seconds: int | None) -> str:
    """For people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M") if seconds is not None else "never"
