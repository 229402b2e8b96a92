"""Many containers on one daemon: what a start costs beside them, the daemon's memory, and its restart.

    python bench/crowd.py [--counts 10,500,1000,2000] [--network none|bridge] [--samples 40]

At each count: the median of starts by the API (of a container that was created before), the daemon's memory,
and the time from ``wherryd``'s start, after a SIGKILL, until the API answers (``_ping``, then a list), and
until every container is taken over. The whole runs in network, mount and pid namespaces of its own, as in
``bench/rooms.py``, so that whatever happens nothing of it is left on the host. Prints a table for
docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asking
from commands import Failed
from engines import BIN, memory
from rooms import cgroup_directories

CLIENTS = 8
"""Clients that start containers at the same time, to come from one count to the next."""
INSIDE = "WHERRY_CROWD_INSIDE"
_ADOPTED = "took over"


class Daemon:
    """``directory`` is new, short, and on a real disk."""

    def __init__(self, directory: Path, network: str) -> None:
        self.directory = directory
        self.network = network
        self.socket = directory / "x" / "wherry.sock"
        self.cgroup = f"crowd-{directory.name}"
        self.log = directory / "log"
        self.count = 0
        self.used = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Seconds until ``_ping`` was answered. ``used`` is the processor time that this took, which
        others on the machine change little."""
        (self.directory / "daemon.json").write_text("{}")
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *os.environ.get("WHERRY_CROWD_WRAP", "").split(),
                    str(BIN / "wherryd"),
                    *("--root", str(self.directory / "r"), "--run", str(self.directory / "x")),
                    *("--cgroup-parent", f"/{self.cgroup}"),
                    *("--config-file", str(self.directory / "daemon.json")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask("GET", "/_ping", ok=(200,), plain=True)
                took = time.monotonic() - began
                self.used = _processor_time(self.pid)
                return took
            if self._process.poll() is not None or time.monotonic() > began + 120:
                raise Failed(f"wherryd does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def ask(
        self, method: str, path: str, body: Any = None, *, ok: tuple[int, ...], plain: bool = False
    ) -> Any:
        data = asking.ask(self.socket, method, path, body, ok=ok)
        return json.loads(data) if data and not plain else data

    def create(self) -> str:
        self.count += 1
        host = {"NetworkMode": self.network, "Init": False}
        body = {"Image": "busybox", "Cmd": ["sleep", "1000000"], "StopSignal": "KILL", "HostConfig": host}
        path = f"/containers/create?name=crowd-{self.count}"
        return str(self.ask("POST", path, body, ok=(201,))["Id"])

    def run(self, container: str) -> float:
        began = time.monotonic()
        self.ask("POST", f"/containers/{container}/start", ok=(204,))
        return time.monotonic() - began

    def fill(self, count: int) -> None:
        """Have so many run."""
        missing = count - len(self.ask("GET", "/containers/json", ok=(200,)))
        with ThreadPoolExecutor(CLIENTS) as clients:
            for _ in clients.map(lambda _: self.run(self.create()), range(missing)):
                pass

    def starts(self, samples: int) -> list[float]:
        """Seconds of single starts, one after the other; what was started is removed again."""
        taken = []
        for _ in range(samples):
            container = self.create()
            taken.append(self.run(container))
            self.ask("DELETE", f"/containers/{container}?force=1", ok=(204,))
        return taken

    def restart(self, count: int) -> tuple[float, float, float]:
        """Kill and start it: seconds until it answers ``_ping``, a list, and has adopted everything."""
        self.end(signal.SIGKILL)
        before = self.log.stat().st_size
        began = time.monotonic()
        pinged = self.start()
        states = [c["State"] for c in self.ask("GET", "/containers/json?all=1", ok=(200,))]
        listed = time.monotonic() - began
        if states != ["running"] * count:
            raise Failed(f"after the restart {states.count('running')} of {count} run")
        while _ADOPTED not in self.log.read_text()[before:]:
            if time.monotonic() > began + 120:
                raise Failed("the containers are not adopted within two minutes")
            time.sleep(0.02)
        return pinged, listed, time.monotonic() - began

    def destroy(self) -> None:
        """End everything; the pid namespace takes along what is left."""
        with contextlib.suppress(Failed, OSError):
            self.end()
        for directory in reversed(cgroup_directories(self.cgroup)):
            with contextlib.suppress(OSError):
                for pid in (directory / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (left := cgroup_directories(self.cgroup)) and time.monotonic() < deadline:
            for directory in reversed(left):
                with contextlib.suppress(OSError):
                    directory.rmdir()
            time.sleep(0.1)
        for directory in left:  # a hierarchy that is not mounted outside has plain files here
            shutil.rmtree(directory, ignore_errors=True)


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def daemon(network: str) -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="crowd-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    made = Daemon(directory, network)
    try:
        made.start()
        made.ask("POST", "/images/bootstrap?name=busybox", ok=(200,), plain=True)
        yield made
    finally:
        made.destroy()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split(" ")[1].startswith(f"{directory}/"):
                subprocess.run(["umount", "-l", line.split(" ")[1]], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def measure(counts: list[int], network: str, samples: int) -> None:
    print(f"load {os.getloadavg()[0]:.1f}, --network {network}, {samples} starts at each count")
    print(
        "| running | start, median (p90) | ratio | PSS | anonymous | ping (processor) | list | all adopted |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    first = 0.0
    with daemon(network) as asked:
        for count in counts:
            asked.fill(count)
            asked.starts(3)
            taken = sorted(asked.starts(samples))
            median = statistics.median(taken)
            first = first or median
            time.sleep(3)
            pss, anonymous = (memory([asked.pid], kind) for kind in ("Pss", "Anonymous"))
            pinged, listed, adopted = asked.restart(count)
            print(
                f"| {count} | {median * 1e3:.1f} ms ({taken[int(samples * 0.9)] * 1e3:.1f})"
                f" | {median / first:.2f} | {pss:.1f} MiB | {anonymous:.1f} MiB"
                f" | {pinged:.2f} s ({asked.used:.2f}) | {listed:.2f} s | {adopted:.2f} s |",
                flush=True,
            )


def in_a_room() -> int:
    """Run this program again, in namespaces of its own; its exit status."""
    # bash as the first process of the pid namespace: it reaps what the daemon's children leave behind
    room = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    script = 'ip link set lo up; "$@"; exit $?'
    argv = [*room, "--propagation", "private", "bash", "-c", script, "bash", sys.executable, *sys.argv]
    return subprocess.run(argv, env={**os.environ, INSIDE: "1"}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", default="10,500,1000,2000")
    parser.add_argument("--network", default="none")
    parser.add_argument("--samples", type=int, default=40)
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    return inside(lambda: measure(counts, options.network, options.samples))


def inside(work: Callable[[], None]) -> int:
    """Do ``work`` in a room of its own; the exit status."""
    if not os.environ.get(INSIDE):
        return in_a_room()
    try:
        work()
    except Failed as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
