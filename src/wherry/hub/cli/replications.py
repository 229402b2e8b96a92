"""``wherry-hub replication``: keep copies of images from another registry, or at another registry."""

from __future__ import annotations

import argparse

from wherry.errors import InvalidArgument
from wherry.hub.cli import stores
from wherry.hub.cli.common import (
    Commands,
    by_number,
    change,
    command,
    finish,
    group,
    look,
    moment,
    note,
    remote_account,
    remote_flags,
    removal,
    shown,
)  # fmt: skip
from wherry.hub.cli.config import HubConfig, duration
from wherry.hub.core import names
from wherry.hub.store import replications
from wherry.hub.store.replications import PULL, PUSH, ReplicationRule
from wherry.hub.store.sql import Tx

_LEAST = 10
"""Seconds between two runs, at least."""


def add(commands: Commands) -> None:
    inside = group(
        commands, "replication", "keep copies of images from another registry, or at another registry"
    )
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
    remote_flags(new)
    finish(new, _add)
    command(inside, "ls", "list rules, and the results of their last runs", _list)
    by_number(inside, "run", "run a rule now", _run)
    by_number(inside, "rm", "remove a rule; keep the copies", removal("replication", replications.remove))


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.remote.registry import check_url

    url, every = check_url(given.url), duration(given.every)
    if every < _LEAST:
        raise InvalidArgument(f"--every must be at least {_LEAST}s")
    if given.deletes and given.direction == PULL:
        raise InvalidArgument("--deletes can only be used with push")
    if given.prefix:
        names.check_repository(given.prefix)
    account = await remote_account(given, url)
    rule = ReplicationRule(
        0, given.direction, given.repository, given.tags, url, account.name, account.password, account.realm,
        given.prefix, every, given.deletes,
    )  # fmt: skip

    def work(tx: Tx) -> int:
        made = replications.add(tx, rule)
        note(tx, "replication.add", replication=made, direction=rule.direction, url=url)
        return made

    print(f"replication {await change(settings, work)} added")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, replications.all_of)
    rows = [
        (
            str(one.id), one.direction, one.repository, one.tags, one.url, one.prefix, f"{one.every} s",
            moment(one.ended), one.outcome[:80].replace("\n", " "),
        )
        for one in found
    ]  # fmt: skip
    heads = ("ID", "DIRECTION", "REPOSITORY", "TAGS", "REGISTRY", "PREFIX", "EVERY", "LAST RUN", "OUTCOME")
    return shown(heads, rows)


async def _run(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.worker.replication import Replication

    async with stores.stores(settings) as (db, objects):
        work = Replication(db, objects, settings.settings(), settings.proxy_rules())
        print(await work.run_now(given.id))
    return 0
