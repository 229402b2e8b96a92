"""How containers go: the row first, then everything it owned."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from wherry.engine.attributes import event_attributes
from wherry.engine.control import Control
from wherry.engine.events import EventBus
from wherry.engine.holds import Holds
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.links import Links
from wherry.engine.live import Live, LiveSet
from wherry.engine.logkeeping import LogKeeping
from wherry.engine.settings import Settings
from wherry.errors import Conflict, NotFound
from wherry.linux import files
from wherry.state.containers import ContainerRow, Containers
from wherry.storage.snapshots import Snapshotter

log = logging.getLogger(__name__)

_KILL_TIMEOUT = 10.0


class Removal:
    def __init__(
        self,
        *,
        settings: Settings,
        containers: Containers,
        snapshotter: Snapshotter,
        holds: Holds,
        links: Links,
        lifecycle: Lifecycle,
        control: Control,
        logs: LogKeeping,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._snapshotter = snapshotter
        self._holds = holds
        self._links = links
        self._control = control
        self._logs = logs
        self._events = events
        self._live = live
        lifecycle.remove_row = self._remove_exited

    async def remove(self, wanted: str, *, force: bool, volumes: bool, link: bool = False) -> None:
        """:raises Conflict: it runs and ``force`` is not given, or its removal is under way."""
        if link:
            self._links.remove(wanted)
            return
        row = self._containers.find(wanted)
        live = self._live.get(row.id)
        if force:
            live.end_file_jobs()  # a start may be waiting for them
        await self._control.until_started(live)
        row = self._containers.find(row.id)
        if live.removing:
            raise Conflict(f"removal of container {wanted} is already in progress")
        self._check_removable(row, live, force=force)
        live.removing = True
        removal = live.removal()
        try:
            if live.task is not None:
                await self._kill(row, live)
            async with live.lock:
                try:
                    row = self._containers.find(row.id)
                except NotFound:
                    return  # auto-removed at its exit
                await self._remove_locked(row, live, volumes=volumes)
        finally:
            live.removing = False
            removal.cancel()

    @staticmethod
    def _check_removable(row: ContainerRow, live: Live, *, force: bool) -> None:
        if force:
            return
        status = row.state.status
        if live.task is not None or status == "restarting":
            hint = "unpause and then " if status == "paused" else ""
            raise Conflict(
                f'cannot remove container "/{row.name}": container is {status}: '
                f"{hint}stop the container before removing or force remove"
            )

    async def _kill(self, row: ContainerRow, live: Live) -> None:
        exited = live.next_exit()
        try:
            await self._control.kill(row.id, str(int(signal.SIGKILL)))
        except Conflict:
            return  # it ended by itself
        await asyncio.wait([exited], timeout=_KILL_TIMEOUT)

    async def _remove_exited(self, row: ContainerRow) -> None:
        """Auto-removal, with the container's lock held by the exit's handler."""
        await self._remove_locked(row, self._live.get(row.id), volumes=True)

    async def _remove_locked(self, row: ContainerRow, live: Live, *, volumes: bool) -> None:
        if live.restart is not None:
            live.restart.cancel()
            live.restart = None
        await self._logs.removed(row)
        points = row.record.mounts
        with self._containers.transaction():
            self._containers.delete(row.id)
            forgotten = self._holds.forget(points, row.id, anonymous=volumes)
        self._links.removed(row.record)
        live.end_file_jobs()
        for session in live.pending:
            session.abandon()
        live.pending.clear()
        await asyncio.to_thread(self._release, row, forgotten)
        drivers = {point.volume: point.driver for point in points}
        for name in forgotten:
            self._events.publish("volume", "destroy", name, {"driver": drivers[name] or "local"})
        self._events.publish("container", "destroy", row.id, event_attributes(row))
        live.removed()
        self._live.drop(row.id)

    def _release(self, row: ContainerRow, forgotten: list[str]) -> None:
        """Everything the container owned; what fails is logged and left to the sweep at the next start."""

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
