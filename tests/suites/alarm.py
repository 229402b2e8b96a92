"""A test that hangs fails by its name, with what every thread was doing.

Each phase of a test (what it needs, itself, what it leaves) has a limit, which stretches with the machine. A
signal tells it; where Python does not come to handle one (a call in C that holds the interpreter), the whole
process ends a while later, with the stacks, and pytest-xdist names the test.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import pytest
from patience import Deadline

LIMITS = {"unit": 60, "suites": 60, "integration": 90, "hosts": 120, "clients": 120, "kernels": 600}
"""Seconds by the directory below ``tests``; ``@pytest.mark.patient(seconds)`` says another number."""
_LOOK = 5.0
"""Seconds between two looks at the machine."""
_AGAIN = 2.0
"""Seconds between two tries to end the test: an event loop may swallow the first."""
_STUCK = 120
"""Seconds after the limit when the process ends."""


class Hung(BaseException):
    """No :class:`Exception`, so that nothing that is tested takes it for one of its own."""


def limit_of(item: pytest.Item) -> float:
    """Seconds that a phase of the test may take, on an ordinary machine that has nothing else to do."""
    patient = item.get_closest_marker("patient")
    if patient is not None:
        return float(patient.args[0])
    below = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    return LIMITS.get(below, 60)


@contextlib.contextmanager
def limited(what: str, seconds: float) -> Iterator[None]:
    """:raises Hung: the block takes longer, whatever it does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deadline, told = Deadline(seconds), False

    def look() -> float:
        """What is left; be called again then, or sooner."""
        left = deadline.left()
        signal.setitimer(signal.ITIMER_REAL, min(left, _LOOK) or _AGAIN)
        faulthandler.dump_traceback_later(left + _STUCK, exit=True, file=sys.__stderr__)
        return left

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        elif look():
            return
        else:
            told = True
            print(f"\n{what} hangs: it takes more than {seconds:g} s\n", file=sys.__stderr__, flush=True)
            faulthandler.dump_traceback(file=sys.__stderr__)
        raise Hung(f"{what} takes more than {seconds:g} s of a machine that has nothing else to do")

    before = signal.signal(signal.SIGALRM, ring)
    look()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
