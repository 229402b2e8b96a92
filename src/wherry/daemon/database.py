"""The root's database at start: intact and in place, or refused with instructions; rebuilt on request.

<root>/wherry.db      the database
<root>/wherry.db.1    a copy: at most an hour old while a daemon runs, up to date when it has stopped
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from wherry import threads
from wherry.errors import InvalidArgument, Unavailable, WherryError
from wherry.linux import trees
from wherry.linux.lostfound import LostFound
from wherry.state import copies, elsewhere
from wherry.state.database import WAY_OUT, Database
from wherry.state.schema import MIGRATIONS

log = logging.getLogger(__name__)

_NAME, _COPY = "wherry.db", "wherry.db.1"
_HOUR = 3600
_SPARE = 4 << 20
_PLACES = {
    "volumes": "volumes",
    "containers": "containers",
    "content/sha256": "blobs",
    "snapshots/overlay": "layers",
    "snapshots/vfs": "layers",
}


def open_database(root: Path) -> Database:
    """:raises Unavailable: it is damaged, or missing although the root has data; the text says what to do.
    :raises Internal: it cannot be opened."""
    path = root / _NAME
    if not path.exists() or not path.stat().st_size:
        held = data_in(root)
        if held:
            raise Unavailable(f"cannot start: {root} has {held} but no database {_NAME}: {WAY_OUT}")
        return Database(path, MIGRATIONS)
    return Database(path, MIGRATIONS)


def data_in(root: Path) -> str:
    """The data in a root that are useless without the database's names, as text."""
    counts: dict[str, int] = {}
    for place, what in _PLACES.items():
        try:
            names = [name for name in os.listdir(root / place) if not name.startswith(".")]
        except OSError:
            continue
        counts[what] = counts.get(what, 0) + len(names)
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def rebuild(root: Path) -> None:
    """Replace a damaged or missing database by a new one, with what can be read from it and from its copy.
    The old one is set aside. When the root is opened, rows are made for everything that is on the disk with a
    description.

    :raises Unavailable, Internal: no room, or the host refuses.
    """
    path = root / _NAME
    if path.exists() and path.stat().st_size and not copies.problem(path):
        db = Database(path, MIGRATIONS)
        try:
            _drop_senseless(db)  # SQLite checks the structure of its pages, not the values in them
        finally:
            db.close()
        log.info("the database is intact; searching for data without rows anyway")
        return
    held = root / f".database-{secrets.token_hex(4)}"
    try:
        held.mkdir(mode=0o700)
        if path.exists() and not path.stat().st_size:
            path.unlink()
        for file in copies.files_of(path):
            file.rename(held / file.name)
        sources = [p for p in (held / _NAME, root / _COPY) if p.exists()]
        db = Database(path, MIGRATIONS)
        try:
            for line in copies.salvage(db, sources):
                log.info("%s", line)
            _drop_senseless(db)
        finally:
            db.close()
    except OSError as e:
        raise Unavailable(f"cannot rebuild {path}: {e.strerror or e}") from e
    if any(held.iterdir()):
        log.info("%s", LostFound(root).set_aside(held, "database", _NAME, "it was damaged"))
    else:
        trees.remove(held)


def place(root: Path, placing: Callable[[Path], None]) -> None:
    """Put a backup's database below a root, with everything else that is possible before it is opened."""
    placing(root)
    path = root / _NAME
    if not path.exists():
        raise InvalidArgument("cannot restore: the backup has no database")
    db = Database(path, MIGRATIONS)
    try:
        elsewhere.forget_host(db)
    finally:
        db.close()


def clear(root: Path) -> None:
    """Remove what a failed restore has put below an empty root."""
    for file in (*copies.files_of(root / _NAME), root / f"{_NAME}.reserve", root / "secrets.key"):
        file.unlink(missing_ok=True)
    for name in ("content", "snapshots", "volumes", "containers", "build", "bootstrap"):
        trees.remove(root / name)


def _drop_senseless(db: Database) -> None:
    """Delete rows whose JSON is invalid: descriptions on the disk have the facts."""
    for table, key, columns in (
        ("containers", "id", ("record", "state")),
        ("volumes", "id", ("options", "labels")),
        ("events", "seq", ("attributes",)),
    ):
        for row in db.all(f"SELECT * FROM {table}"):
            try:
                for column in columns:
                    msgspec.json.decode(row[column])
            except (msgspec.DecodeError, TypeError, ValueError):
                log.info("dropped an unreadable row of %s: %s", table, row[key])
                db.execute(f"DELETE FROM {table} WHERE {key} = ?", (row[key],))


async def keep_copy(db: Database, root: Path) -> None:
    """Copy the database once an hour if it has changed, for as long as the daemon runs."""
    while True:
        await threads.disk(copy, db, root)
        await asyncio.sleep(_HOUR)


def copy(db: Database, root: Path) -> None:
    """Copy the database if it has changed since the last copy, but not if that would fill the disk. Errors
    are only logged, because the copy is a precaution."""
    found, kept = copies.files_of(root / _NAME), root / _COPY
    changed = max(file.stat().st_mtime for file in found if not file.name.endswith("-shm"))
    size = (root / _NAME).stat().st_size
    if (kept.exists() and kept.stat().st_mtime > changed) or shutil.disk_usage(root).free < 4 * size + _SPARE:
        return
    try:
        copies.copy(db, kept)
    except WherryError as e:
        log.warning("%s", e.message)
