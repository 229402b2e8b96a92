"""Base images being built. Callers that want the same image share one build; the last to leave cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from wherry.linux.process import STOP, Stop
from wherry.model.images import Image

Progress = Callable[[dict[str, Any]], None]
Work = Callable[[Progress], Awaitable[Image]]


class _Making:
    """One image being built. ``last`` is the latest progress message, for callers that join later."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.listeners: list[Progress] = []
        self.last: dict[str, Any] | None = None
        self.task: asyncio.Task[Image] | None = None

    def say(self, message: dict[str, Any]) -> None:
        """Report progress; from any thread."""
        self.last = message
        for listener in list(self.listeners):
            listener(message)


class Bootstraps:
    """Used on the loop."""

    def __init__(self) -> None:
        self._making: dict[Hashable, _Making] = {}

    async def make(self, key: Hashable, work: Work, progress: Progress) -> Image:
        """The image for ``key``. ``work`` builds it unless a build for this key is running already. A
        cancelled caller leaves the build to the others; the last one stops its programs.
        Raises what ``work`` raises."""
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = _Making()
            making.task = asyncio.create_task(self._run(key, making, work))
            # If the build was stopped, there may be nobody left to read its exception.
            making.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        elif making.last is not None:
            progress(making.last)
        making.listeners.append(progress)
        assert making.task is not None
        try:
            return await asyncio.shield(making.task)
        finally:
            making.listeners.remove(progress)
            if not making.listeners and not making.task.done():
                if self._making.get(key) is making:
                    del self._making[key]
                making.stop.end()

    async def _run(self, key: Hashable, making: _Making, work: Work) -> Image:
        STOP.set(making.stop)  # set in the task's own context, which its threads inherit
        try:
            return await work(making.say)
        finally:
            if self._making.get(key) is making:
                del self._making[key]
