"""Monitors of execs that nobody has started yet: nobody sees them, they run nothing, and they do not stay."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from leaks import no_leak

pytestmark = pytest.mark.kernel


@pytest.fixture
def mortal(own_daemon: LabDaemon) -> Iterator[LabDaemon]:
    with no_leak(own_daemon):
        yield own_daemon


@pytest.fixture
def box(mortal: LabDaemon, name: str) -> str:
    """The id of a container that runs."""
    return mortal.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()


def create(daemon: LabDaemon, box: str) -> str:
    """An exec that leaves a file behind where it runs; its monitor waits when this returns."""
    answer = daemon.api("POST", f"/containers/{box}/exec", {"Cmd": ["touch", "/ran"]})
    identifier: str = answer.json["Id"]
    wait_until(lambda: monitors(identifier))
    return identifier


def monitors(exec_id: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"/execs/{exec_id}\0" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def has_run(daemon: LabDaemon, box: str) -> bool:
    return daemon.docker("exec", box, "ls", "/ran").code == 0


def test_it_does_not_wait_for_ever_and_the_exec_can_be_started_all_the_same(
    mortal: LabDaemon, box: str
) -> None:
    identifier = create(mortal, box)
    assert mortal.api("GET", f"/exec/{identifier}/json").json["Running"] is False
    wait_until(lambda: not monitors(identifier))
    assert not has_run(mortal, box)
    assert mortal.api("POST", f"/exec/{identifier}/start", {"Detach": True}).status == 200
    wait_until(lambda: mortal.api("GET", f"/exec/{identifier}/json").json["ExitCode"] == 0)
    assert has_run(mortal, box)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_daemons_end_is_its_end(mortal: LabDaemon, box: str, number: int) -> None:
    identifier = create(mortal, box)
    mortal.restart(number)
    wait_until(lambda: not monitors(identifier))
    assert mortal.api("GET", f"/exec/{identifier}/json").status == 404
    assert not has_run(mortal, box)
    wait_until(lambda: not list((mortal.run / "tasks" / box / "execs").iterdir()))


def test_the_containers_end_is_its_end(mortal: LabDaemon, box: str) -> None:
    identifier = create(mortal, box)
    mortal.docker("rm", "-f", box).ok()
    wait_until(lambda: not monitors(identifier))


def test_many_that_are_created_have_few(mortal: LabDaemon, box: str) -> None:
    made = [mortal.api("POST", f"/containers/{box}/exec", {"Cmd": ["true"]}).json["Id"] for _ in range(40)]
    assert sum(len(monitors(identifier)) for identifier in made) <= 2 * 8  # a moment: conmon and its fork
    assert mortal.docker("exec", box, "true").code == 0
    wait_until(lambda: not any(map(monitors, made)))
