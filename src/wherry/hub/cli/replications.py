"""``wherry-hub replication``: keep copies of images from another registry, or at another registry."""

from __future__ import annotations

import argparse
import sys

from wherry.errors import InvalidArgument
from wherry.hub.cli import stores
from wherry.hub.cli.accounts import ACTOR, Commands, finish, moment
from wherry.hub.cli.config import HubConfig, duration
from wherry.hub.cli.tables import table
from wherry.hub.core import names
from wherry.hub.store import events, replications
from wherry.hub.store.replications import PULL, PUSH, ReplicationRule
from wherry.hub.store.sql import Tx

_LEAST = 10
"""Seconds between two runs, at least."""


def add(commands: Commands) -> None:
    copy = commands.add_parser(
        "replication", help="keep copies of images from another registry, or at another registry"
    )
    inside = copy.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser("add", help="copy from another registry (pull), or to it (push)")
    new.add_argument("direction", choices=(PULL, PUSH))
    new.add_argument("repository", help="a pattern of names at the source: team/app, team/*, *")
    new.add_argument("url", help="https://registry.example")
    new.add_argument("--tags", metavar="PATTERN", default="*", help="a pattern of tags: v*, * (default)")
    new.add_argument("--prefix", default="", metavar="NAME", help="the copy of team/app is NAME/team/app")
    new.add_argument(
        "--every",
        default="1h",
        metavar="TIME",
        help="time between two full runs (default: 1h); pushes are copied at once",
    )
    new.add_argument(
        "--deletes", action="store_true", help="push: delete a tag there when it is deleted here"
    )
    new.add_argument("--username", default="", help="account at the other registry")
    new.add_argument("--password-stdin", action="store_true", help="read its password from stdin")
    new.add_argument(
        "--realm", default="", metavar="URL", help="the token service that may receive the password"
    )
    finish(new, _add)
    finish(inside.add_parser("ls", help="list rules, and the results of their last runs"), _list)
    for name, text, run in (
        ("run", "run a rule now", _run),
        ("rm", "remove a rule; keep the copies", _remove),
    ):
        one = inside.add_parser(name, help=text)
        one.add_argument("id", type=int)
        finish(one, run)


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.remote.registry import account_for, check_url

    url, every = check_url(given.url), duration(given.every)
    if every < _LEAST:
        raise InvalidArgument(f"--every must be at least {_LEAST}s")
    if given.deletes and given.direction == PULL:
        raise InvalidArgument("--deletes can only be used with push")
    if given.prefix:
        names.check_repository(given.prefix)
    password = sys.stdin.readline().rstrip("\r\n") if given.password_stdin else ""
    if bool(given.username) != bool(password):
        raise InvalidArgument("--username and --password-stdin must be used together")
    account = await account_for(url, given.username, password, given.realm)
    rule = ReplicationRule(
        0, given.direction, given.repository, given.tags, url, account.name, account.password, account.realm,
        given.prefix, every, given.deletes,
    )  # fmt: skip

    def work(tx: Tx) -> int:
        made = replications.add(tx, rule)
        events.note(tx, ACTOR, "", "replication.add", replication=made, direction=rule.direction, url=url)
        return made

    async with stores.database(settings) as db:
        print(f"replication {await db.write(work)} added")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(replications.all_of)
    rows = [
        (
            str(one.id), one.direction, one.repository, one.tags, one.url, one.prefix, f"{one.every} s",
            moment(one.ended), one.outcome[:80].replace("\n", " "),
        )
        for one in found
    ]  # fmt: skip
    heads = ("ID", "DIRECTION", "REPOSITORY", "TAGS", "REGISTRY", "PREFIX", "EVERY", "LAST RUN", "OUTCOME")
    print(table(heads, rows))
    return 0


async def _run(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.worker.replication import Replication

    async with stores.stores(settings) as (db, objects):
        work = Replication(db, objects, settings.settings(), settings.proxy_rules())
        print(await work.run_now(given.id))
    return 0


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        replications.remove(tx, given.id)
        events.note(tx, ACTOR, "", "replication.remove", replication=given.id)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"replication {given.id} removed")
    return 0
