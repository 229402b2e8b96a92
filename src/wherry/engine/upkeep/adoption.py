"""Adopts the containers of an earlier daemon one by one, while the API already answers.

Before the API answers, ``reconcile`` finds out which containers run, so their states, ports, addresses and
names are correct from the first response. This module does the slower work for each container: watch its
exit, log, execs and health checks again, answer its DNS queries, or remove the leftovers of a container that
ended. A request about a container that is not adopted yet adopts it first (``api/waiting`` decides which
request needs which container).

Used on the loop only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from wherry.engine.ground import Ground
from wherry.errors import Conflict, NotFound

log = logging.getLogger(__name__)


class Adoption:
    """Call :meth:`begin` once, before the API answers, then :meth:`run`."""

    def __init__(self, ground: Ground, take: Callable[[str], Awaitable[None]]) -> None:
        """:param take: adopts the container of an id. It must not raise."""
        self._settings, self._containers = ground.settings, ground.containers
        self._take = take
        self._left: dict[str, None] = {}
        self._works: dict[str, asyncio.Task[None]] = {}
        self._begun = time.monotonic()

    def begin(self, ids: Iterable[str]) -> None:
        self._left = dict.fromkeys(ids)
        self._begun = time.monotonic()

    @property
    def is_over(self) -> bool:
        return not self._left and not self._works

    async def of(self, wanted: str) -> None:
        """Adopt the container of this name, id or prefix now, if it is not adopted yet."""
        if self.is_over:
            return
        try:
            container_id = self._containers.find(wanted).id
        except (NotFound, Conflict):
            return  # the request itself reports this error
        await self._one(container_id)

    async def of_exec(self, exec_id: str) -> None:
        """Adopt the container of an exec that an earlier daemon started."""
        for container_id in [*self._works, *self._left]:
            if (self._settings.task_directory(container_id) / "execs" / exec_id).is_dir():
                await self._one(container_id)

    async def everyone(self) -> None:
        """Adopt all containers, and return when this is done. The callers do the work themselves."""
        while not self.is_over:
            await self._one(next(iter(self._works or self._left)))

    async def run(self) -> None:
        """Adopt all containers. If the caller is cancelled, the remaining ones are not adopted."""
        count = len(self._left)
        await self.everyone()
        if count:
            log.info("took over %d containers (%.0f ms)", count, (time.monotonic() - self._begun) * 1e3)

    async def close(self) -> None:
        """Start no more adoptions; wait for the running ones."""
        self._left.clear()
        if self._works:
            await asyncio.wait(self._works.values())

    async def _one(self, container_id: str) -> None:
        work = self._works.get(container_id)
        if work is None:
            if container_id not in self._left:
                return
            del self._left[container_id]
            work = self._works[container_id] = asyncio.create_task(self._carry_out(container_id))
        await asyncio.shield(work)

    async def _carry_out(self, container_id: str) -> None:
        try:
            await self._take(container_id)
        finally:
            del self._works[container_id]
