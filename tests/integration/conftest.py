"""One daemon a worker, and the guard that no test leaves anything behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon, new_base
from leaks import no_leak


class Shared:
    """The worker's daemon. One that a test has spoilt is replaced, so that no later test is blamed for it."""

    def __init__(self) -> None:
        self._daemon: LabDaemon | None = None

    def daemon(self) -> LabDaemon:
        if self._daemon is None:
            self._daemon = LabDaemon(new_base())
            self._daemon.start()
            self._daemon.bootstrap()
        return self._daemon

    def replace(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            daemon.destroy()


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    made = Shared()
    try:
        yield made
    finally:
        made.replace()


@pytest.fixture(scope="module")
def shared_daemon(shared: Shared) -> LabDaemon:
    """For what lasts for a module and needs the daemon once, at its beginning."""
    return shared.daemon()


@pytest.fixture
def daemon(shared: Shared) -> Iterator[LabDaemon]:
    """The worker's daemon; afterwards everything the test made is removed by the API, and nothing of it may
    be left on the host."""
    guard = no_leak(shared.daemon())
    try:
        with guard:
            yield guard.daemon
    finally:
        if not guard.clean:
            shared.replace()


def _with_an_image() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def fresh_daemon() -> Iterator[LabDaemon]:
    """A daemon that the test may kill and start again, with an image."""
    yield from _with_an_image()


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[LabDaemon]:
    """The same for all tests of a module."""
    yield from _with_an_image()


@pytest.fixture
def mortal(fresh_daemon: LabDaemon) -> Iterator[LabDaemon]:
    """The same, and nothing may be left of what the test made."""
    with no_leak(fresh_daemon):
        yield fresh_daemon


@pytest.fixture
def name() -> str:
    return f"t{secrets.token_hex(4)}"
