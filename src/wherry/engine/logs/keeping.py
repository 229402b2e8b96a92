"""Tells the log keeper and the shippers which containers run: they rotate and deliver their logs."""

from __future__ import annotations

import asyncio
import logging
import socket

from wherry.engine.attributes import event_attributes
from wherry.engine.events import EventBus
from wherry.engine.logs.facts import attributes_of, facts_of
from wherry.engine.settings import Settings
from wherry.errors import WherryError
from wherry.logs import drivers, options, tags
from wherry.logs.drivers.base import LogTarget
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Keeper
from wherry.logs.shipper import Shipper
from wherry.state.containers import ContainerRow

log = logging.getLogger(__name__)

_LAST_WORDS = 2.0
"""Seconds that a removal waits for a delivery that is making progress."""


class LogKeeping:
    def __init__(self, *, settings: Settings, keeper: Keeper, events: EventBus) -> None:
        self._settings = settings
        self._events = events
        self.keeper = keeper
        self._shippers: dict[str, tuple[Shipper, asyncio.Task[None]]] = {}

    def prepare(self, row: ContainerRow) -> None:
        """Called before conmon opens the log. Blocks."""
        if options.is_kept(row.record.host_config.log_config):
            LogFiles(self._settings.log_path(row.id)).settle()

    def running(self, row: ContainerRow) -> None:
        """The container was started, or adopted."""
        config = row.record.host_config.log_config
        if not options.is_kept(config):
            return
        if options.is_shipped(config):
            self._ship(row, ended=False)
        control = self._settings.task_directory(row.id) / "ctl"
        self.keeper.run(row.id, self._settings.log_path(row.id), control, options.keep(config))

    def ended(self, row: ContainerRow) -> None:
        """The rest of the log is still delivered, however long that takes."""
        self.keeper.end(row.id)

    async def fit(self, row: ContainerRow) -> None:
        """Called after the end, before a next start is possible: cut the log to its exact bounds."""
        config = row.record.host_config.log_config
        if not options.is_kept(config) or options.is_shipped(config):
            return  # a shipper stores its position in these files
        try:
            await self.keeper.fit(row.id, self._settings.log_path(row.id), options.keep(config))
        except (WherryError, OSError) as e:
            log.warning("cannot cut the log of container %s to its size: %s", row.id[:12], e)

    def stopped(self, row: ContainerRow) -> None:
        """It does not run, but the last daemon may not have delivered everything."""
        if options.is_shipped(row.record.host_config.log_config):
            self._ship(row, ended=True)

    async def removed(self, row: ContainerRow) -> None:
        """Its directory is about to be removed. A delivery that is making progress may finish first."""
        found = self._shippers.get(row.id)
        if found is None:
            return
        shipper, task = found
        if shipper.healthy and row.record.host_config.log_config.type != "json-file":
            await asyncio.wait([task], timeout=_LAST_WORDS)
        task.cancel()
        await asyncio.wait([task])

    def _ship(self, row: ContainerRow, *, ended: bool) -> None:
        found = self._shippers.get(row.id)
        if found is not None and not found[0].over and not found[1].done():
            # It is still delivering what was printed before the restart.
            found[0].consumer.set_ended(ended)
            return
        try:
            shipper = self._shipper(row)
        except (WherryError, OSError) as e:
            log.error("cannot deliver the log of container %s: %s", row.id[:12], e)
            return
        shipper.consumer.set_ended(ended)
        task = asyncio.create_task(shipper.run())
        self._shippers[row.id] = shipper, task
        task.add_done_callback(lambda done: self._finished(row, done))

    def _finished(self, row: ContainerRow, task: asyncio.Task[None]) -> None:
        found = self._shippers.get(row.id)
        if found is not None and found[1] is task:
            del self._shippers[row.id]
        if not task.cancelled() and task.exception() is not None:
            log.error("delivery of the log of %s failed", row.id[:12], exc_info=task.exception())

    def _shipper(self, row: ContainerRow) -> Shipper:
        config = row.record.host_config.log_config
        chosen = config.config or {}
        facts = facts_of(row)
        tag = tags.render(chosen.get("tag") or tags.DEFAULT_TAG, facts)
        target = LogTarget(facts, tag, attributes_of(row), socket.gethostname())
        sink, retry = drivers.make(config.type, chosen, target, self._settings.json_log_path(row.id))
        backlog = options.backlog(config)
        path = self._settings.log_path(row.id)
        return Shipper(
            f"the log of container {row.id[:12]} to {config.type}",
            files=LogFiles(path),
            consumer=self.keeper.consume(row.id, path, bound=backlog.bound if backlog.blocking else 0),
            sink=sink,
            backlog=backlog,
            retry=retry,
            cursor=path.with_name("log.cursor"),
            report=lambda lost: self._dropped(row, lost),
        )

    def _dropped(self, row: ContainerRow, lost: int) -> None:
        driver = row.record.host_config.log_config.type
        log.warning("dropped %d bytes of the log of container %s: %s took them too slowly",
                    lost, row.id[:12], driver)  # fmt: skip
        self._events.publish(
            "container", "log-drop", row.id, event_attributes(row, bytes=str(lost), driver=driver)
        )

    async def close(self) -> None:
        """Store the position of every delivery; the next daemon continues from there."""
        tasks = [task for _, task in self._shippers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.keeper.close()
