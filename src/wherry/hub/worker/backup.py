"""Back up a hub on SQLite and files while it serves, and restore hubs from backups.

    <backup>/hub.db            the rows as they were at one moment
    <backup>/objects/…         every object that these rows name, under its key

The rows are copied first. Objects never change, and none is deleted while the copy is being made (``hold``),
so there is no hurry to copy the objects. Another backup into the same directory only copies new objects.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wherry import threads
from wherry.errors import Conflict, NotFound, Unavailable
from wherry.hub.store import collect
from wherry.hub.store.files import Files, sync_directory
from wherry.hub.store.sql import HubDatabase

FILE = "hub.db"
_HOLD = 600
"""Seconds; renewed while copying."""


@dataclass
class Copied:
    objects: int = 0
    new: int = 0
    size: int = 0


async def make(db: HubDatabase, database: Path, files: Files, target: Path) -> Copied:
    """Back up into ``target``, which is empty or has an earlier backup.

    :raises Conflict: a hub lives there. :raises Unavailable: the copy cannot be written, or an object is
        missing.
    """
    if await threads.disk(_is_hub, target / FILE):
        raise Conflict(f"{target} is the root of a hub: back up into another directory")
    name = f"backup-{secrets.token_hex(8)}"
    await db.write(lambda tx: collect.hold(tx, name, _HOLD))
    try:
        fresh = target / f".{FILE}.new"
        await threads.disk(_prepare, database, target, fresh)
        done, renewed = Copied(), time.monotonic()
        for batch in _batches(fresh):
            await threads.disk(_copy, files, target, batch, done)
            if time.monotonic() - renewed > _HOLD / 4:
                await db.write(lambda tx: collect.hold(tx, name, _HOLD))
                renewed = time.monotonic()
        await threads.disk(_finish, target, fresh)
        return done
    except OSError as e:
        raise Unavailable(f"cannot write the backup: {e}") from e
    finally:
        await db.write(lambda tx: collect.hold(tx, name, 0))


def _is_hub(database: Path) -> bool:
    """Whether a hub uses these rows. A hub's database is in WAL mode, a backup's never is (SQLite's "Database
    File Format", 1.3.3: bytes 18 and 19)."""
    try:
        with database.open("rb") as file:
            return 2 in file.read(20)[18:]
    except FileNotFoundError:
        return False


def _prepare(database: Path, target: Path, fresh: Path) -> None:
    for number in range(256):
        (target / "objects" / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(fresh)) as copy:
        source.backup(copy)
        # Remove rows that only the running hub can use, and rows of objects in the trash.
        copy.executescript(
            "DELETE FROM upload; DELETE FROM trash; DELETE FROM hold; PRAGMA journal_mode=DELETE;"
        )


def _batches(database: Path) -> Iterator[list[tuple[str, int]]]:
    """Keys and sizes of the objects in a copy of the rows."""
    with closing(sqlite3.connect(database)) as copy:
        rows = copy.execute("SELECT storage_key, size FROM blob WHERE NOT lost ORDER BY storage_key")
        while batch := rows.fetchmany(64):
            yield batch


def _copy(files: Files, target: Path, batch: list[tuple[str, int]], done: Copied) -> None:
    for key, size in batch:
        place = target / "objects" / key[:2] / key
        done.objects += 1
        done.size += size
        if place.exists() and place.stat().st_size == size:
            continue
        try:
            copy_file(files.path(key), place)
        except FileNotFoundError as e:
            raise Unavailable(f"cannot back up: object {key} is missing; run wherry-hub fsck") from e
        done.new += 1


def copy_file(source: Path, target: Path) -> None:
    """Write it durably; it gets its name when it is complete."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())
    fresh.chmod(0o600)
    fresh.rename(target)


def _finish(target: Path, fresh: Path) -> None:
    """Rename the new rows to their place, and only then remove objects that they do not name."""
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())
    for shard in (target / "objects").iterdir():
        sync_directory(shard)
    fresh.rename(target / FILE)
    sync_directory(target)
    with closing(sqlite3.connect(target / FILE)) as copy:
        named = {row[0] for row in copy.execute("SELECT storage_key FROM blob WHERE NOT lost")}
    for path in (target / "objects").glob("*/*"):
        if path.name not in named:
            path.unlink()


async def restore(source: Path, root: Path) -> Copied:
    """Restore a backup below ``root``, where no hub may exist.

    :raises Conflict: a hub exists. :raises NotFound: there is no backup.
    """
    if not (source / FILE).is_file():
        raise NotFound(f"no backup in {source}")
    if (root / FILE).exists():
        raise Conflict(f"a hub already exists in {root}: use another root, or move it away")
    files, done = Files(root), Copied()
    for batch in _batches(source / FILE):
        await threads.disk(_take, source, files, batch, done)
    await threads.disk(copy_file, source / FILE, root / FILE)
    return done


def _take(source: Path, files: Files, batch: list[tuple[str, int]], done: Copied) -> None:
    for key, size in batch:
        copy_file(source / "objects" / key[:2] / key, files.path(key))
        done.objects, done.size = done.objects + 1, done.size + size
