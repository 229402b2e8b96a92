"""Containers outlive the daemon: what a second start finds, and what it does about it."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from leaks import no_leak
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[LabDaemon]:
    """A daemon of this module's, as the tests end it."""
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def mortal(own_daemon: LabDaemon) -> Iterator[LabDaemon]:
    with no_leak(own_daemon):
        yield own_daemon


def detached(daemon: LabDaemon, name: str, script: str, *flags: str) -> str:
    return daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script).ok()


def end_process(pid: int) -> None:
    """Kill a container's process from outside and wait until it is gone."""
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_running_containers_are_adopted(mortal: LabDaemon, name: str, number: int) -> None:
    detached(
        mortal, name, "echo first; while read x; do echo got-$x; done; exit 7", "-i", "-p", "127.0.0.1::80"
    )
    detached(mortal, f"{name}-tty", "echo tty; while read x; do echo got-$x; done", "-it")
    before = mortal.api("GET", f"/containers/{name}/json").json
    mortal.restart(number)
    after = mortal.api("GET", f"/containers/{name}/json").json
    assert after["State"] == before["State"]
    assert after["NetworkSettings"] == before["NetworkSettings"]
    assert mortal.docker("exec", name, "echo", "inside").ok() == "inside"
    assert mortal.docker("logs", name).ok() == "first"
    with mortal.terminal("attach", f"{name}-tty") as terminal:
        terminal.send(b"word\n")
        terminal.expect(b"got-word")
        terminal.send(b"\x10\x11")
        terminal.wait()
    done = mortal.docker("exec", name, "sh", "-c", "kill -TERM 1; exit 5")
    assert done.code == 5
    mortal.docker("stop", "-t", "0", name).ok()
    assert mortal.docker("wait", name).ok() == "137"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_attached_client_survives_nothing_but_the_container_does(
    mortal: LabDaemon, name: str, number: int
) -> None:
    with mortal.docker_process(
        "run", "-i", "--name", name, "busybox", "sh", "-c", "echo up; exec sleep 1000"
    ) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"up\n"
        wait_until(lambda: mortal.state_of(name)["Running"])
        began = time.monotonic()
        mortal.restart(number)
        assert time.monotonic() - began < patiently(5), "an attached client holds the daemon up"
        assert p.wait(patiently(10)) != 0
    assert mortal.state_of(name)["Running"]


def test_published_ports_work_throughout(mortal: LabDaemon, name: str) -> None:
    script = "while :; do echo hello | nc -l -p 80; done"
    detached(mortal, name, script, "-p", "127.0.0.1::80")
    port = int(mortal.docker("port", name, "80").ok().rpartition(":")[2])

    def greeting() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=patiently(1)) as connection:
                return connection.recv(100)
        except OSError:
            return b""

    wait_until(lambda: greeting() == b"hello\n")
    mortal.end(signal.SIGKILL)
    wait_until(lambda: greeting() == b"hello\n")
    mortal.start()
    wait_until(lambda: greeting() == b"hello\n")
    assert mortal.docker("port", name, "80").ok().endswith(f":{port}")


def test_a_paused_container_stays_paused(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "exec sleep 1000")
    mortal.docker("pause", name).ok()
    mortal.restart(signal.SIGKILL)
    assert mortal.state_of(name)["Status"] == "paused"
    mortal.docker("unpause", name).ok()
    assert mortal.state_of(name)["Status"] == "running"
    mortal.docker("pause", name).ok()
    mortal.docker("rm", "-f", name).ok()


def test_an_exec_under_way_goes_on(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "exec sleep 1000")
    mortal.docker("exec", "-d", name, "sleep", "999").ok()
    mortal.restart(signal.SIGKILL)
    assert "sleep 999" in mortal.docker("top", name).ok()
    assert mortal.docker("exec", name, "true").code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_exit_codes_of_what_ended_meanwhile_are_kept(mortal: LabDaemon, name: str, number: int) -> None:
    detached(mortal, name, "echo before; read x; echo after; exit 42", "-i", "-p", "127.0.0.1::80")
    identifier = mortal.api("GET", f"/containers/{name}/json").json["Id"]
    attach = mortal.run / "tasks" / identifier / "attach"
    conmon = next(p for p in mortal.processes() if b"conmon" in Path(f"/proc/{p}/cmdline").read_bytes())
    mortal.end(number)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stdin:
        stdin.connect(str(attach))
        stdin.send(b"go\n")
        wait_until(lambda: not Path(f"/proc/{conmon}").exists())
    mortal.start()
    state = mortal.state_of(name)
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 42, 0)
    assert state["FinishedAt"] > state["StartedAt"]
    assert mortal.docker("logs", name).ok() == "before\nafter"
    assert mortal.docker("wait", name).ok() == "42"
    mortal.docker("start", name).ok()
    assert mortal.state_of(name)["Running"]


def test_rm_is_carried_out_later(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "exec sleep 1000", "--rm", "-v", "/data")
    volumes = mortal.volumes()
    pid = mortal.pid_of(name)
    mortal.end(signal.SIGKILL)
    end_process(pid)
    mortal.start()
    wait_until(lambda: mortal.containers() == [])
    assert len(mortal.volumes()) == len(volumes) - 1


@pytest.mark.parametrize(
    ("policy", "runs"), [("no", False), ("always", True), ("unless-stopped", True), ("on-failure", True)]
)
def test_restart_policies_apply_at_the_start(mortal: LabDaemon, name: str, policy: str, runs: bool) -> None:
    detached(mortal, name, "exec sleep 1000", "--restart", policy)
    pid = mortal.pid_of(name)
    mortal.end(signal.SIGKILL)
    end_process(pid)
    mortal.start()
    if runs:
        wait_until(lambda: mortal.state_of(name)["Running"] and mortal.pid_of(name) not in (0, pid))
    else:
        assert mortal.state_of(name)["ExitCode"] == 137


@pytest.mark.parametrize(
    ("policy", "runs"), [("always", True), ("unless-stopped", False), ("on-failure", False)]
)
def test_what_was_stopped_by_hand(mortal: LabDaemon, name: str, policy: str, runs: bool) -> None:
    detached(mortal, name, "exec sleep 1000", "--restart", policy)
    mortal.docker("stop", "-t", "0", name).ok()
    mortal.restart()
    if runs:
        wait_until(lambda: mortal.state_of(name)["Running"])
    else:
        assert mortal.state_of(name)["Status"] == "exited"


def test_restart_policies_while_the_daemon_lives(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "echo run; exit 3", "--restart", "on-failure:2")
    wait_until(lambda: mortal.state_of(name)["Status"] == "exited" and _restarts(mortal, name) == 2)
    assert mortal.docker("logs", name).ok().split() == ["run"] * 3
    other = f"{name}o"
    detached(mortal, other, "exit 0", "--restart", "always")
    wait_until(lambda: _restarts(mortal, other) >= 2)
    mortal.docker("stop", other).ok()
    assert mortal.state_of(other)["Status"] == "exited"
    count = _restarts(mortal, other)
    mortal.docker("start", other).ok()
    mortal.docker("rm", "-f", other).ok()
    assert count >= 2


def _restarts(daemon: LabDaemon, name: str) -> int:
    return int(daemon.api("GET", f"/containers/{name}/json").json["RestartCount"])


def test_several_restarts_in_a_row(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "exec sleep 1000")
    pid = mortal.pid_of(name)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        mortal.restart(number)
    assert mortal.pid_of(name) == pid
    mortal.docker("kill", name).ok()


def test_events_and_created_containers_survive(mortal: LabDaemon, name: str) -> None:
    mortal.docker("create", "--name", name, "busybox", "true").ok()
    mortal.restart(signal.SIGKILL)
    assert mortal.state_of(name)["Status"] == "created"
    mortal.docker("start", "-a", name).ok()
    assert mortal.actions(container=[name]) == ["create", "attach", "start", "die"]


def test_an_image_loaded_before_a_kill_is_whole(mortal: LabDaemon) -> None:
    mortal.restart(signal.SIGKILL)
    assert mortal.docker("run", "--rm", "busybox", "echo", "ok").ok() == "ok"


def test_the_machine_was_restarted(mortal: LabDaemon, name: str) -> None:
    """Nothing of the run directory is left, as after a boot: tmpfs, mounts and processes are gone."""
    detached(mortal, name, "exec sleep 1000")
    pid = mortal.pid_of(name)
    conmon = next(p for p in mortal.processes() if b"conmon" in Path(f"/proc/{p}/cmdline").read_bytes())
    mortal.end(signal.SIGKILL)
    subprocess.run(["kill", "-9", str(conmon)], check=True)
    end_process(pid)
    identifier = _ids(mortal)[0]
    subprocess.run(["umount", str(mortal.run / "tasks" / identifier / "rootfs")], check=True)
    subprocess.run(["rm", "-r", str(mortal.run / "tasks" / identifier)], check=True)
    mortal.start()
    state = mortal.state_of(name)
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    mortal.docker("start", name).ok()
    assert mortal.state_of(name)["Running"]


def _ids(daemon: LabDaemon) -> list[str]:
    with closing(sqlite3.connect(f"file:{daemon.root}/wherry.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT id FROM containers")]


def test_a_second_daemon_on_the_same_root_is_refused(mortal: LabDaemon) -> None:
    result = subprocess.run(mortal.argv(), capture_output=True, timeout=patiently(20), check=False)
    assert result.returncode == 1
    assert f"another daemon uses {mortal.root}" in result.stderr.decode()
    assert mortal.api("GET", "/_ping").status == 200
