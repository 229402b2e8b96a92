"""How containers end: what events and states say at an exit, a restart, and when memory runs out."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until

pytestmark = pytest.mark.kernel


@contextmanager
def seen(daemon: LabDaemon, name: str, *actions: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Events as they come, each with the container's state in that moment."""
    found: list[tuple[str, dict[str, Any]]] = []
    connection = daemon.connection()
    filters = json.dumps({"container": [name], "event": list(actions)}).replace('"', "%22").replace(" ", "")
    connection.request("GET", f"/events?filters={filters}")
    response = connection.getresponse()

    def read() -> None:
        try:
            found.extend((json.loads(line)["Action"], daemon.state_of(name)) for line in response)
        except (OSError, ValueError, AttributeError):
            pass  # closed by the test

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield found
    finally:
        connection.sock.shutdown(socket.SHUT_RDWR)
        reader.join()
        connection.close()


def test_a_restart_is_never_an_end(mortal: LabDaemon, name: str) -> None:
    mortal.docker("create", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3").ok()
    states: set[str] = set()
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            shown = mortal.api("GET", f"/containers/{name}/json").json
            states.add(f"{shown['State']['Status']} {shown['RestartCount']}")

    with seen(mortal, name, "die") as events:
        poller = threading.Thread(target=poll)
        poller.start()
        mortal.docker("start", name).ok()
        wait_until(lambda: len(events) == 3)
        over.set()
        poller.join()
    assert [state["Status"] for _, state in events] == ["restarting", "restarting", "exited"]
    assert {s for s in states if s.startswith("exited")} <= {"exited 2"}
    mortal.docker("rm", "-f", name).ok()


def test_a_policy_that_is_used_up_stays_so(mortal: LabDaemon, name: str) -> None:
    mortal.docker(
        "run", "-d", "--name", name, "--restart", "on-failure:1", "busybox", "sh", "-c", "echo run; exit 3"
    ).ok()
    wait_until(lambda: mortal.state_of(name)["Status"] == "exited")
    before = mortal.docker("logs", name).ok()
    for number in (signal.SIGTERM, signal.SIGKILL):
        mortal.restart(number)
        other = mortal.docker("run", "--rm", "busybox", "echo", "ready").ok()  # restarts come before requests
        assert other == "ready"
        assert mortal.docker("logs", name).ok() == before
        assert mortal.state_of(name)["Status"] == "exited"


def test_signals_of_a_paused_container(daemon: LabDaemon, name: str) -> None:
    """Docker wakes it for any signal, unless it has a stop signal of its own and this is another."""
    script = "trap 'echo got; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script).ok()
    wait_until(lambda: daemon.docker("logs", name).ok() == "up")
    daemon.docker("pause", name).ok()
    daemon.docker("kill", "-s", "TERM", name).ok()
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    assert daemon.state_of(name)["ExitCode"] == 5
    daemon.docker("start", name).ok()
    daemon.docker("pause", name).ok()
    daemon.docker("kill", name).ok()
    wait_until(lambda: daemon.state_of(name)["Status"] == "exited")
    other = f"{name}-o"
    daemon.docker("run", "-d", "--name", other, "--stop-signal", "INT", "busybox", "sleep", "1000").ok()
    daemon.docker("pause", other).ok()
    daemon.docker("kill", "-s", "HUP", other).ok()
    assert daemon.state_of(other)["Status"] == "paused"
    daemon.docker("kill", "-s", "INT", other).ok()
    assert daemon.state_of(other)["Status"] == "running"


HOG = "exec tail -c 200m /dev/zero"


def test_memory_that_runs_out_in_an_exec(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "-m", "20m", "busybox", "sleep", "1000").ok()
    with seen(daemon, name, "oom") as events:
        assert daemon.docker("exec", name, "sh", "-c", HOG).code == 137
        wait_until(lambda: events)
    assert events[0][1]["OOMKilled"] is True and events[0][1]["Running"] is True
    daemon.docker("restart", "-t", "0", name).ok()
    assert daemon.state_of(name)["OOMKilled"] is False


def test_memory_that_runs_out_in_a_child(daemon: LabDaemon, name: str) -> None:
    script = f"sh -c '{HOG}'; echo went on"
    daemon.docker("run", "--name", name, "-m", "20m", "busybox", "sh", "-c", script).ok()
    state = daemon.state_of(name)
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 0)
    assert "oom" in daemon.actions(container=[name])


def test_memory_that_runs_out_in_the_first_process(daemon: LabDaemon, name: str) -> None:
    assert daemon.docker("run", "--name", name, "-m", "20m", "busybox", "sh", "-c", HOG).code == 137
    assert daemon.state_of(name)["OOMKilled"] is True
    actions = daemon.actions(container=[name], event=["oom", "die"])
    assert actions.index("oom") < actions.index("die")


def test_memory_that_runs_out_where_nothing_is_killed(daemon: LabDaemon, name: str) -> None:
    """The memory is touched in user mode, where the kernel lets a process wait for more."""
    flags = ("-m", "20m", "--oom-kill-disable")
    grow = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'"
    done = daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", grow)
    if "discarded" in done.errors:
        pytest.skip("this kernel's cgroups have no such switch")
    wait_until(lambda: daemon.state_of(name)["OOMKilled"])
    assert daemon.state_of(name)["Running"] is True
    daemon.docker("rm", "-f", name).ok()
