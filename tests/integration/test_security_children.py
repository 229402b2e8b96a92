"""The confined children at work: who can get at them, and where they could get.

A child is looked into while it is stopped and has given up all but a few capabilities. Root in a container
has each of a writer's as well.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hosttraces
import pytest
from buildlab import archive, post
from daemonlab import LabDaemon, new_base, wait_until

from wherry.storage.confined.child.lockdown import FINDS, WRITES

Work = Callable[[LabDaemon, str], None]
FILES = 6000
"""As many keep a child busy for long enough to be caught at work."""
_DOORS = {
    "root": "ls /proc/{0}/root/",
    "descriptors": "readlink /proc/{0}/fd/0",
    "memory": ": </proc/{0}/mem",
    "environment": "cat /proc/{0}/environ",
}
_EQUAL = f"""
import sys, time
from wherry.linux import confine
confine.drop_capabilities({WRITES!r})
print("ready", flush=True)
time.sleep(60)
"""


def many_files() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(FILES):
            tar.addfile(tarfile.TarInfo(f"many/{number}"))
    return out.getvalue()


def copy_into_a_container(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", f"{name}-c", "busybox", "true").ok()
    assert daemon.api("PUT", f"/containers/{name}-c/archive", many_files(), path="/").status == 200


def look_for_changes(daemon: LabDaemon, name: str) -> None:
    copy_into_a_container(daemon, name)
    assert daemon.api("GET", f"/containers/{name}-c/changes").status == 200


def copy_in_a_build(daemon: LabDaemon, name: str) -> None:
    files = {f"many/{number}": name for number in range(FILES)}  # built by no test before
    answer = post(daemon, archive({**files, "Dockerfile": "FROM busybox\nCOPY many /many\n"}), t=name)
    assert answer.status == 200 and b'"error"' not in answer.body, answer.body


def unpack_a_layer(daemon: LabDaemon, name: str) -> None:
    daemon.docker("import", "-", name, input=many_files()).ok()


@contextlib.contextmanager
def caught(
    daemon: LabDaemon,
    name: str,
    work: Work,
    module: str,
    role: str,
    keep: Sequence[int] = WRITES,
) -> Iterator[int]:
    """A child of the daemon's that has shut itself in, stopped. Afterwards the work must get done."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work(daemon, name)
        except BaseException as e:
            failures.append(e)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        with _stopped(daemon, f"wherry.storage.confined.child.{module}", role, keep) as pid:
            yield pid
    finally:
        worker.join()
    assert not failures, failures


def _warm(daemon: LabDaemon) -> int:
    """Have a fork server that is ready; its process id."""
    if (server := hosttraces.fork_server(daemon.pid)) is None:
        answer = post(daemon, archive({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}), t="to-warm-up")
        assert answer.status == 200, answer.body
        wait_until(lambda: hosttraces.fork_server(daemon.pid) is not None, "a fork server")
        server = hosttraces.fork_server(daemon.pid)
    assert server is not None
    return server


@pytest.fixture(scope="module")
def _unforked() -> Iterator[LabDaemon]:
    daemon = LabDaemon(
        new_base(), program=[sys.executable, str(Path(__file__).with_name("unforked_daemon.py"))]
    )
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture(params=["alone", "forked"])
def either(request: pytest.FixtureRequest) -> LabDaemon:
    """A daemon whose children are interpreters of their own, and one whose children are forks."""
    if request.param == "alone":
        found: LabDaemon = request.getfixturevalue("_unforked")
        return found
    found = request.getfixturevalue("daemon")
    _warm(found)
    return found


@contextlib.contextmanager
def _stopped(daemon: LabDaemon, module: str, role: str, keep: Sequence[int]) -> Iterator[int]:
    held: list[int] = []
    server = hosttraces.fork_server(daemon.pid)

    def is_it(pid: int) -> bool:
        if server is not None:
            return Path(f"/proc/{pid}/comm").read_text().strip() == role
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return module.encode() in b" ".join(words) and role.encode() in words

    def catch() -> bool:
        for pid in hosttraces.children(server or daemon.pid):
            with contextlib.suppress(OSError):
                if is_it(pid) and _shut_in(pid, keep):
                    os.kill(pid, signal.SIGSTOP)
                    held.append(pid)
                    return True
        return False

    try:
        wait_until(catch, f"{module} {role} at work")
        wait_until(lambda: "State:\tT" in Path(f"/proc/{held[0]}/status").read_text())
        yield held[0]
    finally:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _shut_in(pid: int, keep: Sequence[int]) -> bool:
    mask = sum(1 << capability for capability in keep)
    status = Path(f"/proc/{pid}/status").read_text()
    return f"CapPrm:\t{mask:016x}\n" in status and "Seccomp:\t2\n" in status


def open_doors(daemon: LabDaemon, name: str, pid: int) -> list[str]:
    script = "; ".join(
        f"({command.format(pid)}) >/dev/null 2>&1 && echo {door}" for door, command in _DOORS.items()
    )
    return daemon.docker("exec", name, "sh", "-c", f"{script}; true").ok().split()


@pytest.mark.parametrize(
    ("work", "module", "role"),
    [
        (copy_into_a_container, "containerfiles", "write"),
        (copy_in_a_build, "build_files", "copy"),
        (unpack_a_layer, "unpack", "unpack"),
    ],
)
def test_root_in_a_container_with_the_hosts_processes_does_not_get_at_it(
    either: LabDaemon, name: str, work: Work, module: str, role: str
) -> None:
    either.docker("run", "-d", "--pid", "host", "--name", name, "busybox", "sleep", "1000").ok()
    with caught(either, name, work, module, role) as pid:
        assert open_doors(either, name, pid) == []


def test_root_in_a_container_with_the_hosts_processes_does_not_get_at_the_fork_server(
    daemon: LabDaemon, name: str
) -> None:
    daemon.docker("run", "-d", "--pid", "host", "--name", name, "busybox", "sleep", "1000").ok()
    assert open_doors(daemon, name, _warm(daemon)) == []


def test_what_has_no_more_than_a_container_is_open_to_it_otherwise(daemon: LabDaemon, name: str) -> None:
    """The same doors of a process that only gave up capabilities: the container does try the right ones."""
    daemon.docker("run", "-d", "--pid", "host", "--name", name, "busybox", "sleep", "1000").ok()
    with subprocess.Popen([sys.executable, "-c", _EQUAL], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            assert open_doors(daemon, name, process.pid) == list(_DOORS)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("work", "module", "role", "keep"),
    [
        (copy_into_a_container, "containerfiles", "write", WRITES),
        (look_for_changes, "containerfiles", "changes", FINDS),
        (copy_in_a_build, "build_files", "copy", WRITES),
        (unpack_a_layer, "unpack", "unpack", WRITES),
    ],
)
def test_nothing_it_holds_leads_up_to_the_hosts_files(
    either: LabDaemon, name: str, work: Work, module: str, role: str, keep: Sequence[int]
) -> None:
    """Otherwise whoever takes a child over climbs from ``/proc/self/fd`` to what is in ``/proc/sys``."""
    with caught(either, name, work, module, role, keep) as pid:
        held = [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_dir()]
        ends = [os.stat(f"/proc/{pid}/root/"), *(path.stat() for path in held)]
        for path in held:
            top = os.stat(f"{path}/{'../' * 30}")
            assert any(os.path.samestat(top, end) for end in ends), path.readlink()
