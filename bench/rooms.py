"""Rooms: a daemon in namespaces of its own, from its start to the proof that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import commands
from commands import Failed

CGROUPS = Path("/sys/fs/cgroup")
STOP = 25.0
"""Seconds for a room to end; more than ``room.GRACE``."""
_CGROUPS_GONE = 5.0
_NAMESPACES = (
    *("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("--propagation", "private"),
)


class Room:
    """:param cgroup: name of the daemon's cgroup in every hierarchy, which goes away with the room."""

    def __init__(self, directory: Path, argv: Sequence[str], cgroup: str) -> None:
        self._directory = directory
        self._argv = list(argv)
        self._cgroup = cgroup
        self._process: subprocess.Popen[bytes] | None = None
        self._namespace = ""

    def start(self) -> None:
        first = str(Path(__file__).resolve().parent / "room.py")
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "--", sys.executable, "-I", first, *self._argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory), "LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def confirm(self) -> None:
        """Remember which namespace is the room's. :raises Failed: it is not apart from the host's."""
        assert self._process is not None
        own, room = Path("/proc/self/ns"), Path(f"/proc/{self._process.pid}/ns")
        self._namespace = os.readlink(room / "pid_for_children")
        apart = {kind: os.readlink(own / kind) != os.readlink(room / kind) for kind in ("net", "mnt")}
        apart["pid"] = self._namespace != os.readlink(own / "pid")
        for kind, is_apart in apart.items():
            if not is_apart:
                raise Failed(f"the daemon runs in the host's own {kind} namespace")

    def processes(self) -> dict[int, str]:
        """Pid (as the host sees it) -> name of every process of the room. Those of containers are in pid
        namespaces of their own and so not among them, nor is the room's first process."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns" / "pid") == self._namespace and not _is_first(entry):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
        return found

    def again(self) -> None:
        """Kill the daemon and start another, with everything else in the room as it is."""
        assert self._process is not None and self._process.stdin is not None
        os.write(self._process.stdin.fileno(), b"again\n")

    def stop(self) -> None:
        """End the daemon, and with it everything in the room. :raises Failed: something is left."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        if not commands.wait(process, STOP):
            process.kill()  # --kill-child takes the room's first process along
            process.wait()
        self._remove_cgroups()
        self._check_gone()

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + _CGROUPS_GONE
        while left := cgroup_directories(self._cgroup):
            for directory in reversed(left):
                with contextlib.suppress(OSError):
                    directory.rmdir()
            if time.monotonic() > deadline:
                return  # the check names them
            time.sleep(0.02)

    def _check_gone(self) -> None:
        left = [f"cgroup {directory}" for directory in cgroup_directories(self._cgroup)]
        if self._namespace:
            left += [f"process {pid} ({name})" for pid, name in self.processes().items()]
        left += [f"mount {point}" for point in _mounts_below(self._directory)]
        if left:
            raise Failed(f"left behind on the host: {', '.join(left)}")


def _is_first(entry: Path) -> bool:
    for line in (entry / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1"
    return False


def cgroup_directories(name: str) -> list[Path]:
    """Every directory of that cgroup in every hierarchy, parents first."""
    hierarchies = [CGROUPS, *(h for h in CGROUPS.iterdir() if h.is_dir() and not h.is_symlink())]
    found: list[Path] = []
    for top in [h / name for h in hierarchies]:
        if top.is_dir():
            found += [Path(directory) for directory, _subdirectories, _files in os.walk(top)]
    return found


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]
