"""Report containers that run out of memory at once, whichever of their processes is killed."""

from __future__ import annotations

import asyncio
import logging

from msgspec.structs import replace

from wherry.engine.attributes import event_attributes
from wherry.engine.containers.bundle import cgroup_path
from wherry.engine.ground import Ground
from wherry.errors import NotFound, Unavailable
from wherry.linux.oom import OomWatch, Tell

log = logging.getLogger(__name__)


class OomReports:
    """Watches every running container. On OOM it publishes the event and updates the row at once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._watch = OomWatch()
        self._watched: dict[str, tuple[int, Tell]] = {}

    def running(self, container_id: str) -> None:
        """Watch it from now on, until it ends."""
        row = self._ground.containers.find(container_id)

        def tell() -> None:
            self._happened(container_id)

        try:
            fd = self._watch.add(cgroup_path(row.record, self._ground.settings), tell)
        except (OSError, KeyError) as e:
            log.debug("cannot watch the memory of container %s: %s", container_id[:12], e)
            return  # conmon's note is read at the end
        self._watched[container_id] = (fd, tell)
        asyncio.get_running_loop().add_reader(fd, self._watch.read, fd)

    def _happened(self, container_id: str) -> None:
        try:
            row = self._ground.containers.find(container_id)
        except NotFound:
            return
        if not row.state.oom_killed:
            try:
                self._ground.containers.set_state(container_id, replace(row.state, oom_killed=True))
            except Unavailable as e:
                log.warning("container %s ran out of memory: %s", container_id[:12], e.message)
        self._ground.events.publish("container", "oom", container_id, event_attributes(row))

    def ended(self, container_id: str, *, noted: bool) -> None:
        """The container has ended. Call this before its row says so.

        :param noted: whether conmon noted an OOM; used where nothing else reports it.
        """
        fd, tell = self._watched.pop(container_id, (-1, None))
        if tell is not None:
            loop = asyncio.get_running_loop()
            if fd not in {other for other, _ in self._watched.values()}:
                loop.remove_reader(fd)
            self._watch.remove(fd, tell)
        if noted and not self._ground.containers.find(container_id).state.oom_killed:
            self._happened(container_id)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for fd in {fd for fd, _ in self._watched.values()}:
            loop.remove_reader(fd)
        self._watched.clear()
        self._watch.close()
