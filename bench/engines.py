"""The engines under test, each alone in a room: namespaces, directories and cgroups that nobody else has.

    <base>/<name>-<n>/root       state (dockerd: --data-root), on the disk that is measured
    /run/<name>-<n>              sockets, bundles (dockerd: --exec-root): in memory, as where they are
    installed; each
                                 room has a /run of its own
    <base>/<name>-<n>/api.sock   the API
    <base>/<name>-<n>/log        the daemon's own words

The room's network and mount namespaces keep bridges, rules and mounts away from the host and from the other
engine; its pid namespace makes its end complete. Only /sys/fs/cgroup is shared, below a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import commands
from commands import Failed
from rooms import Room

BIN = Path(__file__).resolve().parent.parent / ".venv" / "bin"
READY = 60.0
"""Seconds for a daemon to answer its first request."""
_REMOVE_TIMEOUT = 180.0


class Engine:
    """A daemon and how clients reach it. ``directory`` is new and on a real disk."""

    name = ""
    options: ClassVar[dict[str, Any]] = {}
    """What ``daemon.json`` says."""

    def __init__(self, directory: Path, cli: str) -> None:
        """:param cli: the docker CLI, the same for every engine."""
        self.directory = directory
        self.cli = cli
        self.root, self.exec = directory / "root", Path("/run") / directory.name
        self.socket = directory / "api.sock"
        self.url = f"unix://{self.socket}"
        self.cgroup = f"bench-{os.getpid()}-{directory.name}"
        self._home = directory / "home"
        self._room: Room | None = None

    def argv(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start the daemon and wait for its first answer. :raises Failed: there is none."""
        for directory in (self.root, self._home):
            directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "daemon.json").write_text(json.dumps(self.options))
        self.socket.unlink(missing_ok=True)
        self._room = Room(self.directory, self.argv(), self.cgroup)
        try:
            self._room.start()
            self._wait_ready(self._room)
            self._room.confirm()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """:raises Failed: something of it is left on the host."""
        room, self._room = self._room, None
        if room is not None:
            room.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def replace(self) -> None:
        """Kill the daemon, leave its containers running, and wait for the first answer of a new one."""
        assert self._room is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
            held.connect(str(self.socket))
            self._room.again()
            with contextlib.suppress(ConnectionResetError):
                held.recv(1)  # ends with the old one
        self._wait_ready(self._room)

    @property
    def room_pid(self) -> int:
        """A process, as the host sees it, that is in the room's network namespace."""
        assert self._room is not None
        return self._room.pid

    def processes(self) -> dict[int, str]:
        assert self._room is not None
        return self._room.processes()

    def _wait_ready(self, room: Room) -> None:
        deadline = time.monotonic() + READY
        while not _answers(self.socket):
            if not room.running or time.monotonic() > deadline:
                log = (self.directory / "log").read_text(errors="replace")
                raise Failed(f"{self.name} does not start: {log[-1500:]}")
            time.sleep(0.02)

    # ---- clients ---------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return commands.environment(str(self._home), DOCKER_HOST=self.url)

    def timed(self, *arguments: str, timeout: float = commands.TIMEOUT) -> float:
        """Seconds that the docker CLI takes against this engine. :raises Failed: it fails or hangs."""
        return commands.timed([self.cli, *arguments], self.environment, timeout=timeout)

    def ask(self, *arguments: str, timeout: float = commands.TIMEOUT) -> str:
        """Standard output of the docker CLI. :raises Failed: it fails or hangs."""
        return commands.output([self.cli, *arguments], self.environment, timeout=timeout)

    def remove_containers(self) -> None:
        ids = self.ask("ps", "-aq", "--no-trunc").split()
        if ids:
            self.ask("rm", "-f", *ids, timeout=_REMOVE_TIMEOUT)


class Wherry(Engine):
    name = "wherry"

    def argv(self) -> list[str]:
        return [
            str(BIN / "wherryd"),
            *("--root", str(self.root), "--run", str(self.exec), "--host", self.url),
            *("--cgroup-parent", f"/{self.cgroup}", "--config-file", str(self.directory / "daemon.json")),
        ]

    def bootstrap(self, image: str) -> None:
        commands.output([str(BIN / "wherry"), "image", "bootstrap", image], self.environment)


ENGINE_ROOT = os.environ.get("WHERRY_BENCH_ENGINE", "")
"""A directory with a system of its own that has dockerd (``mmdebstrap --include=docker.io,iptables sid D``):
a newer engine than the host's distribution has, and none on the host."""
_WITHIN = """
mount --bind "$1" "$1"
for place in /proc /sys /dev "$2"; do mkdir -p "$1$place"; mount --rbind "$place" "$1$place"; done
mount -t tmpfs tmpfs "$1/run"
root=$1; shift 2; exec chroot "$root" "$@"
"""


class Docker(Engine):
    name = "docker"

    def argv(self) -> list[str]:
        if not ENGINE_ROOT:
            return self._argv()
        return ["sh", "-ec", _WITHIN, "sh", ENGINE_ROOT, str(self.directory), *self._argv()]

    def _argv(self) -> list[str]:
        return [
            "dockerd",
            *("--data-root", str(self.root), "--exec-root", str(self.exec), "-H", self.url),
            *("--pidfile", str(self.directory / "pid"), "--config-file", str(self.directory / "daemon.json")),
            *(() if "features" in self.options else ("--storage-driver", "overlay2")),
            *("--iptables=true", "--log-level", "error"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self.cgroup}"),
        ]


class Lab:
    """The engines that this machine has, below one directory that goes away with it."""

    def __init__(self, base: Path, cli: str) -> None:
        self.base = base
        self.cli = cli
        self.kinds: dict[str, type[Engine]] = {"wherry": Wherry}
        if ENGINE_ROOT or shutil.which("dockerd"):
            self.kinds["docker"] = Docker
        self.engines: dict[str, Engine] = {}
        self._count = 0

    def open(self) -> None:
        """Start every engine with the same image: made by wherry, carried over by save and load."""
        for name in self.kinds:
            self.engines[name] = self._new(name)
            self.engines[name].start()
        wherry = self.engines["wherry"]
        assert isinstance(wherry, Wherry)
        wherry.bootstrap("busybox")
        archive = str(self.base / "busybox.tar")
        wherry.ask("save", "-o", archive, "busybox")
        for name, engine in self.engines.items():
            if name != "wherry":
                engine.ask("load", "-i", archive)

    def _new(self, name: str) -> Engine:
        self._count += 1
        directory = self.base / f"{name}-{self._count}"
        directory.mkdir()
        return self.kinds[name](directory, self.cli)

    @contextlib.contextmanager
    def fresh(self, name: str) -> Iterator[Engine]:
        """A started engine with nothing in it, which nobody else uses."""
        engine = self._new(name)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()

    def tidy(self) -> None:
        """Back to no containers after a row, whatever became of it."""
        for engine in self.engines.values():
            try:
                engine.remove_containers()
            except Failed:
                engine.restart()
                engine.remove_containers()

    def close(self) -> None:
        """Stop everything, remove the directory. :raises Failed: with all that is left on the host."""
        problems: list[str] = []
        for engine in self.engines.values():
            problems += _problem(engine.stop)
        if not problems:
            problems += _problem(lambda: shutil.rmtree(self.base))
        if problems:
            raise Failed("; ".join(problems))


def _problem(work: Callable[[], None]) -> list[str]:
    try:
        work()
    except (Failed, OSError) as e:
        return [str(e)]
    return []


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def memory(pids: list[int], kind: str) -> float:
    """MiB of processes together. ``Pss``: pages shared with others count in part. ``Rss``: in full.
    ``Anonymous``: only what no file stands behind, which other programs do not change by coming and going.
    """
    return sum(_rollup(pid, kind) for pid in pids) / 1024


def _rollup(pid: int, kind: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise Failed(f"process {pid} has no {kind}")
