"""Execs listed, stopped and killed with all they forked; and Docker's options of exec."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from daemonlab import TIMEOUT, LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    return name


def wherry(daemon: LabDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", "from wherry.cli.main import entry; raise SystemExit(entry())"]
    return subprocess.run(
        [*argv, "-H", f"unix://{daemon.socket}", *arguments],
        capture_output=True,
        text=True,
        timeout=patiently(TIMEOUT),
        env={**os.environ, **daemon.environment},
        check=False,
    )


def listing(daemon: LabDaemon, container: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.api("GET", f"/containers/{container}/execs").json
    return found


def commands(daemon: LabDaemon, container: str) -> list[str]:
    return [row[-1] for row in daemon.api("GET", f"/containers/{container}/top").json["Processes"]]


def detached(daemon: LabDaemon, container: str, script: str, *flags: str) -> None:
    daemon.docker("exec", "-d", *flags, container, "sh", "-c", script).ok()


def test_listing(daemon: LabDaemon, box: str) -> None:
    assert listing(daemon, box) == []
    detached(daemon, box, "(setsid sleep 700 &); sleep 701; true", "-u", "1")
    wait_until(lambda: len(commands(daemon, box)) == 4)
    (found,) = listing(daemon, box)
    assert (found["Running"], found["User"], found["Processes"], found["ExitCode"]) == (True, "1", 3, None)
    assert found["Command"] == ["sh", "-c", "(setsid sleep 700 &); sleep 701; true"]
    assert found["Pid"] in [int(r[1]) for r in daemon.api("GET", f"/containers/{box}/top").json["Processes"]]
    shown = wherry(daemon, "exec", "ls", box).stdout.splitlines()
    assert shown[0].split() == ["EXEC", "ID", "PID", "USER", "COMMAND", "SINCE", "PROCESSES", "STATE"]
    assert shown[1].startswith(found["ID"][:12])
    assert wherry(daemon, "exec", "ls", "-q", box).stdout == f"{found['ID'][:12]}\n"
    assert daemon.api("GET", "/containers/no-such/execs").status == 404


def test_stopping_ends_all_it_forked_and_nothing_else(daemon: LabDaemon, box: str) -> None:
    detached(daemon, box, "trap '' TERM; (setsid sleep 702 &); sleep 703 & while :; do sleep 704; done")
    detached(daemon, box, "sleep 705")
    wait_until(lambda: {"sleep 702", "sleep 703", "sleep 704", "sleep 705"} <= set(commands(daemon, box)))
    stubborn = next(e for e in listing(daemon, box) if e["Processes"] > 1)["ID"]
    done = wherry(daemon, "container", "exec-stop", "-t", "0", box, stubborn[:8])
    assert (done.returncode, done.stdout) == (0, f"{stubborn}\n")
    assert sorted(commands(daemon, box)) == ["sleep 1000", "sleep 705"]
    assert daemon.api("GET", f"/exec/{stubborn}/json").json["ExitCode"] == 137
    assert daemon.api("POST", f"/exec/{stubborn}/stop").status == 304
    assert daemon.api("POST", f"/exec/{stubborn}/kill").status == 409
    assert daemon.api("POST", "/exec/no-such/stop").status == 404
    # Without an ID all are meant.
    assert wherry(daemon, "exec", "stop", box).returncode == 0
    assert commands(daemon, box) == ["sleep 1000"]


def test_what_an_ended_exec_left_is_listed_and_can_be_stopped(daemon: LabDaemon, box: str) -> None:
    detached(daemon, box, "setsid sleep 706 > /dev/null 2>&1 < /dev/null & exit 3")
    wait_until(lambda: [e["Running"] for e in listing(daemon, box)] == [False])
    (found,) = listing(daemon, box)
    assert (found["ExitCode"], found["Processes"]) == (3, 1)
    assert "exited (3)" in wherry(daemon, "exec", "ls", box).stdout
    assert wherry(daemon, "exec", "stop", box).returncode == 0
    assert commands(daemon, box) == ["sleep 1000"]
    assert listing(daemon, box) == []


def test_signals_go_to_the_first_process(daemon: LabDaemon, box: str) -> None:
    detached(daemon, box, "trap 'exit 9' USR1; sleep 707 & wait")
    wait_until(lambda: "sleep 707" in commands(daemon, box))
    (found,) = listing(daemon, box)
    assert wherry(daemon, "exec", "kill", "-s", "USR1", box).returncode == 0
    wait_until(lambda: not daemon.api("GET", f"/exec/{found['ID']}/json").json["Running"])
    assert daemon.api("GET", f"/exec/{found['ID']}/json").json["ExitCode"] == 9
    assert daemon.api("POST", f"/exec/{found['ID']}/kill?signal=NONE").status == 400
    assert wherry(daemon, "exec", "kill", box).returncode == 0
    assert commands(daemon, box) == ["sleep 1000"]


def test_a_paused_container_is_left_alone(daemon: LabDaemon, box: str) -> None:
    detached(daemon, box, "sleep 708")
    (found,) = listing(daemon, box)
    daemon.docker("pause", box).ok()
    for action in ("stop", "kill"):
        assert daemon.api("POST", f"/exec/{found['ID']}/{action}").status == 409
    daemon.docker("unpause", box).ok()
    # Had a signal come meanwhile, it would be there now.
    assert daemon.docker("exec", box, "true").code == 0
    assert "sleep 708" in commands(daemon, box)
    assert daemon.api("GET", f"/exec/{found['ID']}/json").json["Running"]
    assert daemon.api("POST", f"/exec/{found['ID']}/kill").status == 204
    wait_until(lambda: not daemon.api("GET", f"/exec/{found['ID']}/json").json["Running"])


def test_a_container_of_that_name_comes_first(daemon: LabDaemon, box: str) -> None:
    daemon.docker("run", "-d", "--name", "ls", "busybox", "sleep", "1000").ok()
    done = wherry(daemon, "exec", "ls", "echo", "inside")
    assert (done.returncode, done.stdout) == (0, "inside\n")
    assert wherry(daemon, "container", "exec-ls", "-q", box).stdout == ""


def test_execs_that_begin_together_are_told_apart(daemon: LabDaemon, box: str) -> None:
    processes = [
        subprocess.Popen(
            ["docker", "exec", "-d", box, "sh", "-c", f"sleep {number} & sleep {number}; true"],
            env=daemon.environment,
        )
        for number in range(720, 726)
    ]
    assert [process.wait(patiently(TIMEOUT)) for process in processes] == [0] * 6
    wait_until(lambda: [e["Processes"] for e in listing(daemon, box)] == [3] * 6)
    for found in listing(daemon, box):
        assert daemon.api("POST", f"/exec/{found['ID']}/kill").status == 204
    assert commands(daemon, box) == ["sleep 1000"]


def test_no_group_stays(daemon: LabDaemon, box: str) -> None:
    identifier = daemon.api("GET", f"/containers/{box}/json").json["Id"]
    for _ in range(3):
        daemon.docker("exec", box, "true").ok()
    made = list(Path("/sys/fs/cgroup").glob(f"**/{daemon.cgroup}/{identifier}/exec-*"))
    wait_until(lambda: not any(p.exists() for p in made))


# ---- Docker's options ------------------------------------------------------------------------------------


def test_options_of_exec(daemon: LabDaemon, box: str) -> None:
    out = daemon.docker(
        "exec", "-e", "A=1", "-w", "/tmp", "-u", "1:2", box, "sh", "-c", "echo $A $(pwd) $(id -u):$(id -g)"
    )
    assert out.ok() == "1 /tmp 1:2"
    capabilities = "grep CapEff /proc/self/status"
    plain, privileged = (
        daemon.docker("exec", *flags, box, "sh", "-c", capabilities).ok().split()[1]
        for flags in ((), ("--privileged",))
    )
    assert int(plain, 16) < int(privileged, 16)
    with daemon.sdk() as client:
        container = client.containers.get(box)
        result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
        assert (result.exit_code, result.output) == (3, (b"out\n", b"err\n"))
        assert container.exec_run("id -un", user="daemon").output == b"daemon\n"
        assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
    for command, code in ((("sh", "-c", "exit 41"), 41), (("nothing",), 127), (("/etc",), 126)):
        assert daemon.docker("exec", box, *command).code == code
    assert daemon.docker("exec", "-w", "relative", box, "true").code != 0
    assert daemon.docker("exec", "-u", "nobody-there", box, "true").code == 1
    with daemon.terminal("exec", "-it", "--detach-keys", "ctrl-a,d", box, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.resize(33, 77)
        terminal.send(b"until stty size | grep -q '33 77'; do sleep 0.05; done; echo sized-$((1 + 1))\n")
        terminal.expect(b"sized-2")
        terminal.send(b"\x01d")
        assert terminal.wait() != 0
    assert [e["Command"] for e in listing(daemon, box)] == [["sh"]]


# ---- across daemons --------------------------------------------------------------------------------------


def test_execs_outlive_the_daemon(mortal: LabDaemon, name: str) -> None:
    mortal.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    detached(mortal, name, "sleep 710 & sleep 711; true", "-u", "1")
    detached(mortal, name, "sleep 712")
    detached(mortal, name, "setsid sleep 713 > /dev/null 2>&1 < /dev/null & exit 3")
    # The third one's first process has ended, what it left behind runs on.
    wait_until(lambda: [(e["Processes"], e["Pid"] > 0) for e in listing(mortal, name)]
               == [(3, True), (1, True), (1, False)])  # fmt: skip
    before = listing(mortal, name)
    mortal.end(signal.SIGKILL)
    os.kill(before[1]["Pid"], signal.SIGTERM)
    mortal.start()
    after = {e["ID"]: e for e in listing(mortal, name)}
    assert after == {e["ID"]: e for e in (before[0], before[2])}
    wait_until(lambda: mortal.actions(container=[name]).count("exec_die") == 2)
    view = mortal.api("GET", f"/exec/{before[0]['ID']}/json").json
    assert (view["Running"], view["Pid"], view["ProcessConfig"]["user"]) == (True, before[0]["Pid"], "1")
    for found in after:
        assert mortal.api("POST", f"/exec/{found}/stop?t=1").status == 204
    assert commands(mortal, name) == ["sleep 1000"]
    assert mortal.api("GET", f"/exec/{before[0]['ID']}/json").json["ExitCode"] == 143
    assert json.loads(mortal.docker("inspect", name).ok())[0]["State"]["Running"]
