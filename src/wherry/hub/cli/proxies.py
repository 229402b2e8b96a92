"""``wherry-hub proxy``: fetch missing content from other registries, and keep copies."""

from __future__ import annotations

import argparse

from wherry.errors import InvalidArgument
from wherry.hub.cli.common import (
    Commands,
    change,
    command,
    finish,
    group,
    look,
    note,
    remote_account,
    remote_flags,
    shown,
)
from wherry.hub.cli.config import HubConfig, duration
from wherry.hub.core import names
from wherry.hub.store import proxies
from wherry.hub.store.proxies import MIRROR, Proxy
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    inside = group(commands, "proxy", "fetch missing content from other registries, and keep copies")
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
    remote_flags(new)
    finish(new, _add)
    command(inside, "ls", "list proxies", _list)
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
    from wherry.hub.remote.registry import check_url

    space, url = _namespace(given), check_url(given.url)
    account = await remote_account(given, url)
    made = Proxy(
        0, space, url, account.name, account.password, account.realm, given.public, duration(given.ttl)
    )

    def work(tx: Tx) -> None:
        number = proxies.add(tx, made)
        note(tx, "proxy.add", proxy=number, namespace_=space, url=url)

    await change(settings, work)
    print(f"proxy for {proxies.describe(space)} added: {url}")
    if account.realm:
        print(f"the password is sent only to {url} and {account.realm}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, proxies.all_of)
    rows = [
        (one.namespace or "(mirror)", one.url, one.username, "yes" if one.public else "no", f"{one.ttl} s")
        for one in found
    ]
    return shown(("NAMESPACE", "REGISTRY", "ACCOUNT", "PUBLIC", "TTL"), rows)


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    space = _namespace(given)

    def work(tx: Tx) -> int:
        gone = proxies.remove(tx, space)
        note(tx, "proxy.remove", namespace_=space)
        return gone

    count = await change(settings, work)
    print(f"proxy for {proxies.describe(space)} removed, with {count} repositories")
    return 0
