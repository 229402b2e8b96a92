"""A container takes the place of another that runs: its published ports, its aliases, its host name.

The taker was started in standby, that is, without them. So a service gets a new container and never stops
answering (``compose up --rolling``). The containers' records do not change: each says what its container has
when it is started as usual.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from wherry import threads
from wherry.engine.attributes import event_attributes
from wherry.engine.containers.sandboxes import Sandboxes
from wherry.engine.ground import Ground
from wherry.errors import Conflict, InvalidArgument
from wherry.linux import tcpflows
from wherry.state.containers import ContainerRow

_LOOK = 0.05
"""Seconds between two looks at the connections; the kernel reports their end to nobody."""
DRAIN_MAX = 3600.0


class TakeOver:
    def __init__(self, ground: Ground, sandboxes: Sandboxes) -> None:
        self._containers, self._live, self._events = ground.containers, ground.live, ground.events
        self._sandboxes = sandboxes

    async def take_over(self, wanted: str, giver: str = "", *, drain: float = 0) -> int:
        """Give a container in standby what it was started without, and take it from ``giver`` if that has it.

        :param drain: seconds to wait at most until the giver's connections are over.
        :returns: how many are not.
        :raises Conflict: one of them does not run, or has no network of its own.
        :raises InvalidArgument: both are the same.
        :raises Internal: a port is in use by a third one; nothing has changed.
        """
        if not 0 <= drain <= DRAIN_MAX:
            raise InvalidArgument(f"cannot wait {drain:g} s for connections: at most {DRAIN_MAX:g} s")
        taker = self._containers.find(wanted)
        other = self._containers.find(giver) if giver else None
        if other is not None and other.id == taker.id:
            raise InvalidArgument(f"container {taker.name} cannot take over from itself")
        both = [row for row in (taker, other) if row is not None]
        async with AsyncExitStack() as locks:
            for row in sorted(both, key=lambda one: one.id):
                await locks.enter_async_context(self._live.get(row.id).lock)
            for row in both:
                self._check(row)
            await threads.runtime.to_end(self._sandboxes.take_over, taker, other)
        self._events.publish("container", "update", taker.id, event_attributes(taker))
        return await self._drained(other, drain) if other is not None and drain else 0

    def _check(self, row: ContainerRow) -> None:
        if self._live.get(row.id).task is None:
            raise Conflict(f"cannot take over: container {row.name} is not running")
        if self._sandboxes.of(row.id) is None:
            mode = row.record.host_config.network_mode
            raise Conflict(
                f"cannot take over: container {row.name} has no network of its own (network mode {mode})"
            )

    async def _drained(self, giver: ContainerRow, seconds: float) -> int:
        end = time.monotonic() + seconds
        while (task := self._live.get(giver.id).task) is not None:
            try:
                left = await threads.short(tcpflows.accepted, task.pid)
            except OSError:
                return 0  # it has just ended
            if not left or time.monotonic() >= end:
                return left
            await asyncio.sleep(_LOOK)
        return 0
