"""Containers outlive the daemon: what a second start finds, and what it does about it."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from leaks import no_leak
from patience import patiently

pytestmark = pytest.mark.kernel


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
        assert time.monotonic() - began < patiently(10), "an attached client holds the daemon up"
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
        mortal.docker("run", "--rm", "busybox", "true").ok()
        state = mortal.state_of(name)
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)


@pytest.mark.parametrize(
    ("policy", "runs"), [("always", True), ("unless-stopped", False), ("on-failure", False)]
)
def test_what_was_stopped_by_hand(mortal: LabDaemon, name: str, policy: str, runs: bool) -> None:
    # The daemon is ready before policies apply, one container after the other: these tell when they have.
    witnesses = [f"{name}-before", f"{name}-after"]
    detached(mortal, witnesses[0], "exec sleep 1000", "--restart", "always")
    detached(mortal, name, "exec sleep 1000", "--restart", policy)
    detached(mortal, witnesses[1], "exec sleep 1000", "--restart", "always")
    mortal.docker("stop", "-t", "0", name, *witnesses).ok()
    mortal.restart()
    for witness in witnesses:
        wait_until(lambda w=witness: mortal.state_of(w)["Running"])
    assert mortal.state_of(name)["Status"] == ("running" if runs else "exited")


def test_what_ended_well_meanwhile_is_no_failure(mortal: LabDaemon, name: str) -> None:
    detached(mortal, name, "read x; exit 0", "-i", "--restart", "on-failure")
    identifier = mortal.api("GET", f"/containers/{name}/json").json["Id"]
    detached(mortal, f"{name}-witness", "exec sleep 1000", "--restart", "always")
    mortal.docker("stop", "-t", "0", f"{name}-witness").ok()
    pid = mortal.pid_of(name)
    mortal.end(signal.SIGKILL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stdin:
        stdin.connect(str(mortal.run / "tasks" / identifier / "attach"))
        stdin.send(b"go\n")
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
    mortal.start()
    wait_until(lambda: mortal.state_of(f"{name}-witness")["Running"])
    state = mortal.state_of(name)
    assert (state["Status"], state["ExitCode"], _restarts(mortal, name)) == ("exited", 0, 0)


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


NO_LOOK = """
import errno, os, sys
from wherry.runtime import task
look = task.conmon_fd
def conmon_fd(directory, pid):
    if os.path.exists(sys.argv[1]):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return look(directory, pid)
task.conmon_fd = conmon_fd
from wherry.daemon.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_container_that_could_not_be_looked_at_goes_with_its_processes(tmp_path: Path, name: str) -> None:
    """The daemon has no descriptor left when it starts: it cannot know yet whether the container runs."""
    flag = tmp_path / "none left"
    daemon = LabDaemon(new_base(), program=[sys.executable, "-c", NO_LOOK, str(flag)])
    try:
        daemon.start()
        daemon.bootstrap()
        daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
        daemon.docker(
            "run", "-d", "--name", f"{name}-2", "-p", "127.0.0.1::80", "busybox", "sleep", "1000"
        ).ok()
        port = daemon.docker("port", f"{name}-2").ok()
        pids = [daemon.pid_of(name), daemon.pid_of(f"{name}-2")]
        flag.touch()
        daemon.expects("cannot (find out whether|end the conmon of) container")
        daemon.expects("take up container")
        daemon.restart()
        assert "container is running" in daemon.docker("rm", name).errors
        daemon.docker("rm", "-f", name).ok()
        wait_until(lambda: not Path(f"/proc/{pids[0]}").exists())
        flag.unlink()
        wait_until(lambda: daemon.docker("exec", f"{name}-2", "true").code == 0, timeout=20)
        assert daemon.pid_of(f"{name}-2") == pids[1]
        assert daemon.docker("port", f"{name}-2").ok() == port
        daemon.docker("rm", "-f", f"{name}-2").ok()
    finally:
        daemon.destroy()


def test_a_project_comes_back_in_its_order(mortal: LabDaemon, name: str) -> None:
    """After a boot, as everything has ended: what depends on a healthy service waits for it, without
    ``up``."""
    label = f"--label=com.docker.compose.project={name}"

    def service(which: str, script: str, depends_on: str, *flags: str) -> None:
        labels = (
            f"--label=com.docker.compose.service={which}",
            f"--label=com.docker.compose.depends_on={depends_on}",
        )
        detached(mortal, f"{name}-{which}", script, "--restart", "always", label, *labels, *flags)

    # The first made is the one that waits: without its labels it would start first.
    service("web", "exec sleep 1000", "db:service_healthy:true")
    service("db", "rm -f /ready; sleep 1; echo > /ready; exec sleep 1000", "",
            "--health-cmd", "test -e /ready", "--health-interval", "200ms")  # fmt: skip
    service("alone", "exec sleep 1000", "")
    pids = [mortal.pid_of(f"{name}-{which}") for which in ("web", "db", "alone")]
    mortal.end(signal.SIGKILL)
    for pid in pids:
        end_process(pid)
    mortal.start()

    def state(which: str) -> dict[str, Any]:
        found: dict[str, Any] = mortal.api("GET", f"/containers/{name}-{which}/json").json["State"]
        return found

    wait_until(lambda: state("alone")["Running"], "what depends on nothing runs")
    wait_until(lambda: state("web")["Running"], "what waited runs")
    healthy = next(one for one in state("db")["Health"]["Log"] if one["ExitCode"] == 0)
    assert state("db")["StartedAt"] < healthy["Start"] < state("web")["StartedAt"]
