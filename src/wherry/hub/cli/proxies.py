"""``wherry-hub proxy``: fetch missing content from other registries, and keep copies."""

from __future__ import annotations

import argparse
import sys

from wherry.errors import InvalidArgument
from wherry.hub.cli import stores
from wherry.hub.cli.accounts import ACTOR, Commands, finish
from wherry.hub.cli.config import HubConfig, duration
from wherry.hub.cli.tables import table
from wherry.hub.core import names
from wherry.hub.store import events, proxies
from wherry.hub.store.proxies import MIRROR, Proxy
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    proxy = commands.add_parser("proxy", help="fetch missing content from other registries, and keep copies")
    inside = proxy.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser(
        "add", help="serve another registry's images in a namespace, or for all missing names"
    )
    new.add_argument("namespace", nargs="?", help="quay: HUB/quay/app is app of the other registry")
    new.add_argument("url", help="https://registry.example")
    new.add_argument(
        "--mirror", action="store_true", help="for all names that this hub does not have (registry-mirrors)"
    )
    new.add_argument("--public", action="store_true", help="allow pulls without an account")
    new.add_argument(
        "--ttl",
        default="5m",
        metavar="TIME",
        help="how long a tag is valid before it is checked again (default: 5m)",
    )
    new.add_argument("--username", default="", help="account at the other registry")
    new.add_argument("--password-stdin", action="store_true", help="read its password from stdin")
    new.add_argument(
        "--realm", default="", metavar="URL", help="the token service that may receive the password"
    )
    finish(new, _add)
    finish(inside.add_parser("ls", help="list proxies"), _list)
    rm = inside.add_parser("rm", help="remove a proxy and its copies")
    rm.add_argument("namespace", nargs="?")
    rm.add_argument("--mirror", action="store_true")
    finish(rm, _remove)


def _namespace(given: argparse.Namespace) -> str:
    """:raises InvalidArgument: neither a namespace nor --mirror, or both."""
    if bool(given.namespace) == given.mirror:
        raise InvalidArgument("give either NAMESPACE or --mirror")
    return MIRROR if given.mirror else names.check_account(given.namespace, reserved=True)


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.remote.registry import account_for, check_url

    space, url = _namespace(given), check_url(given.url)
    password = sys.stdin.readline().rstrip("\r\n") if given.password_stdin else ""
    if bool(given.username) != bool(password):
        raise InvalidArgument("--username and --password-stdin must be used together")
    account = await account_for(url, given.username, password, given.realm)
    made = Proxy(
        0, space, url, account.name, account.password, account.realm, given.public, duration(given.ttl)
    )

    def work(tx: Tx) -> None:
        number = proxies.add(tx, made)
        events.note(tx, ACTOR, "", "proxy.add", proxy=number, namespace_=space, url=url)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"proxy for {proxies.describe(space)} added: {url}")
    if account.realm:
        print(f"the password is sent only to {url} and {account.realm}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(proxies.all_of)
    rows = [
        (one.namespace or "(mirror)", one.url, one.username, "yes" if one.public else "no", f"{one.ttl} s")
        for one in found
    ]
    print(table(("NAMESPACE", "REGISTRY", "ACCOUNT", "PUBLIC", "TTL"), rows))
    return 0


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    space = _namespace(given)

    def work(tx: Tx) -> int:
        gone = proxies.remove(tx, space)
        events.note(tx, ACTOR, "", "proxy.remove", namespace_=space)
        return gone

    async with stores.database(settings) as db:
        count = await db.write(work)
    print(f"proxy for {proxies.describe(space)} removed, with {count} repositories")
    return 0
