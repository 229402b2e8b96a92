"""A full disk that others go on writing to: whatever removes something works, and so do a start and a
teardown."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from patience import patiently

pytestmark = [pytest.mark.kernel, pytest.mark.fault("a full disk: removals, starts, teardown")]
HOG = (
    "while :; do head -c 1m /dev/zero >> /hog 2>/dev/null; head -c 100 /dev/zero >> /small 2>/dev/null; done"
)
CHATTY = "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done"


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(request: pytest.FixtureRequest) -> Iterator[LabDaemon]:
    """A daemon whose root is on a disk of 64 MB of its own."""
    base = new_base()
    root = base / "r"
    root.mkdir()
    if request.param == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(root)], check=True)
    else:
        image = base / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(root)], check=True)
    daemon = LabDaemon(base)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        try:
            daemon.destroy()
        finally:
            subprocess.run(["umount", "-l", str(root)], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", str(base)], check=True)


def free(daemon: LabDaemon) -> int:
    status = os.statvfs(daemon.root)
    return status.f_bavail * status.f_frsize


def prepare(daemon: LabDaemon) -> None:
    """Things to remove, and containers that write without end: files the one, a log the other."""
    for number in range(4):
        daemon.docker("volume", "create", f"v{number}").ok()
        daemon.docker("run", "--name", f"old{number}", "-v", "/anonymous", "busybox", "touch", "/f").ok()
        daemon.docker("commit", f"old{number}", f"image{number}").ok()
    daemon.docker("run", "-d", "--name", "hog", "busybox", "sh", "-c", HOG).ok()
    daemon.docker("run", "-d", "--name", "chatty", "busybox", "sh", "-c", CHATTY).ok()
    wait_until(lambda: free(daemon) < 65536, "the disk to be full", timeout=60)


def test_what_removes_works(small_disk: LabDaemon) -> None:
    daemon = small_disk
    prepare(daemon)
    daemon.docker("volume", "rm", "v0").ok()
    daemon.docker("rm", "-v", "old0").ok()
    daemon.docker("rmi", "image0").ok()
    daemon.docker("rm", "-f", "hog").ok()
    wait_until(lambda: free(daemon) < 65536, "the log to fill the disk", timeout=60)
    assert daemon.docker("volume", "create", "more").code in (0, 1)
    daemon.docker("rm", "-v", "old1").ok()
    daemon.docker("container", "prune", "-f").ok()
    daemon.docker("volume", "prune", "-af").ok()
    daemon.docker("image", "prune", "-af").ok()
    daemon.docker("rm", "-f", "chatty").ok()
    assert free(daemon) > 30 << 20
    assert (daemon.containers(), daemon.volumes()) == ([], set())
    daemon.bootstrap()
    assert daemon.docker("run", "--rm", "busybox", "echo", "well").ok() == "well"
    assert "Traceback" not in daemon.log


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_start(small_disk: LabDaemon, end: int) -> None:
    daemon = small_disk
    prepare(daemon)
    for _ in range(2):
        daemon.end(end)
        wait_until(lambda: free(daemon) < 65536, "the disk to be full", timeout=60)
        daemon.start()
        assert daemon.state_of("hog")["Running"] and daemon.state_of("chatty")["Running"]
    daemon.docker("rm", "-f", "hog").ok()
    daemon.docker("rm", "-f", "chatty").ok()
    assert free(daemon) > 16 << 20
    assert daemon.docker("run", "--rm", "busybox", "echo", "well").ok() == "well"
    assert "Traceback" not in daemon.log


def test_a_teardown(small_disk: LabDaemon) -> None:
    daemon = small_disk
    prepare(daemon)
    daemon.docker("kill", "hog", "chatty").ok()
    filler = daemon.root / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            pass
    daemon.end()
    argv = [*daemon.argv(), "--teardown"]
    done = subprocess.run(argv, capture_output=True, timeout=patiently(60), check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert not [trace for trace in daemon.traces() if trace.startswith(("link", "nft"))]
