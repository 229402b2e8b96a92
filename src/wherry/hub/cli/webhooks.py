"""``wherry-hub webhook``."""

from __future__ import annotations

import argparse

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
    removal,
    shown,
)
from wherry.hub.cli.config import HubConfig
from wherry.hub.store import webhooks
from wherry.hub.store.sql import Tx


def add(commands: Commands) -> None:
    inside = group(commands, "webhook", "send signed events to other servers, with retries")
    new = inside.add_parser("add", help="create a webhook; its secret is shown once")
    new.add_argument("repository", help="team/app, team/*, *")
    new.add_argument("url")
    new.add_argument("--event", action="append", metavar="PATTERN", help="manifest.push, tag.*, * (default)")
    finish(new, _add)
    command(inside, "ls", "list webhooks", _list)
    by_number(inside, "rm", "remove a webhook", removal("webhook", webhooks.remove))
    by_number(inside, "deliveries", "list its deliveries, newest first", _history)
    by_number(inside, "redeliver", "repeat a delivery", _again, "delivery")


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    url = settings.webhook_rules().check_url(given.url)

    def work(tx: Tx) -> tuple[int, str]:
        made = webhooks.add(tx, given.repository, tuple(given.event or ["*"]), url)
        note(tx, "webhook.add", webhook=made[0])
        return made

    number, secret = await change(settings, work)
    print(f"webhook {number}, secret {secret}")
    return 0


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, webhooks.all_of)
    rows = [(str(one.id), one.repository, " ".join(one.events), one.url) for one in found]
    return shown(("ID", "REPOSITORY", "EVENTS", "URL"), rows)


async def _history(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, lambda tx: webhooks.history(tx, given.id))
    rows = [
        (
            str(one.id), one.action, one.repository, one.state, str(one.tries), moment(one.told),
            "" if one.status is None else str(one.status), one.answer[:60].replace("\n", " "),
        )
        for one in found
    ]  # fmt: skip
    return shown(("ID", "EVENT", "REPOSITORY", "STATE", "TRIES", "LAST", "STATUS", "ANSWER"), rows)


async def _again(given: argparse.Namespace, settings: HubConfig) -> int:
    await change(settings, lambda tx: webhooks.again(tx, given.delivery))
    print(f"delivery {given.delivery} is due")
    return 0
