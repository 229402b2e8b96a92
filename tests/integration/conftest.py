"""One daemon a worker, and the guard that no test leaves anything behind."""

from __future__ import annotations

import faulthandler
import secrets
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest
from daemonlab import LabDaemon, new_base
from leaks import HANG, no_leak


def _hung(_number: int, _frame: FrameType | None) -> None:
    faulthandler.dump_traceback(file=sys.__stderr__)
    raise TimeoutError("the test takes too long")


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    """``@pytest.mark.patient(seconds)`` is for those that may take longer."""
    patient = request.node.get_closest_marker("patient")
    before = signal.signal(signal.SIGALRM, _hung)
    signal.alarm(patient.args[0] if patient is not None else HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def daemon(shared_daemon: LabDaemon) -> Iterator[LabDaemon]:
    """The worker's daemon; afterwards everything the test made is removed by the API, and nothing of it may
    be left on the host."""
    with no_leak(shared_daemon):
        yield shared_daemon


@pytest.fixture
def fresh_daemon() -> Iterator[LabDaemon]:
    """A daemon that the test may kill and start again, with an image."""
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def mortal(fresh_daemon: LabDaemon) -> Iterator[LabDaemon]:
    """The same, and nothing may be left of what the test made."""
    with no_leak(fresh_daemon):
        yield fresh_daemon


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(4)}"
