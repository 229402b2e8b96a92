"""Execs and attached streams, byte for byte as clients take them: frames, errors, sizes, ends."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

import pytest
from daemonlab import TIMEOUT, LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    return name


def make(daemon: LabDaemon, box: str, *command: str, **more: Any) -> str:
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **more}
    answer = daemon.api("POST", f"/containers/{box}/exec", body)
    assert answer.status == 201, answer.body
    identifier: str = answer.json["Id"]
    return identifier


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, length = struct.unpack(">B3xL", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


# ---- frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "started"), [(False, False), (True, False), (False, True), (True, True)])
def test_frames_follow_the_start(daemon: LabDaemon, box: str, made: bool, started: bool) -> None:
    identifier = make(daemon, box, "echo", "x", Tty=made)
    headers = {"Upgrade": "tcp", "Connection": "Upgrade"}
    connection = daemon.connection()
    connection.request(
        "POST", f"/exec/{identifier}/start", f'{{"Tty":{"true" if started else "false"}}}',
        headers={**headers, "Content-Type": "application/json"},
    )  # fmt: skip
    answer = connection.getresponse()
    assert answer.status == 101
    kind = "raw" if started else "multiplexed"
    assert answer.headers["Content-Type"] == f"application/vnd.docker.{kind}-stream"
    data = b""
    assert connection.sock is not None
    while chunk := connection.sock.recv(4096):
        data += chunk
    connection.close()
    line = b"x\r\n" if made else b"x\n"
    assert data == line if started else frames(data) == [(1, line)]


def test_without_an_upgrade_the_kind_is_raw(daemon: LabDaemon, box: str) -> None:
    answer = daemon.api("POST", f"/exec/{make(daemon, box, 'echo', 'x')}/start", {})
    assert answer.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert frames(answer.body) == [(1, b"x\n")]


# ---- errors ----------------------------------------------------------------------------------------------


def test_a_user_that_does_not_exist(daemon: LabDaemon, box: str) -> None:
    answer = daemon.api("POST", f"/containers/{box}/exec", {"Cmd": ["id"], "User": "who"})
    wanted = "unable to find user who: no matching entries in passwd file"
    assert (answer.status, answer.message) == (400, wanted)
    assert daemon.api("GET", f"/containers/{box}/json").json["ExecIDs"] is None


def test_a_second_start(daemon: LabDaemon, box: str) -> None:
    identifier = make(daemon, box, "true")
    daemon.api("POST", f"/exec/{identifier}/start", {})
    text = f"exec command {identifier} has already run\r\n".encode()
    again = daemon.api("POST", f"/exec/{identifier}/start", {})
    assert (again.status, frames(again.body)) == (200, [(1, text)])
    terminal = daemon.api("POST", f"/exec/{identifier}/start", {"Tty": True})
    assert (terminal.status, terminal.body) == (200, text)
    detached = daemon.api("POST", f"/exec/{identifier}/start", {"Detach": True})
    assert detached.status == 409 and "has already run" in detached.message
    running = make(daemon, box, "sleep", "1000")
    daemon.api("POST", f"/exec/{running}/start", {"Detach": True})
    again = daemon.api("POST", f"/exec/{running}/start", {})
    assert frames(again.body) == [(1, f"exec command {running} is already running\r\n".encode())]


def test_a_start_after_the_end(daemon: LabDaemon, box: str) -> None:
    """An exec that was never started goes with the container's end, and one that ended with its removal."""
    identifier, ended = make(daemon, box, "true"), make(daemon, box, "true")
    daemon.api("POST", f"/exec/{ended}/start", {})
    assert "user" not in daemon.api("GET", f"/exec/{ended}/json").json["ProcessConfig"]
    daemon.docker("kill", box).ok()
    wait_until(lambda: not daemon.state_of(box)["Running"])
    for stopped in (
        daemon.api("POST", f"/exec/{identifier}/start", {}),
        daemon.api("GET", f"/exec/{identifier}/json"),
    ):
        assert (stopped.status, stopped.message) == (404, f"No such exec instance: {identifier}")
    assert daemon.api("POST", f"/exec/{ended}/start", {}).status == 409
    assert daemon.api("GET", f"/exec/{ended}/json").json["ExitCode"] == 0
    daemon.docker("rm", box).ok()
    gone = daemon.api("POST", f"/exec/{ended}/start", {})
    assert (gone.status, gone.message) == (404, f"No such container: {ended}")
    gone = daemon.api("GET", f"/exec/{ended}/json")
    assert (gone.status, gone.message) == (404, f"No such exec instance: {ended}")
    assert daemon.api("POST", "/exec/0123/start", {}).status == 404


def test_a_command_that_is_not_there(daemon: LabDaemon, box: str) -> None:
    answer = daemon.api("POST", f"/exec/{make(daemon, box, 'no-such')}/start", {})
    ((stream, text),) = frames(answer.body)
    assert stream == 1 and text.endswith(b"\r\n") and b"executable file not found in $PATH" in text
    assert daemon.docker("exec", box, "no-such").code == 127


# ---- what is shown ---------------------------------------------------------------------------------------


def test_what_has_ended_is_not_shown(daemon: LabDaemon, box: str) -> None:
    def shown() -> list[str] | None:
        found: list[str] | None = daemon.api("GET", f"/containers/{box}/json").json["ExecIDs"]
        return found

    ended, running, waiting = (
        make(daemon, box, "true"),
        make(daemon, box, "sleep", "1000"),
        make(daemon, box, "id"),
    )
    daemon.api("POST", f"/exec/{ended}/start", {})
    daemon.api("POST", f"/exec/{running}/start", {"Detach": True})
    assert shown() == [running, waiting]
    failed = make(daemon, box, "no-such")
    daemon.api("POST", f"/exec/{failed}/start", {})
    assert shown() == [running, waiting]
    assert daemon.api("GET", f"/exec/{ended}/json").json["ExitCode"] == 0, "it can still be asked for"
    daemon.docker("restart", "-t", "0", box).ok()
    assert shown() is None


def test_execs_may_be_killed_as_their_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "--oom-score-adj", "500", "busybox", "sleep", "1000").ok()
    assert daemon.docker("exec", name, "cat", "/proc/self/oom_score_adj").ok() == "500"
    own = daemon.docker("exec", name, "cat", "/proc/1/oom_score_adj").ok()
    assert own == "500"


def test_a_terminal_has_its_size_from_the_beginning(daemon: LabDaemon, box: str) -> None:
    for _ in range(15):
        identifier = make(daemon, box, "stty", "size", Tty=True, ConsoleSize=[33, 99])
        answer = daemon.api("POST", f"/exec/{identifier}/start", {"Tty": True})
        assert answer.body == b"33 99\r\n"
    identifier = make(daemon, box, "stty", "size", Tty=True, ConsoleSize=[1, 2])
    answer = daemon.api("POST", f"/exec/{identifier}/start", {"Tty": True, "ConsoleSize": [40, 50]})
    assert answer.body == b"40 50\r\n"


def test_a_size_may_come_before_the_start(daemon: LabDaemon, box: str) -> None:
    identifier = make(
        daemon, box, "sh", "-c", "until [ \"$(stty size)\" = '7 8' ]; do :; done; echo sized", Tty=True
    )
    connection = daemon.connection()
    connection.request("POST", f"/exec/{identifier}/resize?h=7&w=8")
    answer = daemon.api("POST", f"/exec/{identifier}/start", {"Tty": True})
    assert b"sized" in answer.body
    assert connection.getresponse().status == 200
    connection.close()


# ---- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "exec"])
def test_input_that_nobody_reads(daemon: LabDaemon, box: str, command: str) -> None:
    data = os.urandom(8 << 20)
    target = ["--rm", "busybox"] if command == "run" else [box]
    for words, code in ((["true"], 0), (["sh", "-c", "head -c 10 >/dev/null; echo said; exit 3"], 3)):
        done = daemon.docker(command, "-i", *target, *words, input=data)
        assert (done.code, done.errors) == (code, ""), done.errors
        assert done.out == ("said" if code else "")


def test_the_end_comes_before_the_connection_closes(daemon: LabDaemon, box: str) -> None:
    """A client that goes on sending reads all output and the end of it, and no reset."""
    identifier = make(daemon, box, "echo", "last", AttachStdin=True)
    connection = daemon.connection()
    headers = {"Upgrade": "tcp", "Connection": "Upgrade", "Content-Type": "application/json"}
    connection.request("POST", f"/exec/{identifier}/start", "{}", headers=headers)
    assert connection.getresponse().status == 101
    assert connection.sock is not None
    connection.sock.settimeout(patiently(TIMEOUT))
    data = b""
    while chunk := connection.sock.recv(4096):
        data += chunk
        connection.sock.sendall(b"x" * 100_000)
    assert frames(data) == [(1, b"last\n")]
    connection.sock.sendall(b"still there")
    connection.sock.shutdown(socket.SHUT_WR)
    connection.close()


def test_the_head_comes_alone(daemon: LabDaemon, name: str) -> None:
    """Also to a client that begins to read late, and of a container whose output is there already."""
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "echo first; sleep 1000").ok()
    wait_until(lambda: daemon.docker("logs", name).ok() == "first")
    path = f"/containers/{name}/attach?logs=1&stream=1&stdout=1"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patiently(TIMEOUT))
        client.connect(str(daemon.socket))
        client.sendall(head.encode())
        client.recv(1, socket.MSG_PEEK)  # the head has come; a slow client looks at it a little later
        wait_until(lambda: b"\r\n\r\n" in client.recv(65536, socket.MSG_PEEK))
        first = client.recv(65536)
        assert first.endswith(b"\r\n\r\n"), first
        assert frames(client.recv(65536)) == [(1, b"first\n")]
