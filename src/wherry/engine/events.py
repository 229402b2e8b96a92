"""The event bus: a change is first stored as a row, then sent to the listeners."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar

from wherry.errors import Unavailable
from wherry.model.events import Event, Initiator
from wherry.state.events import EventLog

log = logging.getLogger(__name__)

_BACKLOG = 10_000
"""Events queued for a listener that does not read. Beyond that it is disconnected: no event is skipped."""


class Subscription:
    """A listener's queue. The iteration ends when the listener falls too far behind or the daemon stops."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(_BACKLOG)
        self._cut = False

    def offer(self, event: Event | None) -> None:
        if self._cut:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._cut = True
            self._queue.get_nowait()
            self._queue.put_nowait(None)

    async def until(self, moment: int | None) -> AsyncIterator[Event]:
        """Events as they come, up to ``moment`` (ns since the epoch; ``None``: for ever)."""
        while True:
            left = None if moment is None else (moment - time.time_ns()) / 1e9
            if left is not None and left <= 0:
                return
            try:
                event = await asyncio.wait_for(self._queue.get(), left)
            except TimeoutError:
                return
            if event is None or (moment is not None and event.time > moment):
                return
            yield event


class Caller:
    """The client that is being answered, for as long as that takes.

    Work that outlives a request (a watch, a timer) inherits the request's context, but must not be reported
    in the client's name: hence ``active``.
    """

    __slots__ = ("active", "initiator")

    def __init__(self, initiator: Initiator) -> None:
        self.initiator = initiator
        self.active = True


def caller_name() -> str:
    """The client that is being answered, in a few words; empty if there is none."""
    caller = CALLER.get()
    if caller is None or not caller.active:
        return ""
    who = caller.initiator
    return who.user or (f"uid {who.uid}" if who.uid is not None else who.address)


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


class EventBus:
    """Publish from the loop's thread only."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._listeners: set[Subscription] = set()
        self._last = 0

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str] | None = None,
        *,
        keep: bool = True,
    ) -> None:
        """``keep`` False is for events that occur all the time: they go to listeners and are not stored."""
        if not keep and not self._listeners:
            return
        # Two events never have the same time, so that --since and --until can separate them.
        self._last = max(time.time_ns(), self._last + 1)
        caller = CALLER.get()
        event = Event(
            type=kind,
            action=action,
            actor=actor,
            time=self._last,
            attributes=dict(attributes or {}),
            initiator=caller.initiator if caller is not None and caller.active else None,
        )
        try:
            if keep:
                self._log.append(event)
        except Unavailable as e:  # The change has happened, even if there is no room to record it.
            log.warning("event %s %s is not kept: %s", kind, action, e.message)
        for listener in list(self._listeners):
            listener.offer(event)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscription]:
        """Listen from now on."""
        subscription = Subscription()
        self._listeners.add(subscription)
        try:
            yield subscription
        finally:
            self._listeners.discard(subscription)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def past(self, since: int | None, until: int | None) -> Iterator[Event]:
        """Recorded events, by time in nanoseconds, oldest first, read a page at a time."""
        return self._log.between(since, until)

    def close(self) -> None:
        """End every subscription."""
        for listener in list(self._listeners):
            listener.offer(None)
