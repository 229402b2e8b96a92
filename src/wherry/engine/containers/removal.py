"""Removing containers: first the row, then everything it owned."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers import endings
from wherry.engine.containers.control import Control
from wherry.engine.containers.leftovers import Leftovers
from wherry.engine.containers.links import Links
from wherry.engine.ground import Ground
from wherry.engine.live import Live
from wherry.engine.logs.keeping import LogKeeping
from wherry.engine.mounts.holds import Holds
from wherry.errors import Conflict, NotFound
from wherry.linux import files, unsettled
from wherry.state.containers import ContainerRow
from wherry.storage.snapshots import Snapshotter

log = logging.getLogger(__name__)

_KILL_TIMEOUT = 10.0


class Removal:
    def __init__(
        self,
        ground: Ground,
        *,
        snapshotter: Snapshotter,
        holds: Holds,
        links: Links,
        control: Control,
        leftovers: Leftovers,
        logs: LogKeeping,
    ) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._snapshotter = snapshotter
        self._holds = holds
        self._links = links
        self._control = control
        self._leftovers = leftovers
        self._logs = logs
        self._events = ground.events
        self._live = ground.live

    async def remove(self, wanted: str, *, force: bool, volumes: bool, link: bool = False) -> None:
        """:raises Conflict: it runs and ``force`` is not set, or it is already being removed."""
        if link:
            self._links.remove(wanted)
            return
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if force:
            live.end_file_jobs()  # a start may be waiting for them
        await self._control.until_started(live)
        row = self._containers.find(row.id)
        endings.check_removable(wanted, row.state.status, removing=live.removing, force=force)
        live.removing = True
        removal = live.removal()
        try:
            if live.task is not None:
                await self._kill(row, live)
            async with live.lock:
                try:
                    row = self._containers.find(row.id)
                except NotFound:
                    return  # it removed itself (``--rm``) at its exit
                if endings.may_run_unseen(row.state.status, runs=live.task is not None):
                    await threads.runtime.to_end(self._end, row)
                await self._remove_locked(row, live, volumes=volumes)
        finally:
            live.removing = False
            removal.cancel()

    def _end(self, row: ContainerRow) -> None:
        self._leftovers.kill(row)
        self._leftovers.remove(row.id)

    async def _kill(self, row: ContainerRow, live: Live) -> None:
        exited = live.next_exit()
        try:
            await self._control.kill(row.id, str(int(signal.SIGKILL)))
        except Conflict:
            return  # it ended meanwhile
        await asyncio.wait([exited], timeout=_KILL_TIMEOUT)

    async def remove_exited(self, row: ContainerRow) -> None:
        """Auto-removal, with the container's lock held by the exit's handler."""
        await self._remove_locked(row, self._live.get(row.id), volumes=True)

    async def _remove_locked(self, row: ContainerRow, live: Live, *, volumes: bool) -> None:
        if live.restart is not None:
            live.restart.cancel()
            live.restart = None
        await self._logs.removed(row)
        points = row.record.mounts
        await threads.disk(self._unsettle, row, volumes)
        await live.until_no_file_jobs()
        with self._containers.transaction():
            self._containers.delete(row.id)
            forgotten = self._holds.forget(points, row.id, anonymous=volumes)
        self._links.removed(row.record)
        for session in live.pending:
            session.abandon()
        live.pending.clear()
        await threads.disk(self._release, row, forgotten)
        drivers = {point.volume: point.driver for point in points}
        for name in forgotten:
            self._events.publish("volume", "destroy", name, {"driver": drivers[name] or "local"})
        self._events.publish("container", "destroy", row.id, event_attributes(row))
        live.removed()
        self._live.drop(row.id)

    def _unsettle(self, row: ContainerRow, volumes: bool) -> None:
        """Mark it: from here on, what a killed daemon leaves of it is a leftover,
        unless its row still exists."""
        with suppress(OSError):  # no room, or no directory
            unsettled.mark(self._settings.container_directory(row.id))
        self._holds.unsettle(row.record, anonymous=volumes)

    def _release(self, row: ContainerRow, forgotten: list[str]) -> None:
        """Release everything the container owned.
        Failures are logged and left to the sweep at the next start."""

        def snapshot_part() -> None:
            try:
                self._snapshotter.remove(row.id)
            except NotFound:
                pass

        parts: tuple[Callable[[], None], ...] = (
            lambda: self._holds.clean(row.record.mounts, forgotten),
            snapshot_part,
            lambda: files.remove_tree(self._settings.container_directory(row.id)),
        )
        for part in parts:
            try:
                part()
            except Exception:
                log.exception("cannot remove all of container %s", row.id[:12])
