"""The composition root: opens one root, builds the engine on it, and the faces on the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wherry import threads
from wherry.api.app import make_server
from wherry.api.server import ApiServer
from wherry.daemon import database
from wherry.daemon.config import Config
from wherry.daemon.http2 import LazyHttp2, either
from wherry.daemon.stores import open_network, open_root
from wherry.engine import engine
from wherry.engine.engine import Engine
from wherry.engine.processes.wiring import StatsEncoding
from wherry.engine.upkeep.restore import Archive
from wherry.errors import Conflict, InvalidArgument, Unavailable
from wherry.linux import launchspace
from wherry.runtime.task import conmon_fd
from wherry.state.containers import Containers
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS
from wherry.storage.confined import children
from wherry.storage.confined.unpack import Unpacker
from wherry.wire import stats

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Daemon:
    """Everything that lives as long as the process."""

    engine: Engine
    server: ApiServer
    http2: LazyHttp2
    db: Database

    def protocol(self) -> asyncio.BaseProtocol:
        """The protocol for a new connection."""
        return either(self.server, self.http2)

    async def close(self) -> None:
        """Release everything; containers keep running."""
        await self.http2.close()
        await self.engine.close()
        await threads.short(children.stop_server)
        self.db.close()


def build(config: Config) -> Daemon:
    """Open the root and make every service. Must run on the loop's thread.

    :raises Unavailable: the host lacks something that every container needs; the text names it.
    """
    opened = open_root(config)
    encoding = StatsEncoding(stats.encode, stats.encode_stopped)
    made = engine.wire(opened.ground, opened.stores, encoding)
    http2 = LazyHttp2(made)
    return Daemon(made, make_server(made, http2), http2, opened.db)


async def rebuild(config: Config) -> None:
    """Restore the rows of a lost or damaged database, as far as the data below the root allow.

    :raises Unavailable: the host lacks something, or there is no room.
    """
    database.rebuild(config.root)
    opened = open_root(config)
    try:
        made = engine.wire(opened.ground, opened.stores, StatsEncoding(stats.encode, stats.encode_stopped))
        await made.upkeep.reconciler.take_up()
    finally:
        opened.db.close()
    log.info("the database was rebuilt; start wherryd as usual")


async def restore(config: Config) -> None:
    """Restore a backup below an empty root. After a failure the root is empty again.

    :raises Conflict: the root is not empty. :raises InvalidArgument: not a backup, or a broken one.
    """
    held = database.data_in(config.root)
    if held or (config.root / "wherry.db").exists():
        raise Conflict(f"cannot restore: {config.root} has {held or 'a database'} already")
    try:
        with _source(config.backup) as file, Unpacker().decompress(file) as plain:
            archive = await threads.disk(Archive, plain.read)
            made = time.ctime(archive.about.created / 1e9)
            log.info("the backup was made %s of %s", made, archive.about.root)
            for line in archive.about.left_out:
                log.info("not in the backup: %s", line)
            await threads.disk(database.place, config.root, archive.place)
            opened = open_root(config)
            try:
                encoding = StatsEncoding(stats.encode, stats.encode_stopped)
                wired = engine.wire(opened.ground, opened.stores, encoding)
                await wired.upkeep.restorer.run(archive)
            finally:
                opened.db.close()
    except BaseException as e:
        database.clear(config.root)
        if isinstance(e, OSError):
            raise Unavailable(f"cannot restore: {e.strerror or e}") from e
        raise
    log.info("restored; start wherryd as usual")


def _source(name: str) -> BinaryIO:
    try:
        return os.fdopen(os.dup(0), "rb") if name == "-" else Path(name).open("rb")
    except OSError as e:
        raise InvalidArgument(f"cannot read {name}: {e.strerror}") from e


def teardown(config: Config) -> None:
    """Remove what a daemon keeps on the host for its next start: bridges, firewall table, namespaces. If the
    database is lost, remove everything that has this root's mark.

    Images, volumes and stopped containers stay.
    :raises Conflict: a container still runs. :raises Unavailable: something is left; the text names it.
    """
    path = config.root / "wherry.db"
    db = Database(path if path.exists() else ":memory:", MIGRATIONS)
    try:
        _refuse_running(config, db)
        open_network(config, db).teardown()
        launchspace.release(config.run / "tasks")
    finally:
        db.close()


def _refuse_running(config: Config, db: Database) -> None:
    names = {}
    for row in Containers(db).all():
        names[row.id] = row.name
        if _lives(config, row.id, row.state.conmon_pid):
            raise Conflict(f"cannot tear down: container {row.name} ({row.id[:12]}) still runs")
    tasks = config.run / "tasks"
    for task in sorted(tasks.iterdir()) if tasks.is_dir() else ():
        try:
            pid = int((task / "conmon.pid").read_text())
        except (OSError, ValueError):
            continue
        if task.name not in names and _lives(config, task.name, pid):
            raise Conflict(
                f"cannot tear down: container {task.name[:12]} still runs, and the database does not know it;"
                " a start of the daemon ends it"
            )


def _lives(config: Config, container_id: str, conmon_pid: int) -> bool:
    fd = conmon_fd(config.run / "tasks" / container_id, conmon_pid) if conmon_pid else None
    if fd is None:
        return False
    os.close(fd)
    return True
