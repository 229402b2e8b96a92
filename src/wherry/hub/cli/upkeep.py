"""``wherry-hub migrate``, ``gc``, ``rotate-key`` and ``events``."""

from __future__ import annotations

import argparse

from wherry.errors import InvalidArgument
from wherry.hub.cli import stores
from wherry.hub.cli.common import Commands, finish, look, moment, shown
from wherry.hub.cli.config import HubConfig
from wherry.hub.store import events, schema
from wherry.hub.store.events import EventFilter
from wherry.hub.worker.collector import HubCollector


def add(commands: Commands) -> None:
    finish(commands.add_parser("migrate", help="migrate the database to this program's version"), _migrate)
    finish(commands.add_parser("gc", help="delete content that is no longer referenced, now"), _gc)
    finish(commands.add_parser("rotate-key", help="sign tokens with a new key from now on"), _rotate)
    log = commands.add_parser("events", help="list events (who did what), newest first")
    log.add_argument("--repository", default="", help="show only events of one repository")
    log.add_argument(
        "--count", type=int, default=100, metavar="N", help="the number of events (default: 100)"
    )
    finish(log, _events)


async def _events(given: argparse.Namespace, settings: HubConfig) -> int:
    if given.count < 1:
        raise InvalidArgument("--count must be at least 1")
    found = await look(
        settings, lambda tx: events.page(tx, EventFilter(repository=given.repository), count=given.count)
    )
    rows = [
        (
            str(one.id),
            moment(one.at),
            one.actor or "-",
            one.address or "-",
            one.action,
            one.repository,
            one.detail,
        )
        for one in found
    ]
    return shown(("ID", "WHEN", "WHO", "FROM", "WHAT", "REPOSITORY", "DETAIL"), rows)


async def _migrate(given: argparse.Namespace, settings: HubConfig) -> int:
    db = stores.open_database(settings)
    try:
        ran = [str(number) for number in await schema.migrate(db)]
        from wherry.hub.cli import pages

        ran += await pages.migrate(settings, db)
    finally:
        await db.close()
    print(f"migrations applied: {', '.join(ran)}" if ran else "the database is up to date")
    return 0


async def _gc(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.stores(settings) as (db, objects):
        report = await HubCollector(db, objects, settings.settings()).run()
    print(", ".join(f"{count} {name}" for name, count in report.gone.items()))
    return 0


async def _rotate(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        from wherry.hub.auth import bearer

        kid = await db.write(bearer.rotate)
    print(f"new tokens are signed with key {kid}")
    return 0
