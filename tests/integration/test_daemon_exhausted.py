"""No descriptors left: clients wait in line, what runs is cleaned up, and the log stays short."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from leaks import no_leak

pytestmark = pytest.mark.kernel

LIMIT = 256


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    program = ["prlimit", f"--nofile={LIMIT}:{LIMIT}", sys.executable, "-m", "wherry.daemon.entry"]
    daemon = LabDaemon(new_base(), program=program)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def opened(daemon: LabDaemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_clients_wait_and_the_dead_are_buried(lab: LabDaemon, name: str) -> None:
    with no_leak(lab):
        lab.docker("run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "sleep", "1000").ok()
        pid = lab.api("GET", f"/containers/{name}/json").json["State"]["Pid"]
        said = len(lab.log)
        with ExitStack() as stack:
            for _ in range(2 * LIMIT):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(lab.socket))
            wait_until(lambda: opened(lab) >= LIMIT // 2)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not list((lab.run / "tasks").iterdir()))
            assert opened(lab) < LIMIT
        news = lab.log[said:]
        assert news.count("taking no more connections for now") == 1
        assert "Traceback" not in news and len(news.splitlines()) < 20
        assert lab.api("GET", f"/containers/{name}/json").json["State"]["Status"] == "exited"
        lab.docker("start", name).ok()
        assert lab.docker("exec", name, "echo", "inside").ok() == "inside"
