"""Repeated work of a serving process: each round is independent, so that a failure does not affect the
others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from wherry.mishaps import reason_of

log = logging.getLogger(__name__)


class Rounds:
    """Tasks that repeat until :meth:`stop`."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """:param what: for the log, as in "collect"."""
        self._tasks.append(asyncio.create_task(self._repeat(seconds, what, work)))

    async def _repeat(self, seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
        failing = 0.0
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
                failing = 0.0
            except Exception as e:
                # Log the same failure at most once a minute.
                if time.monotonic() - failing > 60:
                    log.error("cannot %s: %s", what, reason_of(e))
                    failing = time.monotonic()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
