"""How long the tests' machine takes: every time after which something is taken to hang stretches with it.

Two things make a machine slow: what it is (an emulated one takes ten times as long), which is measured once,
and what else runs on it, which changes and is looked at again while a test waits. No test measures time by
these: they only decide when to give up.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

_BLOCK = bytes(1 << 20)
_USUAL = 0.008
"""Seconds of processor time that an ordinary machine of 2015 takes for :func:`_work`."""
_MOST = 6.0
"""How many times as long as usual anything may take, whatever the machine is and whatever runs beside us."""
_MOST_OF_DECLARED = 3.0
"""The same, in times of what ``WHERRY_TEST_PATIENCE`` declares, for machines that are slow by nature."""


def _work() -> None:
    for _ in range(3):
        hashlib.blake2b(_BLOCK).digest()
    sum(range(200_000))


@cache
def slowness() -> float:
    """How many times as long as usual this machine takes when it is alone, at least 1.

    ``WHERRY_TEST_PATIENCE`` sets the least, for machines whose devices are slower than their processor."""
    best = min(_timed() for _ in range(3))
    return max(_declared(), best / _USUAL)


def _declared() -> float:
    return max(1.0, float(os.environ.get("WHERRY_TEST_PATIENCE", "1")))


def _timed() -> float:
    began = time.thread_time()
    _work()
    return time.thread_time() - began


def crowd() -> float:
    """How many take turns on each processor now, at least 1."""
    with open("/proc/loadavg") as file:  # noqa: PTH123 - it is read a hundred times a second
        minute, _, _, counts, _ = file.read().split()
    return max(1.0, max(float(minute), float(counts.partition("/")[0])) / (os.cpu_count() or 1))


def pace() -> float:
    """Seconds of this machine, as it is now, for one of an ordinary machine that has nothing else to do."""
    return min(slowness() * crowd(), max(_MOST, _MOST_OF_DECLARED * _declared()))


def patiently(seconds: float) -> float:
    """``seconds``, as long as they take on this machine at this moment."""
    return seconds * pace()


class Deadline:
    """The end of ``seconds`` of an ordinary machine that has nothing else to do. While others take turns with
    us, the seconds pass more slowly."""

    def __init__(self, seconds: float) -> None:
        self._left, self._seen = seconds, time.monotonic()

    def left(self) -> float:
        """Seconds of this machine, as it is now, that are left; 0 when it has passed."""
        now, slow = time.monotonic(), pace()
        self._left = max(0.0, self._left - (now - self._seen) / slow)
        self._seen = now
        return self._left * slow

    @property
    def passed(self) -> bool:
        return not self.left()


def until(condition: Callable[[], Any], what: str = "", seconds: float = 20) -> Any:
    """The first truthy value of ``condition``, asked again and again.

    :raises AssertionError: there is none within ``seconds`` of an ordinary machine.
    """
    deadline = Deadline(seconds)
    while not (value := condition()):
        assert not deadline.passed, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.005)
    return value
