"""However a run of the tests is ended: its daemons end with it, and nothing of them stays on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

SUITE = Path(__file__).with_name("hanging_suite.py")
END: dict[str, Callable[[int], None]] = {
    "terminated": lambda pid: os.kill(pid, signal.SIGTERM),
    "Ctrl-C": lambda pid: os.killpg(pid, signal.SIGINT),
    "killed": lambda pid: os.killpg(pid, signal.SIGKILL),
}
"""How the run ends that leads the process group."""

pytestmark = [pytest.mark.kernel, pytest.mark.patient(240)]


@pytest.mark.parametrize("how", END)
def test_an_ended_run_leaves_nothing(tmp_path: Path, how: str) -> None:
    place = tmp_path / "base"
    # As ``make`` does it: the tests are a child of whatever the signal is meant for.
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "-q", str(SUITE)]
    env = {**os.environ, "HANGING_SUITE": str(place)}
    for name in [name for name in env if name.startswith("PYTEST_")]:
        del env[name]
    with (tmp_path / "out").open("wb") as out:
        run = subprocess.Popen(argv, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        wait_until(lambda: place.exists() or run.poll() is not None, "the run to be at work", timeout=120)
        assert run.poll() is None, (tmp_path / "out").read_text()
        base = Path(place.read_text())
        gone = LabDaemon.leftovers(base)
        assert gone(), "there is something to be left behind"
        END[how](run.pid)
        run.wait(patiently(60))
        try:
            wait_until(lambda: not gone(), timeout=90)
        except AssertionError:
            pytest.fail("left behind:\n  " + "\n  ".join(sorted(gone())))
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
