"""One daemon a worker, and the guard that no test leaves anything behind."""

from __future__ import annotations

import faulthandler
import secrets
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest
from daemonlab import LabDaemon, new_base, wait_until

HANG = 30
"""Seconds after which a whole test is taken to hang; single waits give up after 20."""


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


class no_leak:
    """``with no_leak(daemon):`` fails when what is there afterwards is not what was there before."""

    def __init__(self, daemon: LabDaemon) -> None:
        self.daemon = daemon

    def __enter__(self) -> None:
        daemon = self.daemon
        self.images, self.tags, self.volumes = daemon.images(), daemon.tags(), daemon.volumes()
        self.before = daemon.traces()

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        daemon = self.daemon
        daemon.remove_containers()
        for volume in daemon.volumes() - self.volumes:
            daemon.api("DELETE", f"/volumes/{volume}")
        for tag in daemon.tags() - self.tags:
            daemon.api("DELETE", f"/images/{tag}")
        for image in daemon.images() - self.images:
            daemon.api("DELETE", f"/images/{image}?force=1")
        if kind is not None:
            return
        try:
            wait_until(lambda: not daemon.difference(self.before), timeout=10)
        except AssertionError:
            pytest.fail("\n  ".join(daemon.difference(self.before)))


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
def name() -> str:
    return f"t{secrets.token_hex(4)}"
