"""A helper never takes another process's root for the container's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from daemonlab import LabDaemon

from wherry.linux.containerroot import Inside
from wherry.storage.containerfiles import ContainerEnded, Job


def test_a_process_of_the_hosts_is_refused(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    """As when a pid was given away again, or a descriptor stands for conmon."""
    (tmp_path / "f").write_text("SECRET")
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    root = Path(f"/proc/{daemon.pid_of(name)}/root").stat()
    fd = os.pidfd_open(os.getpid())
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(ContainerEnded):
            role = ("read", str(tmp_path / "f"), "")
            Job().run(Inside(fd, root.st_dev, root.st_ino), role, what="x", stdout=out)
        assert os.fstat(out).st_size == 0
    finally:
        os.close(fd)
        os.close(out)


def test_a_copy_at_the_very_end_comes_from_the_stopped_container(daemon: LabDaemon, name: str) -> None:
    """Whether it still ran or not, the file is the same."""
    daemon.docker("create", "--name", name, "busybox", "sh", "-c", "echo x >/f; sleep 0.05").ok()
    for _ in range(5):
        daemon.docker("start", name).ok()
        for _ in range(4):
            answer = daemon.api("GET", f"/containers/{name}/archive", path="/bin/busybox")
            assert answer.status == 200 and len(answer.body) > 100_000
            exported = daemon.api("GET", f"/containers/{name}/export")
            assert exported.status == 200 and len(exported.body) > 100_000
