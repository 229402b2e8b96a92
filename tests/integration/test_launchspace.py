"""Beside many containers, others are started in a mount namespace that lacks the mounts of all these: nobody
can tell, and what a container uses of others is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base
from patience import until

from wherry.linux import mountids

pytestmark = pytest.mark.kernel
CROWD = 34
"""More than half as many as the least number of mounts: each has a root and a shared memory."""


@pytest.fixture(scope="module")
def crowded() -> Iterator[LabDaemon]:
    try:
        mountids.below(mountids.of_path("/"))
    except OSError:
        pytest.skip("listmount(2) is there from Linux 6.8 on")
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        with ThreadPoolExecutor(8) as clients:
            for done in clients.map(lambda number: run(daemon, f"crowd-{number}"), range(CROWD)):
                assert done
        yield daemon
    finally:
        daemon.destroy()


def run(daemon: LabDaemon, name: str, *flags: str) -> str:
    network = [] if "--network" in flags else ["--network", "none"]
    command = ["run", "-d", "--name", name, "--stop-signal", "KILL", *network, *flags]
    return daemon.docker(*command, "busybox", "sleep", "1000").ok()


def beside(daemon: LabDaemon, name: str, *flags: str) -> str:
    """A container that was started in a space: after a change of the host's mounts, starts do without for a
    while."""

    def started() -> str:
        identifier = run(daemon, name, *flags)
        if entered(daemon, identifier):
            return identifier
        daemon.docker("rm", "-f", name).ok()
        return ""

    return str(until(started, "a start in a namespace of its own", seconds=40))


def entered(daemon: LabDaemon, identifier: str) -> bool:
    pid = (daemon.run / "tasks" / identifier / "conmon.pid").read_text()
    return b"--mount=/proc/" in Path(f"/proc/{pid}/cmdline").read_bytes()


def output(daemon: LabDaemon, *arguments: str) -> str:
    return daemon.docker(*arguments).ok()


def test_a_container_has_what_it_uses(crowded: LabDaemon, tmp_path: Path) -> None:
    crowded.docker("network", "create", "space").ok()
    (tmp_path / "secret").write_text("word")
    crowded.wherry("secret", "create", "space", str(tmp_path / "secret")).ok()
    try:
        first = [
            "--network",
            "space",
            "--ipc",
            "shareable",
            "-v",
            "space:/data",
            "-v",
            f"{tmp_path}:/host:ro",
        ]
        more = ["--tmpfs", "/t", "--mount", "type=image,source=busybox,target=/image"]
        beside(crowded, "space-1", *first, *more)
        output(crowded, "exec", "space-1", "sh", "-c", "echo there > /dev/shm/word && echo kept > /data/word")
        beside(crowded, "space-2", "--ipc", "container:space-1", "-v", "space:/data")
        assert output(crowded, "exec", "space-2", "cat", "/dev/shm/word", "/data/word") == "there\nkept"
        assert output(crowded, "exec", "space-1", "cat", "/host/secret") == "word"
        assert output(crowded, "exec", "space-1", "ls", "/image/bin/sh") == "/image/bin/sh"
        assert "inet " in output(crowded, "exec", "space-1", "ip", "addr", "show", "eth0")
        mounts = output(crowded, "exec", "space-1", "cat", "/proc/mounts")
        assert str(crowded.run) not in mounts
        crowded.docker("cp", f"{tmp_path}/secret", "space-1:/copied")
        assert output(crowded, "exec", "space-1", "cat", "/copied") == "word"
        assert "A /copied" in output(crowded, "diff", "space-1")
        crowded.docker("commit", "space-1", "space:1")
        assert output(crowded, "run", "--rm", "--network", "none", "space:1", "cat", "/copied") == "word"
    finally:
        crowded.docker("rm", "-f", "space-1", "space-2")
        crowded.docker("rmi", "-f", "space:1")
        crowded.docker("volume", "rm", "space")
        crowded.docker("network", "rm", "space")
        crowded.wherry("secret", "rm", "space")


def test_secrets_are_there(crowded: LabDaemon, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("word")
    crowded.wherry("secret", "create", "hidden", str(tmp_path / "secret")).ok()
    try:
        for _ in range(4):
            done = crowded.wherry(
                "run",
                "--rm",
                "--network",
                "none",
                "--secret",
                "hidden",
                "busybox",
                "cat",
                "/run/secrets/hidden",
            )
            assert done.ok() == "word"
    finally:
        crowded.wherry("secret", "rm", "hidden")


def test_mounts_go_both_ways(crowded: LabDaemon, tmp_path: Path) -> None:
    """Propagation is to the host's own mounts, not to those of a copy."""
    subprocess.run(["mount", "-t", "tmpfs", "both", str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        beside(crowded, "both", "--privileged", "-v", f"{tmp_path}:/both:rshared")
        output(crowded, "exec", "both", "mount", "-t", "tmpfs", "inner", "/both/in")
        assert os.path.ismount(tmp_path / "in")
        subprocess.run(["mount", "-t", "tmpfs", "outer", str(tmp_path / "out")], check=True)
        assert " /both/out " in output(crowded, "exec", "both", "cat", "/proc/mounts")
        subprocess.run(["umount", str(tmp_path / "out"), str(tmp_path / "in")], check=True)
        crowded.docker("rm", "-f", "both")
    finally:
        crowded.docker("rm", "-f", "both")
        subprocess.run(["umount", "-R", str(tmp_path)], check=True)


def test_the_daemon_takes_them_over(crowded: LabDaemon) -> None:
    identifier = beside(crowded, "kept")
    before = crowded.pid_of("kept")
    crowded.restart(signal.SIGKILL)
    assert crowded.pid_of("kept") == before
    assert entered(crowded, identifier)
    assert output(crowded, "exec", "kept", "hostname") == identifier[:12]
    crowded.docker("restart", "-t", "0", "kept")
    crowded.docker("rm", "-f", "kept")
    assert not (crowded.run / "tasks" / identifier).exists()


def test_what_cannot_be_started_is_told_as_ever(crowded: LabDaemon) -> None:
    for _ in range(4):
        done = crowded.docker("run", "--rm", "--network", "none", "busybox", "/none")
        assert done.code == 127
        assert 'exec: "/none"' in done.errors
    rows = json.loads(crowded.api("GET", "/containers/json?all=1").body)
    assert len(rows) == CROWD
