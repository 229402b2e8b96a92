"""The common part of all log drivers: the container's facts, the sink's interface, retries."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from wherry.logs.messages import LogMessage
from wherry.logs.tags import ContainerFacts


@dataclass(frozen=True)
class LogTarget:
    """A container's facts for a driver: the rendered tag, and the selected labels and variables."""

    facts: ContainerFacts
    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""


@dataclass(frozen=True)
class Retry:
    """Seconds until the first retry; the delay doubles up to ``longest``. After ``limit`` failures the batch
    is dropped (``None``: never)."""

    first: float = 0.1
    longest: float = 10.0
    limit: int | None = None


class Sink(Protocol):
    """The receiver of messages. One call at a time."""

    async def deliver(self, messages: Sequence[LogMessage]) -> None:
        """Deliver all messages, in order.

        :raises OSError: not all arrived (a timeout counts); the caller tries all of them again.
        """

    def state(self) -> dict[str, int]:
        """The state that :meth:`resume` needs to deliver nothing twice; empty if a protocol cannot know."""

    def resume(self, state: Mapping[str, int]) -> None:
        """Called once before the first delivery, with the state that was saved last."""

    async def close(self) -> None: ...


class Stateless:
    """For sinks without state."""

    def state(self) -> dict[str, int]:
        return {}

    def resume(self, state: Mapping[str, int]) -> None:
        pass


@lru_cache(maxsize=64)
def _seconds(text: bytes) -> int:
    return calendar.timegm(time.strptime(text.decode(), "%Y-%m-%dT%H:%M:%S"))


def split_time(stamp: bytes) -> tuple[int, int]:
    """Seconds since the epoch and nanoseconds of a record's stamp."""
    return _seconds(stamp[:19]), int(stamp[20:29])
