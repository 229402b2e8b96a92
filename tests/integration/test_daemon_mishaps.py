"""What goes wrong with one container, network or volume stays with it: the daemon starts, the others run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import WATCHED, LabDaemon, new_base, wait_until
from leaks import no_leak

pytestmark = pytest.mark.kernel

FAILING = str(Path(__file__).parent / "failing_daemon.py")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.program = WATCHED
        daemon.destroy()


@pytest.fixture
def mortal(lab: LabDaemon) -> Iterator[LabDaemon]:
    with no_leak(lab):
        yield lab
        if lab.program != WATCHED:
            lab.program = WATCHED
            lab.restart()


def restart_failing(daemon: LabDaemon, *where: str) -> None:
    daemon.end()
    daemon.program = [sys.executable, FAILING, ",".join(where)]
    daemon.start()


def test_a_removal_waits_for_who_reads_the_containers_files(mortal: LabDaemon, name: str) -> None:
    """A copy has the volumes for a moment after its client has all of it."""
    restart_failing(mortal, "wherry.volumes.mounted:Mounts.give_back~0.5")
    for flags in ((), ("-f",)):
        mortal.docker("create", "--name", name, "-v", f"{name}:/data", "busybox").ok()
        mortal.docker("cp", f"{name}:/data", "-").ok()
        mortal.docker("rm", *flags, name).ok()
        mortal.docker("volume", "rm", name).ok()


def state(daemon: LabDaemon, name: str) -> dict[str, object]:
    found: dict[str, object] = daemon.api("GET", f"/containers/{name}/json").json["State"]
    return found


def detached(daemon: LabDaemon, name: str, *flags: str) -> None:
    daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000").ok()


@pytest.mark.parametrize(
    "where",
    [
        "wherry.engine.containers.lifecycle:Lifecycle.start",
        "wherry.engine.containers.bundle:prepare",
        "wherry.network.sandboxes:SandboxManager.create",
        "wherry.runtime.task:Runtime.create",
    ],
)
def test_a_container_that_cannot_be_restarted(mortal: LabDaemon, name: str, where: str) -> None:
    detached(mortal, f"{name}-1", "--restart", "always")
    detached(mortal, f"{name}-2", "--restart", "always")
    for number in (1, 2):
        mortal.api("POST", f"/containers/{name}-{number}/kill")  # nothing to adopt
    mortal.end(9)
    mortal.program = [sys.executable, FAILING, f"{where}*1"]
    mortal.start()
    wait_until(lambda: [state(mortal, f"{name}-{n}")["Running"] for n in (1, 2)].count(True) == 1)
    failed = next(n for n in (1, 2) if not state(mortal, f"{name}-{n}")["Running"])
    assert "nobody thought of this" in str(state(mortal, f"{name}-{failed}")["Error"])
    assert "nobody thought of this" in mortal.log
    mortal.docker("start", f"{name}-{failed}").ok()


def test_a_container_that_cannot_be_looked_at(mortal: LabDaemon, name: str) -> None:
    """It is neither killed nor forgotten: it is taken up later."""
    detached(mortal, name)
    pid = state(mortal, name)["Pid"]
    restart_failing(mortal, "wherry.engine.upkeep.reconcile:Reconciler._adoptable*2")
    assert Path(f"/proc/{pid}").exists()
    wait_until(lambda: mortal.docker("exec", name, "true").code == 0)
    assert state(mortal, name)["Pid"] == pid


@pytest.mark.parametrize(
    "where",
    [
        "wherry.network.sandboxes:SandboxManager.adopt",
        "wherry.network.sandboxes:SandboxManager.resume*1",
        "wherry.network.sandboxes:SandboxManager.delete",
        "wherry.engine.upkeep.reconcile:Reconciler._settle",
        "wherry.engine.containers.leftovers:Leftovers.remove",
        "wherry.engine.upkeep.reconcile:Reconciler._adopt*1",
        "wherry.engine.mounts.holds:Holds.sweep",
        "wherry.network.drivers.bridge:BridgeDriver.start*2",
    ],
)
def test_the_daemon_starts_whatever_fails(mortal: LabDaemon, name: str, where: str) -> None:
    mortal.docker("network", "create", name).ok()
    detached(mortal, f"{name}-runs", "--network", name)
    detached(mortal, f"{name}-ended")
    mortal.end(9)
    restart_failing(mortal, where)
    assert len(mortal.api("GET", "/containers/json?all=1").json) == 2
    mortal.program = WATCHED
    mortal.restart()
    assert mortal.docker("exec", f"{name}-runs", "true").code == 0


def test_an_exit_that_cannot_be_settled(mortal: LabDaemon, name: str) -> None:
    restart_failing(mortal, "wherry.engine.logs.keeping:LogKeeping.ended*1")
    mortal.docker("run", "--name", name, "busybox", "true")
    found = state(mortal, name)
    assert found["Status"] == "exited"
    assert "nobody thought of this" in str(found["Error"])
    mortal.docker("run", "--rm", "busybox", "true").ok()
