"""What all log drivers share: whom they speak of, how they are asked, and when they try again."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from wherry.logs.messages import Message
from wherry.logs.tags import Facts


@dataclass(frozen=True)
class Target:
    """A container as a driver names it: the tag made whole, and the labels and variables chosen for it."""

    facts: Facts
    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""


@dataclass(frozen=True)
class Retry:
    """Seconds until the first further try, which doubles up to ``longest``; after ``limit`` failures the
    batch is given up (``None``: never)."""

    first: float = 0.1
    longest: float = 10.0
    limit: int | None = None


class Sink(Protocol):
    """Where messages go. One call at a time."""

    async def deliver(self, messages: Sequence[Message]) -> None:
        """Hand over all of them, in order.

        :raises OSError: not all arrived (a timeout is one); the caller tries them all again.
        """

    def state(self) -> dict[str, int]:
        """What :meth:`resume` needs to deliver nothing twice; empty where a protocol cannot know."""

    def resume(self, state: Mapping[str, int]) -> None:
        """Called once before the first delivery, with what was saved last."""

    async def close(self) -> None: ...


class Stateless:
    """For sinks that remember nothing."""

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
