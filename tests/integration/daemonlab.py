"""A daemon of the tests' own: started, asked, killed, started again, and removed without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hosttraces
import hygiene
import reaper
from labclients import TIMEOUT, Answer, Done, Terminal, UnixConnection, on_terminal
from patience import Deadline, patiently, until

from wherry.daemon.stores import instance_of
from wherry.network import room
from wherry.network.types import Instance
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS

DOCKER = shutil.which("docker") or "docker"
WATCHED = [sys.executable, str(Path(__file__).parent / "watched_daemon.py")]
"""The daemon that says so when its event loop stands still."""
_DAEMONS = (b"wherry.daemon", b"wherryd", b"watched_daemon.py", b"failing_daemon.py", b"unforked_daemon.py")
STALL = "the loop stood still"
_LOADED = Path(__file__).parents[1] / "suites" / "watched"
_CGROUPS = Path("/sys/fs/cgroup")
_TABLES = (
    *("containers", "sandboxes", "endpoints", "published", "networks", "snapshots", "secrets", "image_names"),
    *("volumes", "volume_users", "volume_snapshots", "volume_schedules", "build_records", "build_keys"),
)
"""Those whose rows belong to something that a test makes. Leases of what was not finished (a pull, say) stay
for a while on purpose."""


def wait_until(condition: Callable[[], Any], what: str = "", *, timeout: float = TIMEOUT) -> Any:
    """The first truthy value of ``condition``; fails after ``timeout`` seconds of an ordinary machine."""
    return until(condition, what, timeout)


WATCHING = {
    "PYTHONPATH": os.pathsep.join(filter(None, (str(_LOADED), os.environ.get("PYTHONPATH", "")))),
    "PYTHONWARNINGS": "default,always::ResourceWarning,always::RuntimeWarning",
    "PYTHONFAULTHANDLER": "1",
}
"""What a daemon's environment has so that it says what it left behind."""
_ON_PURPOSE = re.compile("nobody thought of this")
"""What ``failing_daemon.py`` raises."""
_daemons: list[LabDaemon] = []
_gone: list[str] = []
"""Troubles of daemons that were removed meanwhile."""


def _troubles() -> list[str]:
    found = [*_gone]
    _gone.clear()
    for daemon in _daemons:
        found += daemon.troubles()
    return found


hygiene.sources.append(_troubles)


class LabDaemon:
    """``base`` must be short: sockets lie below it (sun_path is 108 bytes)."""

    def __init__(self, base: Path, *arguments: str, program: Sequence[str] = ()) -> None:
        self.base = base
        self.root, self.run = base / "r", base / "x"
        self.socket = self.run / "wherry.sock"
        self.cgroup = f"wherry-t-{base.name}"
        self.log_path = base / "log"
        self.arguments = arguments
        self.program = list(program) or WATCHED
        self.process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self.home = base / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self._ready = False
        self._judged = 0
        """Bytes of the log that were looked at."""
        self._expected: list[re.Pattern[str]] = []
        _daemons.append(self)

    # ---- life ------------------------------------------------------------------------------------------

    def argv(self) -> list[str]:
        return [
            *self.program,
            *("--root", str(self.root), "--run", str(self.run)),
            *("--cgroup-parent", f"/{self.cgroup}", "--config-file", str(self._config())),
            *self.arguments,
        ]

    def _config(self) -> Path:
        path = self.base / "daemon.json"
        if not path.exists():
            path.write_text("{}")
        return path

    def start(self, *, ready: bool = True) -> LabDaemon:
        """Start it and wait until it says that it is ready (sd_notify(3)). One at a time on this host, as
        two that begin in the same moment might choose the same subnet."""
        with Path(tempfile.gettempdir(), "wherry-tests.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._start(ready)
        return self

    def _start(self, ready: bool) -> None:
        address = self.base / "n"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self.log_path.open("ab") as log:
            notify.bind(str(address))
            notify.settimeout(0.05)
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **WATCHING, "NOTIFY_SOCKET": str(address)},
                start_new_session=True,
            )
            deadline = Deadline(TIMEOUT)
            while ready:
                with contextlib.suppress(TimeoutError):
                    if notify.recv(64) == b"READY=1":
                        self._ready = True
                        return
                assert self.process.poll() is None, f"the daemon ended: {self.log[-2000:]}"
                assert not deadline.passed, f"the daemon is not ready: {self.log[-2000:]}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stalls(self) -> list[str]:
        """What kept the daemon's loop from turning, since the last time this was asked."""
        text = self.log
        news, self._read = text[self._read :], len(text)
        return [f"{STALL}{part}" for part in news.split(STALL)[1:]]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its exit status."""
        process, self.process, self._ready = self.process, None, False
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(patiently(TIMEOUT))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def restart(self, number: int = signal.SIGTERM) -> LabDaemon:
        self.end(number)
        return self.start()

    def expects(self, *patterns: str) -> None:
        """In this test, the log may have tracebacks and warnings that one of these is found in."""
        self._expected += map(re.compile, patterns)

    def troubles(self) -> list[str]:
        """What has come into the log since the last time, and no test may cause."""
        if self._ready and self.process is not None and self.process.poll() is None:
            self._collect(self.process.pid)
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as log:
            log.seek(self._judged)
            text = log.read()
        self._judged += len(text)
        expected, self._expected = [_ON_PURPOSE, *self._expected], []
        found = hygiene.troubles_in(text.decode(errors="replace"), expected)
        return [f"in the log of the daemon at {self.base}: {record}" for record in found]

    def _collect(self, pid: int) -> None:
        """Have the daemon collect its garbage, and wait for it. One that is stopped or dies is left alone."""
        with self.log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            text = b""

            def done() -> bool:
                nonlocal text
                text += log.read()
                return b"garbage is collected" in text or hosttraces.state(pid) in "TtZX"

            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR2)
                wait_until(done, "the daemon's garbage to be collected")

    def destroy(self) -> None:
        """End it and remove everything of it from the host."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.remove_containers()
        finally:
            try:
                self.end()
            finally:
                self.scrub()

    def scrub(self) -> None:
        """Remove what a daemon that has ended left, from the host and from the disk."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for cgroup in self._cgroup_directories():
            for pid in hosttraces.pids(cgroup):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # On version 1 a frozen process takes no signal.
            if (state := cgroup / "freezer.state").exists():
                state.write_text("THAWED")
        if (self.root / "wherry.db").exists():
            db = Database(self.root / "wherry.db", MIGRATIONS)
            room.wire(db, self.run, instance=Instance(instance_of(self.root))).teardown()
            db.close()
        for mount in reversed(self._mounts()):
            argv = ["umount", "-l", mount]
            subprocess.run(argv, check=False, stderr=subprocess.DEVNULL, timeout=patiently(TIMEOUT))
        for cgroup in reversed(self._cgroup_directories()):
            with contextlib.suppress(OSError):
                wait_until(lambda c=cgroup: not hosttraces.pids(c), timeout=5)
                cgroup.rmdir()
        _gone.extend(self.troubles())
        _daemons.remove(self)
        shutil.rmtree(self.base, ignore_errors=True)
        reaper.let_go(self.base)

    # ---- asking ----------------------------------------------------------------------------------------

    def connection(self) -> UnixConnection:
        return UnixConnection(self.socket)

    def api(
        self,
        method: str,
        path: str,
        /,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """One request. ``body`` is sent as JSON unless it is bytes; ``filters`` in the query as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        texts = {k: json.dumps(v) if isinstance(v, dict) else str(v) for k, v in query.items()}
        if texts:
            path += ("&" if "?" in path else "?") + "&".join(f"{k}={quote(v)}" for k, v in texts.items())
        connection = self.connection()
        try:
            connection.request(method, path, body=body, headers=sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CLI_HINTS": "false",
            "TERM": "xterm",
        }

    def docker(
        self,
        *arguments: str,
        input: bytes = b"",
        timeout: float = TIMEOUT,
        environment: dict[str, str] | None = None,
    ) -> Done:
        """The docker CLI against this daemon. A call that takes too long fails."""
        result = subprocess.run(
            [DOCKER, *arguments],
            input=input,
            capture_output=True,
            timeout=patiently(timeout),
            env={**self.environment, **(environment or {})},
            check=False,
        )
        return Done(result.returncode, result.stdout, result.stderr)

    def wherry(self, *arguments: str, input: bytes = b"", timeout: float = TIMEOUT) -> Done:
        """wherry's own client against this daemon."""
        entry = "from wherry.cli.main import entry; raise SystemExit(entry())"
        result = subprocess.run(
            [sys.executable, "-c", entry, *arguments],
            input=input,
            capture_output=True,
            timeout=patiently(timeout),
            env=self.environment,
            check=False,
        )
        return Done(result.returncode, result.stdout, result.stderr)

    @contextlib.contextmanager
    def docker_process(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A docker CLI that runs beside the test; killed at the end if it still does."""
        pipe = subprocess.PIPE
        options = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "bufsize": 0, **options}
        process = subprocess.Popen([DOCKER, *arguments], env=self.environment, **options)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for file in (process.stdin, process.stdout, process.stderr):
                if file is not None:
                    with contextlib.suppress(OSError):
                        file.close()
            process.wait()

    @contextlib.contextmanager
    def terminal(self, *arguments: str) -> Iterator[Terminal]:
        """A docker CLI on a terminal of its own."""
        with on_terminal([DOCKER, *arguments], env=self.environment) as terminal:
            yield terminal

    @contextlib.contextmanager
    def sdk(self, **options: Any) -> Iterator[Any]:
        import docker

        client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=patiently(TIMEOUT), **options)
        try:
            yield client
        finally:
            client.close()

    def state_of(self, container: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api("GET", f"/containers/{container}/json").json["State"]
        return state

    def pid_of(self, container: str) -> int:
        return int(self.state_of(container)["Pid"])

    def bootstrap(self) -> None:
        answer = self.api("POST", "/images/bootstrap", name="busybox")
        assert answer.status == 200 and b"errorDetail" not in answer.body, answer.body

    def actions(self, **filters: list[str]) -> list[str]:
        """Every event so far that passes ``filters``, by its action."""
        answer = self.api("GET", "/events", since=1, until=f"{time.time():.6f}", filters=filters)
        return [event["Action"] for event in answer.lines]

    # ---- what is there ---------------------------------------------------------------------------------

    def containers(self) -> list[str]:
        return [c["Id"] for c in self.api("GET", "/containers/json", all=1).json]

    def remove_containers(self, keep: Sequence[str] = ()) -> None:
        for container in self.containers():
            if container not in keep:
                self.api("DELETE", f"/containers/{container}?force=1&v=1")

    def images(self) -> set[str]:
        return {i["Id"] for i in self.api("GET", "/images/json").json}

    def tags(self) -> set[str]:
        return {tag for i in self.api("GET", "/images/json").json for tag in i["RepoTags"] or ()}

    def volumes(self) -> set[str]:
        return {v["Name"] for v in self.api("GET", "/volumes").json["Volumes"]}

    def secrets(self) -> set[str]:
        return {s["ID"] for s in self.api("GET", "/secrets").json}

    def networks(self) -> set[str]:
        return {n["Name"] for n in self.api("GET", "/networks").json}

    def _mounts(self) -> list[str]:
        """Mount points below the lab, in the order they were made."""
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point = line.split(" ")[4]
            if point.startswith((f"{self.run}/", f"{self.root}/")):
                found.append(point)
        return found

    def processes(self) -> list[int]:
        """Every process whose command line names the lab's run directory, without the daemon."""
        needle = os.fsencode(str(self.run))
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if needle in words and not any(name in words for name in _DAEMONS):
                    found.append(int(entry.name))
        return [p for p in found if p != os.getpid()]

    def _cgroup_directories(self) -> list[Path]:
        found: list[Path] = []
        # version 2's tree alone, or one hierarchy a directory
        for hierarchy in (_CGROUPS, *_CGROUPS.iterdir()):
            top = hierarchy / self.cgroup
            if top.is_dir() and not hierarchy.is_symlink():
                found += [Path(directory) for directory, _, _ in os.walk(top)]
        return found

    def traces(self) -> set[str]:
        """Everything of this daemon that the host holds, one text for each thing."""
        standing = {f"{self.run}/{name}" for name in ("netns", "tasks")}
        found = {f"mount {point}" for point in self._mounts() if point not in standing}
        found |= {f"process {pid}: {hosttraces.command(pid)}" for pid in self.processes()}
        found |= {f"cgroup {c}" for c in self._cgroup_directories() if c.name != self.cgroup}
        for directory in (
            self.run / "netns",
            self.run / "tasks",
            *(self.run / "runtime").glob("*"),
            self.root / "containers",
            *(self.root / "snapshots").glob("*"),
            self.root / "volumes",
            self.root / "content" / "sha256",
            self.root / "content" / "ingest",
        ):
            if directory.is_dir():
                found |= {f"entry {directory / name}" for name in os.listdir(directory)}
        instance = Instance(instance_of(self.root))
        found |= {f"link {name}" for name in hosttraces.links(instance)}
        found |= {f"nft {element}" for element in hosttraces.elements(instance.table)}
        return found | self._rows() | self._descriptors()

    def difference(self, before: set[str]) -> list[str]:
        """What there is now and was not before, or the other way round. A descriptor that was only passing
        when ``before`` was taken may be gone."""
        now = self.traces()
        counts = hosttraces.counts(before)
        left = [f"left behind: {t}" for t in now - before if not t.startswith("descriptors")]
        for kind, count in hosttraces.counts(now).items():
            if count > counts.get(kind, 0):
                left.append(f"left behind: descriptors {kind}: {count}, not {counts.get(kind, 0)}")
        lost = [f"lost: {t}" for t in before - now if not t.startswith("descriptors")]
        return sorted(left) + sorted(lost)

    def _rows(self) -> set[str]:
        with contextlib.closing(sqlite3.connect(f"file:{self.root}/wherry.db?mode=ro", uri=True)) as db:
            return {
                f"row {table} {[v for v in row if not isinstance(v, bytes)]}"
                for table in _TABLES
                for row in db.execute(f"SELECT * FROM {table}")
            }

    @staticmethod
    def leftovers(base: Path) -> Callable[[], set[str]]:
        """What says what there is of the daemon at ``base``, even when its files are gone."""
        instance = Instance(instance_of(base / "r"))
        daemon = LabDaemon.__new__(LabDaemon)
        daemon.base, daemon.root, daemon.run = base, base / "r", base / "x"
        daemon.cgroup, daemon.process = f"wherry-t-{base.name}", None

        def found() -> set[str]:
            there = {f"file {base}"} if base.exists() else set()
            there |= {f"mount {point}" for point in daemon._mounts()}
            there |= {f"process {pid}: {hosttraces.command(pid)}" for pid in reaper.naming(base)}
            there |= {f"cgroup {c}" for c in daemon._cgroup_directories()}
            there |= {f"link {name}" for name in hosttraces.links(instance)}
            return there | {f"nft {element}" for element in hosttraces.elements(instance.table)}

        return found

    def settled(self) -> set[str]:
        """:meth:`traces`, with no more descriptors than stay: a connection of ours may just be going."""
        found = self.traces()
        counts = hosttraces.counts(found)
        for _ in range(5):
            time.sleep(0.002)
            now = hosttraces.counts(self._descriptors())
            counts = {kind: min(count, now.get(kind, 0)) for kind, count in counts.items()}
        rest = {trace for trace in found if not trace.startswith("descriptors")}
        return rest | {f"descriptors {kind} {count}" for kind, count in counts.items()}

    def _descriptors(self) -> set[str]:
        """How many descriptors the daemon holds of each kind, and of each file."""
        counts: dict[str, int] = {}
        if self.process is None:
            return set()
        sockets = hosttraces.sockets(self.pid)
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                kind = target.partition(":")[0]
                if kind == "pipe":
                    target = kind
                elif kind == "socket":
                    target = "socket " + sockets.get(target[len("socket:[") : -1], "of no table")
                elif kind.startswith("/proc/"):
                    target = "/proc/" + kind.rpartition("/")[2]
                if target != f"socket {hosttraces.RELAY}":
                    counts[target] = counts.get(target, 0) + 1
        if hosttraces.fork_server(self.pid) is not None:
            counts["socket unix"] -= 1  # its channel: it goes after a minute without jobs
        return {f"descriptors {kind} {count}" for kind, count in counts.items()}


def new_base() -> Path:
    """A short directory on the disk that holds temporary files."""
    return reaper.keep(Path(tempfile.mkdtemp(prefix="wh")))
