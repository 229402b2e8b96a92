"""Terminals, attach, exec and logs, with the docker CLI."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


def run(daemon: LabDaemon, name: str, script: str, *flags: str) -> str:
    return daemon.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script).ok()


# ---- terminals -------------------------------------------------------------------------------------------


def test_a_terminal_with_its_size_and_its_exit_code(daemon: LabDaemon) -> None:
    with daemon.terminal("run", "-it", "--rm", "busybox", "sh") as terminal:
        terminal.expect(b"# ")
        terminal.resize(40, 100)
        terminal.send(b"until [ \"$(stty size)\" = '40 100' ]; do :; done; echo si''zed; tty\n")
        terminal.expect(b"sized")
        terminal.expect(b"/dev/pts/0")
        terminal.send(b"exit 3\n")
        assert terminal.wait() == 3


def test_ctrl_c_reaches_the_foreground(daemon: LabDaemon) -> None:
    with daemon.terminal(
        "run", "-it", "--rm", "busybox", "sh", "-c", "sleep 1000; echo $?; exit 5"
    ) as terminal:
        script = "pidof sleep > /dev/null"
        wait_until(lambda: daemon.containers())
        identifier = daemon.containers()[0]
        wait_until(lambda: daemon.docker("exec", identifier, "sh", "-c", script).code == 0)
        terminal.send(b"\x03")
        assert terminal.wait() in (5, 130)


def test_detach_and_attach_again(daemon: LabDaemon, name: str) -> None:
    with daemon.terminal("run", "-it", "--name", name, "busybox", "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"\x10\x11")
        assert terminal.wait() == 0
    assert daemon.state_of(name)["Running"]
    with daemon.terminal("attach", name) as terminal:
        terminal.expect(b"# ")  # drawn again, as attaching resizes the terminal
        terminal.send(b"echo back-$((40+2))\n")
        terminal.expect(b"back-42")
        terminal.send(b"exit 4\n")
        assert terminal.wait() == 4
    assert "back-42" in daemon.docker("logs", name).ok()


def test_other_detach_keys(daemon: LabDaemon, name: str) -> None:
    with daemon.terminal(
        "run", "-it", "--detach-keys", "ctrl-a,d", "--name", name, "busybox", "cat"
    ) as terminal:
        wait_until(lambda: daemon.containers() and daemon.state_of(name)["Running"])
        terminal.send(b"x\x10\x11\n")
        terminal.expect(b"x")
        terminal.send(b"\x01d")
        assert terminal.wait() == 0
    assert daemon.state_of(name)["Running"]
    bad = daemon.api("POST", f"/containers/{name}/attach?stream=1&detachKeys=ctrl-%3F")
    assert (bad.status, bad.message) == (400, "Invalid detach keys (ctrl-?) provided")


def test_resize_of_absurd_sizes(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-dt", "--name", name, "busybox", "cat").ok()
    assert daemon.api("POST", f"/containers/{name}/resize?h=10&w=20").status == 200
    out = daemon.docker("exec", "-t", name, "sh", "-c", "stty size < /dev/pts/0")
    assert out.out == "10 20"
    for query in ("h=-1&w=1", "h=1", "", "h=x&w=1", "h=99999999999999999999&w=1"):
        assert daemon.api("POST", f"/containers/{name}/resize?{query}").status == 400, query


# ---- attach ----------------------------------------------------------------------------------------------


def test_attach_sees_both_streams_and_the_exit_code(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "read x; echo out-$x; echo err-$x >&2; exit 9", "-i")
    done = daemon.docker("attach", name, input=b"word\n")
    assert (done.code, done.out, done.errors.strip()) == (9, "out-word", "err-word")


def test_several_clients_see_the_same_output(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "read x; seq 1 2000", "-i")
    with (
        daemon.docker_process("attach", "--no-stdin", name) as first,
        daemon.docker_process("attach", "--no-stdin", name) as second,
    ):
        wait_until(lambda: daemon.actions(container=[name], event=["attach"]) == ["attach"] * 2)
        daemon.docker("attach", name, input=b"go\n").ok()
        expected = "".join(f"{n}\n" for n in range(1, 2001)).encode()
        assert first.stdout is not None and second.stdout is not None
        assert first.stdout.read() == expected
        assert second.stdout.read() == expected


def test_attach_to_what_does_not_run(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    done = daemon.docker("attach", name)
    assert done.code == 1
    assert "cannot attach to a stopped container" in done.errors


def test_signals_are_forwarded(daemon: LabDaemon, name: str) -> None:
    script = "trap 'echo got; exit 6' TERM; echo ready; while :; do sleep 0.02; done"
    with daemon.docker_process("run", "--name", name, "busybox", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got\n"
        assert process.wait(patiently(10)) == 6


def test_a_client_that_does_not_read_loses_nothing(daemon: LabDaemon, name: str) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo end"
    with daemon.docker_process("run", "--rm", "--name", name, "busybox", "sh", "-c", script) as process:
        wait_until(lambda: daemon.containers())
        assert process.stdout is not None
        assert process.stdout.read() == b"x" * 3000000 + b"end\n"


def test_a_client_that_goes_away_does_not_stop_the_container(daemon: LabDaemon, name: str) -> None:
    script = "echo up; while :; do echo tick; sleep 0.01; done"
    with daemon.docker_process("run", "--name", name, "busybox", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    size = len(daemon.docker("logs", name).raw)
    wait_until(lambda: len(daemon.docker("logs", name).raw) > size)
    assert daemon.state_of(name)["Running"]


# ---- exec ------------------------------------------------------------------------------------------------


@pytest.fixture
def box(daemon: LabDaemon, name: str) -> str:
    run(daemon, name, "exec sleep 1000", "-e", "OWN=1", "-w", "/tmp")
    return name


def test_exec_output_and_exit_codes(daemon: LabDaemon, box: str) -> None:
    done = daemon.docker("exec", box, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.errors.strip()) == (3, "out", "err")
    missing = daemon.docker("exec", box, "no-such-program")
    assert missing.code == 127
    assert 'exec: "no-such-program": executable file not found in $PATH' in missing.out + missing.errors
    assert daemon.docker("exec", box, "/etc").code == 126
    assert daemon.docker("exec", box, "sh", "-c", "kill -9 $$").code == 137


def test_exec_environment_directory_and_user(daemon: LabDaemon, box: str) -> None:
    flags = ("-e", "MORE=2", "-w", "/etc", "-u", "nobody")
    lines = daemon.docker("exec", *flags, box, "sh", "-c", "pwd; id -u; env").ok().splitlines()
    assert lines[:2] == ["/etc", "65534"]
    assert {"OWN=1", "MORE=2"} <= set(lines)
    assert daemon.docker("exec", box, "pwd").ok() == "/tmp"
    done = daemon.docker("exec", "-u", "who", box, "true")
    assert done.code == 1
    assert "unable to find user who" in done.errors
    relative = daemon.docker("exec", "-w", "x", box, "true")
    assert relative.code != 0


def test_exec_stdin(daemon: LabDaemon, box: str) -> None:
    data = os.urandom(1 << 20)
    assert daemon.docker("exec", "-i", box, "cat", input=data).raw == data


def test_exec_terminal(daemon: LabDaemon, box: str) -> None:
    with daemon.terminal("exec", "-it", box, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.resize(33, 99)
        terminal.send(b"until [ \"$(stty size)\" = '33 99' ]; do :; done; echo si''zed\n")
        terminal.expect(b"sized")
        terminal.send(b"exit 8\n")
        assert terminal.wait() == 8


def test_exec_detached(daemon: LabDaemon, box: str) -> None:
    daemon.docker("exec", "-d", box, "sh", "-c", "echo x > /tmp/done").ok()
    wait_until(lambda: daemon.docker("exec", box, "cat", "/tmp/done").out == "x")
    failed = daemon.docker("exec", "-d", box, "no-such-program")
    assert failed.code != 0


def test_exec_detach_keys_leave_it_running(daemon: LabDaemon, box: str) -> None:
    with daemon.terminal("exec", "-it", box, "sh", "-c", "echo up; sleep 1000") as terminal:
        terminal.expect(b"up")
        terminal.send(b"\x10\x11")
        assert terminal.wait() == 1  # the client's own answer: "read escape sequence"
    assert "sleep 1000" in daemon.docker("top", box).ok()
    ids = daemon.api("GET", f"/containers/{box}/json").json["ExecIDs"]
    assert daemon.api("GET", f"/exec/{ids[0]}/json").json["Running"] is True


def test_exec_in_what_does_not_run(daemon: LabDaemon, box: str) -> None:
    daemon.docker("pause", box).ok()
    paused = daemon.docker("exec", box, "true")
    assert paused.code == 1
    assert "is paused, unpause the container before exec" in paused.errors
    daemon.docker("unpause", box).ok()
    daemon.docker("kill", box).ok()
    stopped = daemon.docker("exec", box, "true")
    assert stopped.code == 1
    assert "is not running" in stopped.errors


def test_an_exec_ends_with_its_container(daemon: LabDaemon, box: str) -> None:
    with daemon.docker_process("exec", box, "sh", "-c", "echo up; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        daemon.docker("kill", box).ok()
        assert process.wait(patiently(10)) == 137


def test_many_execs_leave_nothing(daemon: LabDaemon, box: str) -> None:
    before = daemon.traces()
    for _ in range(5):
        daemon.docker("exec", box, "true").ok()
    wait_until(lambda: not daemon.difference(before))


def test_an_exec_runs_once(daemon: LabDaemon, box: str) -> None:
    made = daemon.api("POST", f"/containers/{box}/exec", {"Cmd": ["true"]})
    assert made.status == 201
    identifier = made.json["Id"]
    assert daemon.api("POST", f"/exec/{identifier}/start", {"Detach": True}).status == 200
    again = daemon.api("POST", f"/exec/{identifier}/start", {"Detach": True})
    assert again.status == 409
    wait_until(lambda: daemon.api("GET", f"/exec/{identifier}/json").json["ExitCode"] == 0)
    assert daemon.api("POST", f"/containers/{box}/exec", {"Cmd": []}).status == 400
    assert daemon.api("POST", "/exec/0123456789abcdef/start", {}).status == 404


# ---- logs ------------------------------------------------------------------------------------------------


def test_logs_keep_the_streams_apart(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", "echo out; echo err >&2; printf part").ok()
    done = daemon.docker("logs", name)
    assert (done.raw, done.errors) == (b"out\npart", "err\n")


def test_logs_tail(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, "busybox", "seq", "1", "1000").ok()
    assert daemon.docker("logs", "-n", "3", name).ok().split() == ["998", "999", "1000"]
    assert daemon.docker("logs", "-n", "0", name).ok() == ""
    for tail in ("all", "5000", "-1", "junk", "99999999999999999999"):
        assert len(daemon.docker("logs", "--tail", tail, name).ok().split()) == 1000


def test_log_timestamps_and_times(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "echo one; read x; echo two", "-i")
    wait_until(lambda: daemon.docker("logs", name).out == "one")
    first = daemon.docker("logs", "-t", name).ok()
    stamp, _, text = first.partition(" ")
    assert text == "one"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp)
    daemon.docker("attach", name, input=b"\n").ok()
    second = daemon.docker("logs", "-t", name).ok().splitlines()[1].partition(" ")[0]
    assert daemon.docker("logs", "--since", second, name).ok() == "two"
    assert daemon.docker("logs", "--until", stamp, name).ok() == "one"
    assert daemon.docker("logs", "--since", "1h", name).ok().split() == ["one", "two"]
    assert daemon.docker("logs", "--until", "1h", name).ok() == ""


def test_logs_follow_to_the_end(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "echo one; read x; echo two; echo err >&2", "-i")
    with daemon.docker_process("logs", "-f", name) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"one\n"
        daemon.docker("attach", name, input=b"\n").ok()
        assert process.stdout.read() == b"two\n"
        assert process.stderr.read() == b"err\n"
        assert process.wait(patiently(10)) == 0


def test_logs_follow_ends_when_the_container_is_removed(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "echo one; exec sleep 1000")
    with daemon.docker_process("logs", "-f", "-n", "1", name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        daemon.docker("rm", "-f", name).ok()
        assert process.wait(patiently(10)) == 0


def test_a_follower_that_goes_away_is_forgotten(daemon: LabDaemon, name: str) -> None:
    run(daemon, name, "echo one; exec sleep 1000")

    def open_logs() -> int:
        fds = Path(f"/proc/{daemon.pid}/fd").iterdir()
        return sum(os.path.realpath(fd).endswith(".log") for fd in fds)

    before = open_logs()
    with daemon.docker_process("logs", "-f", name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        assert open_logs() == before + 1
    wait_until(lambda: open_logs() == before, "the follower's file is closed")


def test_logs_of_a_terminal(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-t", "--name", name, "busybox", "echo", "line").ok()
    assert daemon.docker("logs", name).raw == b"line\r\n"


def test_logs_of_long_lines_come_whole(daemon: LabDaemon, name: str) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' y; echo; echo end"
    daemon.docker("run", "--name", name, "busybox", "sh", "-c", script).ok()
    assert daemon.docker("logs", name).raw == b"y" * 100000 + b"\nend\n"
    assert daemon.docker("logs", "-n", "2", name).raw == b"y" * 100000 + b"\nend\n"
    assert daemon.docker("logs", "-n", "1", name).raw == b"end\n"


def test_no_log(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, "--log-driver", "none", "busybox", "echo", "x").ok()
    done = daemon.docker("logs", name)
    assert done.code == 1
    assert "configured logging driver does not support reading" in done.errors
