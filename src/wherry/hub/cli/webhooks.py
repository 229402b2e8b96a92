"""``wherry-hub webhook``."""

from __future__ import annotations

import argparse

from wherry.hub.cli import stores
from wherry.hub.cli.accounts import ACTOR, Commands, finish, moment
from wherry.hub.cli.config import HubConfig
from wherry.hub.cli.tables import table
from wherry.hub.store import events, webhooks
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    hook = commands.add_parser(
        "webhook", help="tell others what happens: signed, and again if they do not hear"
    )
    inside = hook.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    new = inside.add_parser("add", help="make a webhook; its secret is shown once")
    new.add_argument("repository", help="team/app, team/*, *")
    new.add_argument("url")
    new.add_argument("--event", action="append", metavar="PATTERN", help="manifest.push, tag.*, * (default)")
    finish(new, _add)
    finish(inside.add_parser("ls", help="list webhooks"), _list)
    rm = inside.add_parser("rm", help="remove a webhook")
    rm.add_argument("id", type=int)
    finish(rm, _remove)
    history = inside.add_parser("deliveries", help="what it was told, the newest first")
    history.add_argument("id", type=int)
    finish(history, _history)
    again = inside.add_parser("redeliver", help="tell it once more")
    again.add_argument("delivery", type=int)
    finish(again, _again)


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    url = settings.webhook_rules().check_url(given.url)

    def work(tx: Tx) -> tuple[int, str]:
        made = webhooks.add(tx, given.repository, tuple(given.event or ["*"]), url)
        events.note(tx, ACTOR, "", "webhook.add", webhook=made[0])
        return made

    async with stores.database(settings) as db:
        number, secret = await db.write(work)
    print(f"webhook {number}, secret {secret}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(webhooks.all_of)
    rows = [(str(one.id), one.repository, " ".join(one.events), one.url) for one in found]
    print(table(("ID", "REPOSITORY", "EVENTS", "URL"), rows))
    return 0


async def _remove(given: argparse.Namespace, settings: HubConfig) -> int:
    def work(tx: Tx) -> None:
        webhooks.remove(tx, given.id)
        events.note(tx, ACTOR, "", "webhook.remove", webhook=given.id)

    async with stores.database(settings) as db:
        await db.write(work)
    print(f"webhook {given.id} removed")
    return 0


async def _history(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        found = await db.scan(lambda tx: webhooks.history(tx, given.id))
    rows = [
        (
            str(one.id), one.action, one.repository, one.state, str(one.tries), moment(one.told),
            "" if one.status is None else str(one.status), one.answer[:60].replace("\n", " "),
        )
        for one in found
    ]  # fmt: skip
    print(table(("ID", "EVENT", "REPOSITORY", "STATE", "TRIES", "LAST", "STATUS", "ANSWER"), rows))
    return 0


async def _again(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        await db.write(lambda tx: webhooks.again(tx, given.delivery))
    print(f"delivery {given.delivery} is due")
    return 0
