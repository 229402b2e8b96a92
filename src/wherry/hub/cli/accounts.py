"""``wherry-hub account`` and ``wherry-hub token``."""

from __future__ import annotations

import argparse
import getpass
import sys

from wherry.errors import InvalidArgument
from wherry.hub.auth import secrets
from wherry.hub.cli import config
from wherry.hub.cli.common import (
    Commands,
    change,
    command,
    finish,
    group,
    look,
    moment,
    note,
    shown,
)
from wherry.hub.cli.config import HubConfig
from wherry.hub.core import names, rights
from wherry.hub.store import accounts
from wherry.hub.store.sql import Tx, now


def add(commands: Commands) -> None:
    inside = group(commands, "account", "create, list and block accounts; set passwords")
    new = inside.add_parser("add", help="create an account and its namespace")
    new.add_argument("name")
    new.add_argument("--admin", action="store_true", help="an administrator, who has all rights")
    new.add_argument("--email", help="address of the account")
    _password_flag(new)
    finish(new, _add)
    command(inside, "ls", "list accounts", _list)
    password = inside.add_parser("password", help="set a password; this ends earlier logins")
    password.add_argument("name")
    _password_flag(password)
    finish(password, _password)
    for word, text in (("block", "block an account"), ("unblock", "let a blocked account log in again")):
        one = inside.add_parser(word, help=text)
        one.add_argument("name")
        finish(one, _active)
    for word, text in (("promote", "make an account an administrator"), ("demote", "make it a member again")):
        one = inside.add_parser(word, help=text)
        one.add_argument("name")
        finish(one, _admin)
    _add_tokens(commands)


def _add_tokens(commands: Commands) -> None:
    inside = group(commands, "token", "create, list and revoke personal tokens")
    new = inside.add_parser("create", help="create a token; it is shown once")
    new.add_argument("account")
    new.add_argument("--name", default="", help="its purpose")
    new.add_argument(
        "--scope", choices=sorted(rights.SCOPES), default="read", help="the highest level that it allows"
    )
    new.add_argument(
        "--repository", action="append", default=[], help="limit it to repositories: team/app, or team/*"
    )
    new.add_argument("--expires", metavar="TIME", default="365d", help="90d, 24h, … or never")
    finish(new, _create_token)
    command(inside, "ls", "list an account's tokens", _list_tokens, "account")
    rm = inside.add_parser("rm", help="revoke a token")
    rm.add_argument("account")
    rm.add_argument("id", type=int)
    finish(rm, _remove_token)


def _password_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")


def _read_password(given: argparse.Namespace) -> str:
    """:raises InvalidArgument: there is no password, or it is too weak."""
    from wherry.hub.auth import passwords

    if given.password_stdin:
        return passwords.check(sys.stdin.readline().rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise InvalidArgument("give the password on stdin with --password-stdin")
    first = passwords.check(getpass.getpass("Password: "))
    if getpass.getpass("Again: ") != first:
        raise InvalidArgument("the two passwords differ")
    return first


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    name = names.check_account(given.name)
    from wherry.hub.auth import passwords

    hashed = passwords.make(_read_password(given))

    def work(tx: Tx) -> None:
        accounts.add(tx, name, hashed, admin=given.admin, email=given.email)
        note(tx, "account.add", account=name, admin=given.admin)

    await change(settings, work)
    print(f"account {name} added{', an administrator' if given.admin else ''}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, accounts.all_of)
    rows = [
        (name, "admin" if admin else "member", "active" if active else "blocked", moment(created))
        for name, admin, active, created in found
    ]
    return shown(("NAME", "ROLE", "STATE", "CREATED"), rows)


async def _password(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.auth import passwords

    hashed = passwords.make(_read_password(given))

    def work(tx: Tx) -> None:
        accounts.set_password(tx, given.name, hashed)
        note(tx, "account.password", account=given.name)

    await change(settings, work)
    print(f"password of {given.name} set")
    return 0


async def _active(given: argparse.Namespace, settings: HubConfig) -> int:
    active = given.subcommand == "unblock"

    def work(tx: Tx) -> None:
        accounts.set_active(tx, given.name, active)
        note(tx, f"account.{given.subcommand}", account=given.name)

    await change(settings, work)
    print(f"account {given.name} {'may log in again' if active else 'is blocked'}")
    return 0


async def _admin(given: argparse.Namespace, settings: HubConfig) -> int:
    admin = given.subcommand == "promote"

    def work(tx: Tx) -> None:
        accounts.set_admin(tx, given.name, admin)
        note(tx, f"account.{given.subcommand}", account=given.name)

    await change(settings, work)
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
        note(tx, "token.create", account=account.name, token=made, scope=given.scope)
        return made

    await change(settings, work)
    print(secret)
    return 0


async def _list_tokens(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> list[accounts.TokenLine]:
        return accounts.tokens_of(tx, accounts.needed(tx, given.account).id)

    found = await look(settings, work)
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
    return shown(("ID", "NAME", "TOKEN", "SCOPE", "REPOSITORIES", "EXPIRES", "LAST USED"), rows)


async def _remove_token(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        account = accounts.needed(tx, given.account)
        accounts.remove_token(tx, account.id, given.id)
        note(tx, "token.revoke", account=account.name, token=given.id)

    await change(settings, work)
    print(f"token {given.id} revoked")
    return 0
