"""Floods and full disks: log lines may go, containers and the daemon stay."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from logservers import Stream
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def small_disk() -> Iterator[LabDaemon]:
    base = new_base()
    (base / "r").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", str(base / "r")], check=True)
    daemon = LabDaemon(base)
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        try:
            (daemon.root / "filler").unlink(missing_ok=True)
            daemon.destroy()
        finally:
            subprocess.run(["umount", "-l", str(base / "r")], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", str(base)], check=True)


def fill(daemon: LabDaemon) -> None:
    with contextlib.suppress(OSError), (daemon.root / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


COUNTER = "i=0; while true; do i=$((i+1)); echo $i; echo $i > /dev/shm/at; usleep 500; done"


@pytest.mark.fault("a full disk: logs")
@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_a_full_disk_costs_lines_only(small_disk: LabDaemon, driver: str) -> None:
    daemon = small_disk
    options = ["--log-driver", driver, "--log-opt", "max-size=32k", "--log-opt", "max-file=4"]
    container = daemon.docker("run", "-d", *options, "busybox", "sh", "-c", COUNTER).ok()
    pid = daemon.pid_of(container)

    def at() -> int:
        return int(daemon.docker("exec", container, "cat", "/dev/shm/at").out or 0)

    wait_until(lambda: at() > 300)
    fill(daemon)
    # Long enough to fill every file to its bound, had there been room.
    full = at()
    wait_until(lambda: at() > full + 1500)
    assert daemon.pid_of(container) == pid and daemon.state_of(container)["Status"] == "running"
    assert daemon.docker("logs", "-n", "1", container).code == 0
    (daemon.root / "filler").unlink()
    now = at()
    wait_until(lambda: int(daemon.docker("logs", "-n", "1", container).out or 0) > now)
    lines = daemon.docker("logs", container).out.splitlines()
    found = [int(line) for line in lines if line.isdigit()]
    assert found == sorted(set(found)), "no line twice, none out of order"
    # What the disk cut in the middle runs into the next line.
    assert len(lines) - len(found) < 10
    assert daemon.pid_of(container) == pid
    if driver == "json-file":
        path = Path(daemon.api("GET", f"/containers/{container}/json").json["LogPath"])

        def newest() -> int:
            whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
            return int(json.loads(whole[-1])["log"]) if whole and whole[-1] else 0

        wait_until(lambda: newest() > now)


def test_syslog_over_tls(daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=patiently(20),
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Stream(context=context) as server:
        options = [f"syslog-address=tcp+tls://localhost:{server.port}", f"syslog-tls-ca-cert={cert}",
                   "syslog-format=rfc5424", "tag=t"]  # fmt: skip
        arguments = [word for o in options for word in ("--log-opt", o)]
        daemon.docker(
            "run", "--log-driver", "syslog", *arguments, "--name", name, "busybox", "echo", "hi"
        ).ok()
        wait_until(lambda: bytes(server.data).endswith(b"hi"))
        length, _, message = bytes(server.data).partition(b" ")
        assert int(length) == len(message)
        assert message.startswith(b"<30>1 20") and b" t - hi" in message


# ---- a flood ---------------------------------------------------------------------------------------------

GIGABYTE = 1 << 30


@pytest.mark.slow
@pytest.mark.fault("a flood of output, with each log driver", "1 GiB each")
@pytest.mark.patient(900)
@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_a_flood_of_a_gigabyte(daemon: LabDaemon, name: str, driver: str) -> None:
    """The daemon answers all the while, what is kept stays within bounds, and the end is there."""
    line = "x" * 99
    daemon.docker(
        "run", "-d", "--name", name, "--log-driver", driver, "busybox", "sh", "-c",
        f"yes {line} | head -c {GIGABYTE}; echo; echo end",
    ).ok()  # fmt: skip
    identifier = daemon.api("GET", f"/containers/{name}/json").json["Id"]
    directory = daemon.root / "containers" / identifier
    most = slowest = 0.0

    def kept() -> int:
        """Bytes of all log files. They are renamed, compressed and removed meanwhile, also after the end."""
        sizes = {}
        for file in directory.glob(f"{identifier}.log*"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                sizes[status.st_ino] = status.st_size
        return sum(sizes.values())

    def finished() -> bool:
        nonlocal most, slowest
        began = time.monotonic()
        assert daemon.api("GET", "/_ping").status == 200
        slowest = max(slowest, time.monotonic() - began)
        most = max(most, kept())
        return daemon.state_of(name)["Status"] == "exited"

    wait_until(finished, timeout=600)
    assert daemon.docker("logs", "-n", "1", name).out == "end"
    assert slowest < patiently(2)
    if driver == "local":
        # 20 MB a file; one may be larger by what came in while the loop was busy.
        assert most < 300 << 20, most  # of 1 GB, beside other work
    wait_until(lambda: kept() < 7 * (20 << 20), timeout=150)


def test_descriptors_do_not_grow_with_followers(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "echo one; sleep 1000").ok()
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    for _ in range(5):
        with daemon.docker_process("logs", "-f", name) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"one\n"
    wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before)
