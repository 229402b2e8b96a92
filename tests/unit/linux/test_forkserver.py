"""The fork server: its jobs are what a new process for each would be, and nobody gets at it from one."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patiently, until

import wherry
from wherry.linux import capabilities, forkserver_main
from wherry.linux.forkserver import ForkServer
from wherry.linux.pychild import DEVNULL, PIPE, PythonChild

pytestmark = pytest.mark.kernel

PATHS = (str(Path(wherry.__file__).parent.parent), str(Path(__file__).parent))


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = ForkServer(["forkjobs"], lambda: PATHS)
    assert server.wait_ready(patiently(20))
    yield server
    server.stop()


def job(
    server: ForkServer | None, *arguments: str, stdin: int = DEVNULL, stdout: int = DEVNULL, fd: int = -1
) -> PythonChild:
    fds = (fd,) if fd >= 0 else ()
    return PythonChild("forkjobs", arguments, paths=PATHS, stdin=stdin, stdout=stdout, fds=fds, server=server)


def pid_of(server: ForkServer) -> int:
    """The server itself, among this process's children: other tests may have one of their own."""
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, path.read_text().split()):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"forkserver_main" in words and b"forkjobs" in words:
                return pid
    raise AssertionError("there is no fork server")


def runs(pid: int) -> bool:
    """Whether a process still does anything: who has lost its parent is reaped by others."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def said(child: PythonChild) -> str:
    result, code, errors = child.result()
    assert code == 0, errors
    return result.decode()


@pytest.mark.parametrize("forked", [True, False])
def test_a_job_has_the_descriptors_it_was_given_and_no_others(server: ForkServer, forked: bool) -> None:
    reading, writing = os.pipe()
    try:
        with job(server if forked else None, "facts", fd=reading) as child:
            _, _, *held = said(child).splitlines()
    finally:
        os.close(reading)
        os.close(writing)
    kinds = {name.partition("=")[2].partition(":")[0] for name in held}
    assert kinds == {"/dev/null", "pipe"} and len(held) == 5, held


def test_nothing_of_a_job_reaches_the_next(server: ForkServer) -> None:
    for _ in range(3):
        with job(server, "facts") as child:
            assert said(child).splitlines()[1] == ""


def test_it_has_only_the_capabilities_that_jobs_need(server: ForkServer) -> None:
    host = capabilities.available()
    mask = sum(1 << one for one in forkserver_main.KEEPS if capabilities.ALL[one] in host)
    with job(server, "facts") as child:
        assert int(said(child).splitlines()[0], 16) == mask
    status = Path(f"/proc/{pid_of(server)}/status").read_text()
    assert f"CapPrm:\t{mask:016x}\n" in status and f"CapBnd:\t{mask:016x}\n" in status
    assert "NoNewPrivs:\t1\n" in status


def test_it_holds_nothing_but_its_channel(server: ForkServer) -> None:
    reading, writing = os.pipe()
    with job(server, "facts", fd=reading) as child:
        said(child)
    os.close(reading)
    os.close(writing)
    pid = pid_of(server)
    held = [os.readlink(path).partition(":")[0] for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert sorted(held) == ["/dev/null", "/dev/null", "/dev/null", "socket"]


def test_its_jobs_share_no_memory_with_it(server: ForkServer) -> None:
    with job(server, "shared") as child:
        assert said(child) == "nothing"


def test_nobody_gets_at_it_from_a_job(server: ForkServer) -> None:
    with job(server, "attack") as child:
        assert said(child) == "nothing"


def test_input_and_output_are_pipes(server: ForkServer) -> None:
    with job(server, "echo", stdin=PIPE, stdout=PIPE) as child:
        assert child.process.stdin is not None and child.process.stdout is not None
        data = os.urandom(3 << 20)

        def feed() -> None:
            assert child.process.stdin is not None
            with child.process.stdin as pipe:
                pipe.write(data)

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert child.process.stdout.read() == data
        feeder.join()
        said(child)


@pytest.mark.parametrize("forked", [True, False])
def test_how_a_job_ends_is_known(server: ForkServer, forked: bool) -> None:
    used = server if forked else None
    with job(used, "status", "7") as child:
        assert child.result()[1] == 7
    with job(used, "fail") as child:
        _, code, errors = child.result()
        assert code == 1 and "this job fails" in errors
    with job(used, "sleep") as child:
        os.read(child._result, 20)
        child.kill()
        assert child.result()[1] == -signal.SIGKILL


def test_leaving_a_job_ends_it(server: ForkServer) -> None:
    with job(server, "sleep") as child:
        pid = int(os.read(child._result, 20))
    until(lambda: not runs(pid))


def test_many_at_once(server: ForkServer) -> None:
    children = [job(server, "status", str(number)) for number in range(40)]
    for number, child in enumerate(children):
        with child:
            assert child.result()[1] == number


def test_a_job_ends_with_its_server_and_the_next_gets_another(server: ForkServer) -> None:
    with job(server, "deaf") as child:
        pid = int(os.read(child._result, 20))
        os.kill(pid_of(server), signal.SIGKILL)
        assert child.result()[1] == -signal.SIGKILL
        until(lambda: not runs(pid))
    with job(server, "status", "3") as child:
        assert child.result()[1] == 3
    assert server.wait_ready(patiently(20))
    with job(server, "status", "4") as child:
        assert child.result()[1] == 4


def test_stopping_it_ends_its_jobs(server: ForkServer) -> None:
    with job(server, "sleep") as child:
        os.read(child._result, 20)
        server.stop()
        assert child.result()[1] == -signal.SIGKILL


def test_it_goes_after_a_while_without_jobs_and_not_before() -> None:
    server = ForkServer(["forkjobs"], lambda: PATHS, quiet=0.3)
    try:
        assert server.wait_ready(patiently(20))
        with job(server, "sleep") as child:
            os.read(child._result, 20)
            pidfd = os.pidfd_open(pid_of(server))
            try:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                assert not poll.poll(1000)  # it must not go while it has a job
                child.kill()
                child.result()
                assert poll.poll(patiently(20) * 1000)
            finally:
                os.close(pidfd)
    finally:
        server.stop()


def test_what_cannot_come_up_is_not_tried_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    server = ForkServer(["no_such_module"], lambda: PATHS)
    with job(server, "status", "5") as child:
        assert child.result()[1] == 5
    until(lambda: server._thread is None)
    assert "no_such_module" in caplog.text
    with job(server, "status", "6") as child:
        assert child.result()[1] == 6
    assert server._thread is None


def test_a_fork_that_fails_is_a_job_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, "too many processes")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    monkeypatch.setattr(os, "fork", fork)
    with ours, theirs:
        socket.send_fds(ours, [json.dumps([7, "forkjobs", ["status", "0"], [5]]).encode()], [writing])
        os.close(writing)
        assert forkserver_main._Server(theirs)._take() is None
        assert ours.recv(100) == b"E 7 1"
        assert os.read(reading, 1) == b""  # nobody holds its descriptors
    os.close(reading)


_DAEMON = """
import os, sys
sys.path[:0] = {paths!r}
from wherry.linux.forkserver import ForkServer
from wherry.linux.pychild import DEVNULL, PythonChild
server = ForkServer(["forkjobs"], lambda: {paths!r})
assert server.wait_ready(1000)
child = PythonChild("forkjobs", ("deaf",), paths={paths!r}, stdin=DEVNULL, stdout=DEVNULL, server=server)
print(os.read(child._result, 20).decode(), flush=True)
os.read(0, 1)
"""


def test_a_killed_daemon_leaves_neither_server_nor_job() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _DAEMON.format(paths=list(PATHS))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as daemon:
        assert daemon.stdout is not None
        job_ = int(daemon.stdout.readline())
        server = int(Path(f"/proc/{job_}/stat").read_text().rpartition(")")[2].split()[1])
        assert server != daemon.pid
        daemon.kill()
        daemon.wait()
        until(lambda: not runs(job_) and not runs(server))
