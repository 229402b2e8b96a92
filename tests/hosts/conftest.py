"""The alarm of the integration tests, for these as well."""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

HANG = 45
"""Seconds after which a whole test is taken to hang."""


def _hung(_number: int, _frame: FrameType | None) -> None:
    faulthandler.dump_traceback(file=sys.__stderr__)
    raise TimeoutError("the test takes too long")


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    patient = request.node.get_closest_marker("patient")
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(patient.args[0] if patient is not None else HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
