"""One daemon a worker, and the guard that no test leaves anything behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from alarm import alarm
from daemonlab import LabDaemon, new_base
from leaks import HANG, no_leak

no_hang = alarm(HANG)


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
