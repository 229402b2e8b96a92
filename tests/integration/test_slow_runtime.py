"""A runtime that takes its time: what it delays may cost nobody a line of output."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon, new_base

pytestmark = pytest.mark.kernel


@pytest.fixture
def slow_daemon() -> Iterator[LabDaemon]:
    """Its runtime comes back only when the container it has started has long printed."""
    base = new_base()
    base.mkdir(exist_ok=True)
    program = base / "slow"
    crun = shutil.which("crun")
    program.write_text(
        f'#!/bin/sh\n{crun} "$@"\nstatus=$?\n'
        'for word; do [ "$word" = start ] && sleep 0.5; done\nexit $status\n'
    )
    program.chmod(0o755)
    daemon = LabDaemon(base, "--add-runtime", f"slow={program}")
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def test_all_output_is_since_the_start(slow_daemon: LabDaemon) -> None:
    """Compose reads the log of a container's next run since its ``StartedAt``."""
    container = slow_daemon.docker("run", "-d", "--runtime", "slow", "busybox", "echo", "here").ok()
    slow_daemon.docker("wait", container).ok()
    state = slow_daemon.api("GET", f"/containers/{container}/json").json["State"]
    assert slow_daemon.docker("logs", "--since", state["StartedAt"], container).ok() == "here"
    assert state["StartedAt"] < state["FinishedAt"]
