"""Logs on disk: rotated without loss, read across files, bounded."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel

COUNT = 60_000
PRINT = f"i=0; while [ $i -lt {COUNT} ]; do seq $((i+1)) $((i+2000)); i=$((i+2000)); usleep 20000; done"
"""All the numbers, in about a second."""


def numbers(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(first, last + 1))


def log_files(daemon: LabDaemon, container: str) -> list[Path]:
    """Oldest first, the one being written last."""
    identifier = daemon.api("GET", f"/containers/{container}/json").json["Id"]
    directory = daemon.root / "containers" / identifier
    rotated = [p for p in directory.glob("*.log.*") if re.search(r"\.log\.[0-9]+(\.gz)?$", p.name)]
    rotated.sort(key=lambda p: int(p.name.split(".log.")[1].removesuffix(".gz")))
    return [*rotated, directory / f"{identifier}.log"]


def options(size: str, files: int, driver: str = "local") -> list[str]:
    return ["--log-driver", driver, "--log-opt", f"max-size={size}", "--log-opt", f"max-file={files}"]


def test_every_line_once_across_rotations(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, *options("64k", 1000), "busybox", "sh", "-c", PRINT).ok()
    assert daemon.docker("logs", name).raw == numbers(1, COUNT)
    files = log_files(daemon, name)
    assert len(files) > 3
    assert daemon.docker("logs", "-n", "50000", name).raw == numbers(COUNT - 49_999, COUNT)
    assert daemon.docker("logs", "-n", "1", name).raw == numbers(COUNT, COUNT)


def test_a_follower_crosses_rotations(daemon: LabDaemon, name: str) -> None:
    """With two files kept, so that a follower must hold what it has not read."""
    daemon.docker(
        "run", "-d", "--name", name, *options("64k", 2), "-v", "/go", "busybox", "sh", "-c",
        f"echo ready; while [ ! -e /go/now ]; do usleep 1000; done; {PRINT}; echo end",
    ).ok()  # fmt: skip
    with daemon.docker_process("logs", "-f", name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        daemon.docker("exec", name, "touch", "/go/now").ok()
        out, _ = process.communicate(timeout=patiently(20))
    assert out == numbers(1, COUNT) + b"end\n"
    wait_until(lambda: len(log_files(daemon, name)) <= 3)


def test_a_file_is_no_larger_than_it_may_be_when_the_container_ends_at_once(
    daemon: LabDaemon, name: str
) -> None:
    daemon.docker("run", "--name", name, *options("10k", 3), "busybox", "seq", "1", "20000").ok()
    # Once the lock is given back, the files have their size.
    daemon.docker("rename", name, f"{name}-2").ok()
    sizes = [file.stat().st_size for file in log_files(daemon, f"{name}-2")]
    assert len(sizes) == 3 and max(sizes) <= 10 << 10
    shown = daemon.docker("logs", f"{name}-2").raw.split()
    assert shown == [b"%d" % n for n in range(20001 - len(shown), 20001)] and len(shown) > 300


def test_only_so_many_files_stay(daemon: LabDaemon, name: str) -> None:
    daemon.docker(
        "run", "--name", name, *options("64k", 3), "busybox", "sh", "-c",
        "for k in 0 1 2 3 4 5 6 7; do seq ${k}0001 ${k}9999; usleep 150000; done",
    ).ok()  # fmt: skip
    files = log_files(daemon, name)
    assert 1 < len(files) <= 3
    found = [int(line) for line in daemon.docker("logs", name).out.split()]
    assert found[-1] == 79999
    assert len(found) < 79_992
    # What is there is there without a hole: only the oldest went.
    later = [n for k in range(8) for n in range(k * 10_000 + 1, k * 10_000 + 10_000)]
    assert found == later[-len(found) :]


def test_one_file_only(daemon: LabDaemon, name: str) -> None:
    daemon.docker(
        "run", "--name", name, *options("16k", 1), "busybox", "sh", "-c",
        "for k in 1 2 3 4 5; do seq 1000; usleep 150000; done; echo end",
    ).ok()  # fmt: skip
    files = log_files(daemon, name)
    assert sum(f.stat().st_size > 0 for f in files) == 1
    assert daemon.docker("logs", "-n", "1", name).ok() == "end"


def test_lines_written_while_no_daemon_runs(fresh_daemon: LabDaemon, name: str) -> None:
    daemon = fresh_daemon
    daemon.docker(
        "run", "-d", "--name", name, *options("64k", 1000), "busybox", "sh", "-c",
        "i=0; until [ -e /over ]; do seq $((i+1)) $((i+500)); i=$((i+500)); usleep 15000; done;"
        "echo of $i; sleep 1000",
    ).ok()  # fmt: skip
    for _ in range(3):
        count = len(log_files(daemon, name))
        wait_until(lambda n=count: len(log_files(daemon, name)) > n)
        daemon.restart(signal.SIGKILL)
    daemon.docker("exec", name, "touch", "/over").ok()
    last = wait_until(lambda: (out := daemon.docker("logs", "-n", "1", name).out).startswith("of ") and out)
    assert daemon.docker("logs", name).raw == numbers(1, int(last[3:])) + f"{last}\n".encode()


def test_a_restarted_container_goes_on_in_the_same_log(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "--name", name, *options("16k", 50), "busybox", "seq", "2000").ok()
    for _ in range(2):
        daemon.docker("start", "-a", name).ok()
    assert daemon.docker("logs", name).raw == numbers(1, 2000) * 3


def test_a_driver_nobody_chose_has_the_name_clients_look_for(daemon: LabDaemon, name: str) -> None:
    """It is the local one; the Docker SDK returns what a container printed for json-file only."""
    assert daemon.api("GET", "/info").json["LoggingDriver"] == "json-file"
    for driver, flags in (("json-file", ()), ("local", ("--log-driver", "local"))):
        daemon.docker("create", "--name", f"{name}-{driver}", *flags, "busybox").ok()
        inspected = daemon.api("GET", f"/containers/{name}-{driver}/json").json
        assert inspected["HostConfig"]["LogConfig"] == {"Type": driver, "Config": {}}
        assert inspected["LogPath"] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log-driver", "nope"], 'error looking up logging plugin nope: plugin "nope" not found'),
        (["--log-driver", "json-file", "--log-opt", "x=1"], "unknown log opt 'x' for json-file log driver"),
        (["--log-opt", "max-size=lots"], "max-size"),
    ],
)
def test_wrong_options_are_refused(daemon: LabDaemon, arguments: list[str], words: str) -> None:
    done = daemon.docker("create", *arguments, "busybox")
    assert done.code == 1
    assert words in done.errors
