"""Two daemons and one directory: the second goes away, and the first one's containers run on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base
from leaks import no_leak
from patience import until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        yield daemon
    finally:
        daemon.end()
        shutil.rmtree(daemon.base, ignore_errors=True)


def refused(daemon: LabDaemon) -> str:
    with pytest.raises(AssertionError, match="the daemon ended"):
        daemon.start()
    assert daemon.process is not None and daemon.process.wait() == 1
    return daemon.log


@pytest.mark.parametrize("shared", ["run", "root"])
def test_a_directory_of_a_daemon_that_runs(lab: LabDaemon, other: LabDaemon, name: str, shared: str) -> None:
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        setattr(other, shared, getattr(lab, shared))
        assert f"another daemon uses {getattr(lab, shared)}" in refused(other)
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"
        assert not (other.root / "wherry.db").exists() or shared == "root"


def test_a_run_directory_with_containers_of_a_daemon_that_stopped(
    lab: LabDaemon, other: LabDaemon, name: str
) -> None:
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        lab.end()
        other.run = lab.run
        said = refused(other)
        assert f"1 containers of the daemon with root {lab.root} run there" in said
        lab.start()
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"


def test_a_task_of_another_daemon_is_left_alone(lab: LabDaemon, name: str) -> None:
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        strange = lab.run / "tasks" / ("0" * 64)
        strange.mkdir()
        (strange / "owner").write_text("/elsewhere\n")
        own = lab.run / "tasks" / ("1" * 64)
        own.mkdir()
        lab.restart()
        until(lambda: not own.exists(), "the sweep of the daemon's own task")
        assert strange.exists()
        shutil.rmtree(strange)
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"


def test_a_copy_of_a_root_lets_the_originals_containers_run(
    lab: LabDaemon, other: LabDaemon, name: str
) -> None:
    """Started for a look, with the cgroup parent that both have by default."""
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        pid = lab.pid_of(name)
        shutil.copytree(lab.root, other.root, symlinks=True)
        other.cgroup = lab.cgroup
        other.start()
        other.expects("left the processes of container .* alone")
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"
        answer = other.docker("start", name)
        assert "processes of a daemon with another root run in its cgroup" in answer.errors
        other.docker("rm", "-f", name).ok()
        other.end()
        assert lab.pid_of(name) == pid and lab.docker("exec", name, "echo", "inside").ok() == "inside"
