"""Requests in the first moments of a daemon, before the containers of the last one are adopted."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hosttraces
import pytest
from daemonlab import LabDaemon, new_base, wait_until
from freeports import free_port
from labclients import Answer
from leaks import no_leak

pytestmark = pytest.mark.kernel

FAILING = str(Path(__file__).parent / "failing_daemon.py")
SLOWLY = [sys.executable, FAILING, "wherry.network.sandboxes:SandboxManager.resume~0.3"]
"""Each container's adoption takes long enough that requests are there before."""
SLOWLY_REMOVED = [sys.executable, FAILING, "wherry.engine.containers.leftovers:Leftovers.remove~0.3"]


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base(), program=SLOWLY)
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
        wait_until(lambda: own_daemon.api("GET", "/system/df").status == 200)  # all are adopted


def killed(daemon: LabDaemon, program: list[str]) -> None:
    daemon.program = program
    daemon.end(signal.SIGKILL)


def started(daemon: LabDaemon) -> int:
    """Start it again; where in the log it began."""
    at = len(daemon.log)
    daemon.start()
    return at


def run(daemon: LabDaemon, name: str, *flags: str) -> str:
    script = "echo printed; trap 'exit 7' TERM; while :; do sleep 0.05; done"
    return daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script).ok()


def test_each_request_finds_its_container_adopted(mortal: LabDaemon, name: str) -> None:
    mortal.docker("network", "create", name).ok()
    words = ("inspect", "stop", "remove", "exec", "start", "logs", "wait")
    ids = {word: run(mortal, f"{name}-{word}", "--network", name) for word in words}
    before = {word: mortal.api("GET", f"/containers/{ids[word]}/json").json for word in words}
    killed(mortal, SLOWLY)
    at = started(mortal)

    listed = {c["Id"]: c["State"] for c in mortal.api("GET", "/containers/json?all=1").json}
    assert listed == dict.fromkeys(ids.values(), "running")
    after = mortal.api("GET", f"/containers/{name}-inspect/json").json
    assert "took over" not in mortal.log[at:], "one that is asked for waits for no other"
    assert (after["State"], after["NetworkSettings"]) == (
        before["inspect"]["State"],
        before["inspect"]["NetworkSettings"],
    )

    def follow() -> bytes:
        answer = mortal.api("GET", f"/containers/{name}-logs/logs?follow=1&stdout=1")
        return answer.body

    def ended(word: str) -> Answer:
        return mortal.api("POST", f"/containers/{name}-{word}/kill")

    with ThreadPoolExecutor(8) as clients:
        stop = clients.submit(mortal.api, "POST", f"/containers/{name}-stop/stop")
        remove = clients.submit(mortal.api, "DELETE", f"/containers/{name}-remove?force=1")
        execute = clients.submit(
            mortal.docker, "exec", f"{name}-exec", "ping", "-c", "1", "-w", "5", f"{name}-inspect"
        )
        start = clients.submit(mortal.api, "POST", f"/containers/{name}-start/start")
        logs = clients.submit(follow)
        wait = clients.submit(mortal.api, "POST", f"/containers/{name}-wait/wait")
        assert stop.result().status == 204
        assert mortal.state_of(f"{name}-stop")["ExitCode"] == 7
        assert remove.result().status == 204
        assert mortal.api("GET", f"/containers/{name}-remove/json").status == 404
        assert "1 packets received" in execute.result().ok()
        assert start.result().status == 304
        assert [ended(word).status for word in ("logs", "wait")] == [204, 204]
        assert logs.result()[8:] == b"printed\n"
        assert wait.result().json["StatusCode"] == 137


def end_within(daemon: LabDaemon, identifier: str) -> None:
    """Let a container's ``read`` return, and wait until its conmon has ended."""
    directory = daemon.run / "tasks" / identifier
    conmon = int((directory / "conmon.pid").read_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stdin:
        stdin.connect(str(directory / "attach"))
        stdin.send(b"go\n")
        wait_until(lambda: hosttraces.state(conmon) in "ZX")  # init may take its time to reap it


def test_what_ended_while_no_daemon_ran(mortal: LabDaemon, name: str) -> None:
    words = ("wait", "start", "logs", "remove", "port")
    port = free_port()
    flags = {"port": ("-p", f"127.0.0.1:{port}:80")}
    ids = {
        word: mortal.docker(
            *("run", "-di", "--name", f"{name}-{word}", *flags.get(word, ())),
            *("busybox", "sh", "-c", "echo before; read x; exit 42"),
        ).ok()
        for word in words
    }
    itself = mortal.docker("run", "-di", "--rm", "busybox", "sh", "-c", "read x; exit 42").ok()
    killed(mortal, SLOWLY_REMOVED)
    for identifier in (*ids.values(), itself):
        end_within(mortal, identifier)
    at = started(mortal)

    def exits() -> dict[str, Any]:
        containers = mortal.api("GET", "/containers/json?all=1").json
        return {c["Id"]: c["Status"].partition(" ago")[0][:11] for c in containers if c["Id"] != itself}

    assert exits() == dict.fromkeys(ids.values(), "Exited (42)")
    # Its port is free again, although its directory is not removed yet.
    mortal.docker("run", "-d", "--name", f"{name}-next", "-p", f"127.0.0.1:{port}:80", "busybox", "top").ok()
    assert mortal.api("POST", f"/containers/{name}-wait/wait").json["StatusCode"] == 42
    mortal.docker("start", f"{name}-start").ok()
    assert mortal.state_of(f"{name}-start")["Running"]
    assert mortal.docker("logs", f"{name}-logs").ok() == "before"
    assert mortal.api("DELETE", f"/containers/{name}-remove").status == 204
    dies = mortal.actions(container=[ids["wait"]], event=["die"])
    assert dies == ["die"]
    wait_until(lambda: itself not in mortal.containers(), "the one with --rm to be removed")
    wait_until(lambda: "took over" in mortal.log[at:])


def test_a_request_for_all_waits_for_all(mortal: LabDaemon, name: str) -> None:
    for number in range(3):
        run(mortal, f"{name}-{number}")
    killed(mortal, SLOWLY)
    at = started(mortal)
    assert mortal.api("POST", "/containers/prune").status == 200
    wait_until(lambda: "took over" in mortal.log[at:])
    assert mortal.log[at:].count("adopted container") == 3
