"""Many containers at once, and containers that take all they can get."""

from __future__ import annotations

import concurrent.futures
import os
import time
from pathlib import Path

import pytest
from daemonlab import TIMEOUT, LabDaemon, new_base, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


def start_many(daemon: LabDaemon, count: int, workers: int) -> list[str]:
    """Create and start ``count`` containers by ``workers`` clients; their ids, all acknowledged."""

    def one(number: int) -> str:
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL"}
        body["HostConfig"] = {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}}
        answer = daemon.api("POST", f"/containers/create?name=many-{number}", body)
        assert answer.status == 201, answer.body
        started = daemon.api("POST", f"/containers/{answer.json['Id']}/start")
        assert started.status == 204, started.body
        return str(answer.json["Id"])

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(count)))


def check_many(daemon: LabDaemon, count: int) -> None:
    ids = start_many(daemon, count, workers=16)
    states = {c["Id"]: c["State"] for c in daemon.api("GET", "/containers/json").json}
    assert states == dict.fromkeys(ids, "running")
    ports = {p["PublicPort"] for c in daemon.api("GET", "/containers/json").json for p in c["Ports"]}
    assert len(ports) == count
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: daemon.api("POST", f"/containers/{i}/stop").status, ids))
    assert answers == [204] * count
    assert {daemon.state_of(i)["ExitCode"] for i in ids} == {137}


def test_two_dozen_at_once(daemon: LabDaemon) -> None:
    check_many(daemon, 24)


@pytest.mark.slow
@pytest.mark.fault("containers started and stopped by 16 clients", "200 containers")
@pytest.mark.patient(400)
def test_two_hundred_at_once() -> None:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        before = {t for t in daemon.traces() if not t.startswith("descriptors")}
        check_many(daemon, 200)
        daemon.remove_containers()
        left = lambda: [t for t in daemon.difference(before) if "descriptors" not in t]  # noqa: E731
        wait_until(lambda: not left(), "nothing to be left", timeout=TIMEOUT)
    finally:
        daemon.destroy()


def test_memory_that_runs_out_is_reported_as_such(daemon: LabDaemon, name: str) -> None:
    eat = "head -c 200m /dev/zero | tail"
    flags = ("-m", "16m", "--memory-swap", "16m")
    done = daemon.docker("run", "--name", name, *flags, "busybox", "sh", "-c", f"exec {eat}")
    assert done.code != 0
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    assert "oom" in daemon.actions(container=[name])
    done = daemon.docker("run", "--name", f"{name}-2", *flags, "busybox", "tail", "/dev/zero")
    assert done.code == 137
    state = daemon.state_of(f"{name}-2")
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert daemon.actions(container=[f"{name}-2"]).count("oom") == 1


def test_a_fork_bomb_stays_in_its_limit(daemon: LabDaemon, name: str) -> None:
    before = len([p for p in Path("/proc").iterdir() if p.name.isdigit()])
    bomb = "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done"
    daemon.docker("run", "-d", "--name", name, "--pids-limit", "64", "busybox", "sh", "-c", bomb).ok()
    full = daemon.api("GET", f"/containers/{name}/json").json["Id"]
    hierarchy = (
        Path("/sys/fs/cgroup/pids") if Path("/sys/fs/cgroup/pids").exists() else Path("/sys/fs/cgroup")
    )
    current, events = (hierarchy / daemon.cgroup / full / f"pids.{name}" for name in ("current", "events"))
    # Shells that cannot fork end, so the bomb may have burnt out when it is looked at: the kernel counts.
    wait_until(lambda: events.read_text() != "max 0\n", "the bomb to go off")
    assert int(current.read_text()) <= 64
    assert len([p for p in Path("/proc").iterdir() if p.name.isdigit()]) < before + 400
    began = time.monotonic()
    assert daemon.api("GET", "/containers/json").status == 200
    assert daemon.docker("kill", name).ok() == name
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    assert time.monotonic() - began < patiently(TIMEOUT)
    assert not current.exists() or int(current.read_text()) == 0


def test_no_descriptors_left_beyond_the_task(daemon: LabDaemon) -> None:
    """A container started beside others inherits nothing of the daemon (CVE-2024-21626)."""
    script = "for f in /proc/self/fd/*; do readlink $f; done; ls /proc/1/fd | wc -l"
    out = daemon.docker("run", "--rm", "busybox", "sh", "-c", script).ok().splitlines()
    assert all(line.startswith(("pipe:", "/dev/null", "/proc/")) or line.isdigit() for line in out), out
    assert os.path.basename(str(daemon.run)) not in " ".join(out)
