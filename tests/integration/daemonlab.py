"""A daemon of the tests' own: started, asked, killed, started again, and removed without a trace."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import pty
import select
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

from patience import patiently

from wherry.daemon.stores import instance_of
from wherry.network.manager import NetworkManager
from wherry.network.types import Instance
from wherry.state.database import Database
from wherry.state.schema import MIGRATIONS

DOCKER = shutil.which("docker") or "docker"
TIMEOUT = patiently(20.0)
"""Seconds after which whatever is waited for has hung."""
_CGROUPS = Path("/sys/fs/cgroup")
_TABLES = ("containers", "sandboxes", "endpoints", "published", "snapshots", "volumes", "volume_users")


def wait_until(condition: Callable[[], Any], what: str = "", *, timeout: float = TIMEOUT) -> Any:
    """The first truthy value of ``condition``; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        select.select([], [], [], 0.01)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def message(self) -> str:
        text: str = self.json["message"]
        return text


class Done:
    """A finished docker CLI call."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw, self.errors = code, out, err.decode(errors="replace")

    @property
    def out(self) -> str:
        return self.raw.decode(errors="replace").strip()

    def ok(self) -> str:
        """Standard output of a call that must have succeeded."""
        assert self.code == 0, f"exit {self.code}: {self.errors}"
        return self.out


class LabDaemon:
    """``base`` must be short: sockets lie below it (sun_path is 108 bytes)."""

    def __init__(self, base: Path, *arguments: str, program: Sequence[str] = ()) -> None:
        self.base = base
        self.root, self.run = base / "r", base / "x"
        self.socket = self.run / "wherry.sock"
        self.cgroup = f"wherry-t-{base.name}"
        self.log_path = base / "log"
        self.arguments = arguments
        self.program = list(program) or [sys.executable, "-m", "wherry.daemon.main"]
        self.process: subprocess.Popen[bytes] | None = None
        self.home = base / "home"
        self.home.mkdir(parents=True, exist_ok=True)

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
                env={**os.environ, "NOTIFY_SOCKET": str(address)},
                start_new_session=True,
            )
            deadline = time.monotonic() + TIMEOUT
            while ready:
                with contextlib.suppress(TimeoutError):
                    if notify.recv(64) == b"READY=1":
                        return
                assert self.process.poll() is None, f"the daemon ended: {self.log[-2000:]}"
                assert time.monotonic() < deadline, f"the daemon is not ready: {self.log[-2000:]}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def restart(self, number: int = signal.SIGTERM) -> LabDaemon:
        self.end(number)
        return self.start()

    def destroy(self) -> None:
        """End it and remove everything of it from the host."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.remove_containers()
        finally:
            try:
                self.end()
            finally:
                self._scrub()

    def _scrub(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for cgroup in self._cgroup_directories():
            for pid in _pids(cgroup):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if (self.root / "wherry.db").exists():
            db = Database(self.root / "wherry.db", MIGRATIONS)
            manager = NetworkManager(db=db, run=self.run, instance=instance_of(self.root))
            manager.start()
            manager.teardown_all()
            db.close()
        for mount in reversed(self._mounts()):
            subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL, timeout=TIMEOUT)
        for cgroup in reversed(self._cgroup_directories()):
            with contextlib.suppress(OSError):
                wait_until(lambda c=cgroup: not _pids(c), timeout=patiently(2))
                cgroup.rmdir()
        shutil.rmtree(self.base, ignore_errors=True)

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
            timeout=timeout,
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
            timeout=timeout,
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
        primary, secondary = pty.openpty()
        try:
            process = subprocess.Popen(
                [DOCKER, *arguments],
                stdin=secondary,
                stdout=secondary,
                stderr=secondary,
                env=self.environment,
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
            os.close(secondary)
            secondary = -1
            try:
                yield Terminal(process, primary)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
        finally:
            os.close(primary)
            if secondary >= 0:
                os.close(secondary)

    @contextlib.contextmanager
    def sdk(self, **options: Any) -> Iterator[Any]:
        import docker

        client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=TIMEOUT, **options)
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
                if needle in words and b"wherry.daemon" not in words and b"wherryd" not in words:
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
        found = {f"mount {point}" for point in self._mounts() if point != f"{self.run}/netns"}
        found |= {f"process {pid}: {_command(pid)}" for pid in self.processes()}
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
        found |= {f"link {name}" for name in _links(instance)}
        found |= {f"nft {element}" for element in _elements(instance.table)}
        return found | self._rows() | self._descriptors()

    def difference(self, before: set[str]) -> list[str]:
        """What there is now and was not before, or the other way round. A descriptor that was only passing
        when ``before`` was taken may be gone."""
        now = self.traces()
        counts = {
            t.rpartition(" ")[0]: int(t.rpartition(" ")[2]) for t in before if t.startswith("descriptors")
        }
        left = []
        for trace in now - before:
            kind, _, count = trace.rpartition(" ")
            if not trace.startswith("descriptors") or int(count) > counts.get(kind, 0):
                left.append(f"left behind: {trace}")
        lost = [f"lost: {t}" for t in before - now if not t.startswith("descriptors")]
        return sorted(left) + sorted(lost)

    def _rows(self) -> set[str]:
        with contextlib.closing(sqlite3.connect(f"file:{self.root}/wherry.db?mode=ro", uri=True)) as db:
            return {
                f"row {table} {[v for v in row if not isinstance(v, bytes)]}"
                for table in _TABLES
                for row in db.execute(f"SELECT * FROM {table}")
            }

    def _descriptors(self) -> set[str]:
        """How many descriptors of the kinds that watch and carry the daemon holds."""
        counts: dict[str, int] = {}
        if self.process is None:
            return set()
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                kind = os.readlink(entry).partition(":")[0]
                if kind in ("pipe", "anon_inode") or kind.startswith("/proc/"):
                    target = os.readlink(entry) if kind == "anon_inode" else kind
                    counts[target] = counts.get(target, 0) + 1
        return {f"descriptors {kind} {count}" for kind, count in counts.items()}


class Terminal:
    """The far end of a terminal some program runs on."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process, self.fd = process, fd
        self.seen = b""

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def expect(self, text: bytes, timeout: float = TIMEOUT) -> bytes:
        """Read until ``text`` appears; return what came up to its end."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.seen!r}"
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                chunk = b""
            assert chunk, f"the terminal ended before {text!r}: {self.seen!r}"
            self.seen += chunk
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def resize(self, rows: int, columns: int) -> None:
        import struct
        import termios

        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.killpg(self.process.pid, signal.SIGWINCH)

    def wait(self) -> int:
        """The program's exit status. What it still prints is read meanwhile."""
        while self.process.poll() is None:
            ready, _, _ = select.select([self.fd], [], [], 0.02)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.fd, 65536)
        return self.process.returncode


def _take_terminal() -> None:
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def new_base() -> Path:
    """A short directory on the disk that holds temporary files."""
    return Path(tempfile.mkdtemp(prefix="wh"))


def _pids(cgroup: Path) -> list[int]:
    try:
        return [int(p) for p in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return ""


def _links(instance: Instance) -> list[str]:
    names = []
    for entry in Path("/sys/class/net").iterdir():
        with contextlib.suppress(OSError):
            if (entry / "ifalias").read_text().startswith(instance.alias_prefix):
                names.append(entry.name)
    return names


def _elements(table: str) -> set[str]:
    result = subprocess.run(
        ["nft", "-j", "list", "table", "inet", table], capture_output=True, timeout=TIMEOUT, check=False
    )
    if result.returncode:
        return set()
    found = set()
    for item in json.loads(result.stdout)["nftables"]:
        for kind in ("set", "map"):
            for element in item.get(kind, {}).get("elem", ()):
                found.add(f"{item[kind]['name']} {json.dumps(element, sort_keys=True)}")
    return found
