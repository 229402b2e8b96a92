"""More than 1,023 descriptors: what select(2) cannot name. Containers start with the limits as they were."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from leaks import no_leak

pytestmark = pytest.mark.kernel

CONNECTIONS = 1100
LIMITS = (1024, 16384)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    limits = f"--nofile={LIMITS[0]}:{LIMITS[1]}"
    daemon = LabDaemon(new_base(), program=["prlimit", limits, sys.executable, "-m", "wherry.daemon.entry"])
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@contextlib.contextmanager
def idle_connections(daemon: LabDaemon, count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(daemon.socket))
        wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) >= count)
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_everything_works_beyond_what_select_can_name(lab: LabDaemon, name: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY *.txt /\nRUN cat /a.txt\n")
    (tmp_path / "a.txt").write_text("hello\n")
    with no_leak(lab), idle_connections(lab, CONNECTIONS):
        lab.docker("run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "sleep", "1000").ok()
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"
        assert lab.docker("exec", "-i", name, "cat", input=b"through").ok() == "through"
        lab.docker("cp", str(tmp_path / "a.txt"), f"{name}:/a.txt").ok()
        assert lab.docker("exec", name, "cat", "/a.txt").ok() == "hello"
        assert lab.docker("top", name).code == 0
        lab.docker("network", "create", name).ok()
        lab.docker("network", "connect", name, name).ok()
        lab.docker("commit", name, f"{name}-image").ok()
        lab.wherry("build", "-t", f"{name}-built", str(tmp_path)).ok()
        lab.docker("restart", "-t", "0", name).ok()
        lab.expects("unclosed <socket.socket .*wherry.sock")  # the process ends before the last is closed
        lab.restart()
        assert lab.docker("exec", name, "true").code == 0
        lab.docker("rm", "-f", name).ok()


def test_containers_have_the_limits_the_daemon_was_started_with(lab: LabDaemon, name: str) -> None:
    soft, hard = (str(n) for n in LIMITS)
    own = Path(f"/proc/{lab.pid}/limits").read_text()
    assert [line.split()[3:5] for line in own.splitlines() if "open files" in line] == [[hard, hard]]
    show = "ulimit -Sn; ulimit -Hn"
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        pid = lab.api("GET", f"/containers/{name}/json").json["State"]["Pid"]
        shown = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[3:5] for line in shown.splitlines() if "open files" in line] == [[soft, hard]]
        assert lab.docker("exec", name, "sh", "-c", show).ok().split() == [soft, hard]
        set_ = lab.docker("run", "--rm", "--ulimit", "nofile=100:200", "busybox", "sh", "-c", show)
        assert set_.ok().split() == ["100", "200"]
