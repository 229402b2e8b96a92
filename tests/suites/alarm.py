"""The alarm that ends a test that hangs, with what every thread was doing."""

from __future__ import annotations

import faulthandler
import math
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from patience import patiently


def _hung(_number: int, _frame: FrameType | None) -> None:
    faulthandler.dump_traceback(file=sys.__stderr__)
    raise TimeoutError("the test takes too long")


def alarm(seconds: int) -> Any:
    """A fixture for all tests of a directory; ``@pytest.mark.patient(seconds)`` is for those that may take
    longer."""

    @pytest.fixture(autouse=True)
    def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
        patient = request.node.get_closest_marker("patient")
        before = signal.signal(signal.SIGALRM, _hung)
        signal.alarm(math.ceil(patiently(patient.args[0] if patient is not None else seconds)))
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return no_hang
