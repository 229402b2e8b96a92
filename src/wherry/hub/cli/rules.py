"""``wherry-hub rule``: immutable tags, retention of tags, required signatures."""

from __future__ import annotations

import argparse
from pathlib import Path

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
    removal,
    shown,
)
from wherry.hub.cli.config import HubConfig, duration
from wherry.hub.core import signatures
from wherry.hub.store import rules
from wherry.hub.store.sql import Tx
from wherry.hub.worker import retention


def add(commands: Commands) -> None:
    inside = group(commands, "rule", "rules for tags: immutable, retention, required signatures")
    fixed = inside.add_parser("immutable", help="tags that cannot be moved or deleted")
    retain = inside.add_parser("retain", help="keep some tags; delete all others that match")
    retain.add_argument("--keep-last", type=int, metavar="N", help="keep the N newest tags")
    retain.add_argument(
        "--keep-for", metavar="TIME", help="keep tags that were pushed or pulled within this time: 30d"
    )
    signed = inside.add_parser("signed", help="images that can be pulled only if they are signed")
    signed.add_argument("--key", required=True, metavar="FILE", help="public key (cosign.pub)")
    for one, run in ((fixed, _add), (retain, _add), (signed, _add)):
        one.add_argument("repository", help="team/app, team/*, *")
        one.add_argument("--tags", metavar="PATTERN", default="*", help="v*, * (default)")
        finish(one, run)
    command(inside, "ls", "list rules", _list)
    by_number(inside, "rm", "remove a rule", removal("rule", rules.remove))
    finish(
        inside.add_parser("try", help="list the tags that would be deleted now, without deleting them"), _try
    )
    finish(
        inside.add_parser("apply", help="apply the retention rules now; the worker does it every hour"),
        _apply,
    )


async def _add(given: argparse.Namespace, settings: HubConfig) -> int:
    last = getattr(given, "keep_last", None)
    text = getattr(given, "keep_for", None)
    seconds = duration(text) if text is not None else None
    if given.subcommand == rules.RETAIN and last is None and seconds is None:
        raise InvalidArgument("nothing to keep: give --keep-last N, --keep-for TIME, or both")
    key = _key(given.key) if given.subcommand == rules.SIGNED else ""
    if last is not None and last < 0:
        raise InvalidArgument("--keep-last must not be negative")

    def work(tx: Tx) -> int:
        made = rules.add(tx, given.subcommand, given.repository, given.tags, last, seconds, key)
        note(tx, "rule.add", rule=made, kind=given.subcommand, repository_=given.repository)
        return made

    print(f"rule {await change(settings, work)} added")
    return 0


def _key(path: str) -> str:
    """:raises InvalidArgument: the file cannot be read or contains no key."""
    try:
        return signatures.check_key(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"cannot read {path}: {e}") from e


async def _list(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, rules.all_of)
    rows = [
        (
            str(one.id), one.kind, one.repository, one.tags,
            "" if one.keep_last is None else str(one.keep_last),
            "" if one.keep_seconds is None else f"{one.keep_seconds} s",
        )
        for one in found
    ]  # fmt: skip
    return shown(("ID", "KIND", "REPOSITORY", "TAGS", "KEEP LAST", "KEEP FOR"), rows)


async def _try(given: argparse.Namespace, settings: HubConfig) -> int:
    found = await look(settings, rules.leaving)
    rows = [(one.repository, one.tag, one.digest, moment(one.used), str(one.rule)) for one in found]
    return shown(("REPOSITORY", "TAG", "DIGEST", "LAST USED", "RULE"), rows)


async def _apply(given: argparse.Namespace, settings: HubConfig) -> int:
    async with stores.database(settings) as db:
        print(f"{await retention.run(db, settings.settings())} tags deleted")
    return 0
