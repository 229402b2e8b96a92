"""``wherry-hub fsck``, ``backup`` and ``restore``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wherry.errors import InvalidArgument, NotImplemented_
from wherry.hub.cli import stores
from wherry.hub.cli.common import Commands, finish
from wherry.hub.cli.config import HubConfig
from wherry.hub.store.files import Files
from wherry.hub.worker import backup
from wherry.hub.worker.fsck import Fsck

_UNITS = {"K": 10, "M": 20, "G": 30}


def add(commands: Commands) -> None:
    fsck = commands.add_parser(
        "fsck", help="compare the database with the objects, also while the hub serves"
    )
    fsck.add_argument("--digests", action="store_true", help="read and hash every object again")
    fsck.add_argument(
        "--rate", metavar="BYTES", default="100M", help="bytes per second to read (default: 100M)"
    )
    fsck.add_argument(
        "--repair",
        action="store_true",
        help="mark lost blobs so that pushes restore them, delete unknown objects, recount",
    )
    finish(fsck, _fsck)
    copy = commands.add_parser("backup", help="back up a hub on SQLite and files, also while it serves")
    copy.add_argument("directory", type=Path)
    finish(copy, _backup)
    back = commands.add_parser("restore", help="restore a hub from a backup")
    back.add_argument("directory", type=Path)
    finish(back, _restore)


def _bytes(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 0)
    number = text[:-1] if unit else text
    if not (number.isascii() and number.isdigit()) or len(number) > 15 or not int(number):
        raise InvalidArgument(f"invalid number of bytes {text!r}: use 1000000, 100M, 1G")
    return int(number) << unit


async def _fsck(given: argparse.Namespace, settings: HubConfig) -> int:
    rate, found = _bytes(given.rate), 0
    async with stores.stores(settings) as (db, objects):
        check = Fsck(db, objects, repair=given.repair, rate=rate if given.digests else 0)
        async for one in check.run():
            print(f"{one.kind}: {one.what}: {one.text}")
            found += 1
    print(f"{check.looked} blobs checked, {found} findings", file=sys.stderr)
    return 1 if found and not given.repair else 0


def _local(settings: HubConfig, what: str) -> None:
    if settings.database or settings.objects:
        raise NotImplemented_(
            f"{what} is for SQLite and files; back up PostgreSQL with pg_dump and the bucket with its own"
            " versioning, the database first, and give trash= more time than that takes"
        )


async def _backup(given: argparse.Namespace, settings: HubConfig) -> int:
    _local(settings, "backup")
    async with stores.database(settings) as db:
        done = await backup.make(
            db, settings.root / stores.DATABASE_FILE, Files(settings.root), given.directory.absolute()
        )
    print(f"{done.objects} objects, {done.size} bytes; {done.new} objects were new")
    return 0


async def _restore(given: argparse.Namespace, settings: HubConfig) -> int:
    _local(settings, "restore")
    stores.prepare(settings.root)
    done = await backup.restore(given.directory.absolute(), settings.root)
    print(f"{done.objects} objects, {done.size} bytes; wherry-hub serve --root {settings.root} serves them")
    return 0
