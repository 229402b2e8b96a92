"""A daemon that is asked everything, rightly and wrongly, from several sides at once.

No request may end in an internal error or a traceback, none may stop the daemon or its loop, and when all is
cleaned up nothing is left. ``FUZZ_SEED`` chooses other requests, ``FUZZ_ONLY`` a single one of them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from daemonlab import LabDaemon, UnixConnection, new_base
from fuzzrequests import Maker, Request
from leaks import no_leak

pytestmark = pytest.mark.kernel

SEED = int(os.environ.get("FUZZ_SEED", "1"))
CLIENTS = 4
READ_MAX, HEAD_TIMEOUT, BODY_TIMEOUT = 1 << 16, 20.0, 1.0
ROUND = 250
"""Requests after which what they use is made anew."""
WAITING = ("/stop", "/restart", "/wait", "/attach", "/start", "/events", "/kill", "?force", "/containers/")
"""Where a request may wait for a container that another one holds, or that does not end."""
GROWTH_MAX = 80 << 20


@pytest.fixture
def target() -> Iterator[LabDaemon]:
    daemon = LabDaemon(new_base())
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


@dataclass
class Tally:
    codes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: Request, code: str, seconds: float, problem: str) -> None:
        with self.lock:
            self.codes[request.operation][code] += 1
            self.slowest[request.operation] = max(self.slowest[request.operation], seconds)
            if problem:
                self.problems.append(f"{problem}: {request}")

    def lines(self, title: str) -> list[str]:
        columns = ("2xx", "3xx", "4xx", "501", "503", "500", "broken")
        found = ["", title, f"{'operation':<52}" + "".join(f"{c:>8}" for c in columns) + f"{'slowest':>10}"]
        total: Counter[str] = Counter()
        for operation, codes in sorted(self.codes.items()):
            total += codes
            found.append(
                f"{operation:<52}"
                + "".join(f"{codes[c] or '':>8}" for c in columns)
                + f"{self.slowest[operation]:>9.2f}s"
            )
        found.append(
            f"{'all ' + str(sum(total.values())):<52}" + "".join(f"{total[c] or '':>8}" for c in columns)
        )
        return found


class Fuzz:
    def __init__(self, daemon: LabDaemon, seed: int) -> None:
        self.daemon, self.tally = daemon, Tally()
        self.names: dict[str, list[str]] = defaultdict(lambda: ["x"])
        self.maker = Maker(seed, self.names)

    def furnish(self) -> None:
        """What requests are about, made where it is not there any more."""
        daemon = self.daemon
        daemon.remove_containers()
        if not daemon.images():
            daemon.bootstrap()
        daemon.docker("tag", next(iter(daemon.images())), "busybox")
        daemon.docker("volume", "create", "fz")
        daemon.docker("network", "create", "--subnet", "198.18.76.0/24", "fz")
        daemon.api("POST", "/secrets/create", {"Name": "fz", "Data": "eA=="})
        script = "trap 'exit 0' TERM INT; while true; do sleep 1000 & wait; done"
        running = daemon.docker(
            "run", "-d", "--name", "fz-run", "-v", "fz:/v", "busybox", "sh", "-c", script
        ).out
        daemon.docker("create", "--name", "fz-new", "busybox", "true")
        exec_id = daemon.api("POST", "/containers/fz-run/exec", {"Cmd": ["true"]})
        snapshot = daemon.api("POST", "/volumes/fz/snapshots", {"Name": "s"})
        session = daemon.api("POST", "/build/sessions", {})
        self.names.update(
            containers=["fz-run", "fz-new", running[:12] or "x", running or "x", "fz-made", "nobody"],
            images=["busybox", "busybox:latest", "fz-image", "127.0.0.1:1/x", "nobody"],
            networks=["fz", "bridge", "host", "none", "fz-made", "nobody"],
            volumes=["fz", "fz-made", "nobody", "s"],
            secrets=["fz", "nobody"],
            exec=[exec_id.json["Id"] if exec_id.status == 201 else "x", "nobody"],
            distribution=["127.0.0.1:1/x"],
            build=[session.json["Id"] if session.status == 201 else "x", "nobody"],
        )
        assert snapshot.status < 500

    def run(self, numbers: range) -> None:
        """All of them, from several clients at once."""
        for start in range(numbers.start, numbers.stop, ROUND):
            self.furnish()
            part = iter(range(start, min(start + ROUND, numbers.stop)))
            lock = threading.Lock()

            def client(part: Iterator[int] = part, lock: threading.Lock = lock) -> None:
                while True:
                    with lock:
                        number = next(part, None)
                    if number is None:
                        return
                    self.one(self.maker.make(number))

            threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert self.daemon.process is not None and self.daemon.process.poll() is None, "the daemon ended"

    def one(self, request: Request) -> None:
        begun = time.monotonic()
        code, problem = self._ask(request)
        self.tally.add(request, code, time.monotonic() - begun, problem)

    def _ask(self, request: Request) -> tuple[str, str]:
        connection = UnixConnection(self.daemon.socket)
        connection.timeout = HEAD_TIMEOUT
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _send(connection, request)
            try:
                answer = connection.getresponse()
            except TimeoutError:
                waits = any(part in request.path for part in WAITING)
                return "broken", "" if waits else f"no answer in {HEAD_TIMEOUT:g} s"
            except (http.client.HTTPException, ConnectionError) as e:
                return "broken", "" if request.method == "BREW" else f"no answer: {e!r}"
            body = b""
            connection.sock.settimeout(BODY_TIMEOUT) if connection.sock else None
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                body = answer.read(READ_MAX)
            return _judged(answer.status, body)
        finally:
            connection.close()


def _send(connection: UnixConnection, request: Request) -> None:
    connection.putrequest(request.method, request.path, skip_accept_encoding=True)
    for key, value in request.headers.items():
        connection.putheader(key, value.encode("latin-1"))
    if request.body is not None:
        connection.putheader("Content-Length", str(len(request.body)))
    connection.endheaders(request.body)


DOCKERS_OWN = (b"timeout waiting for exec session ready",)
"""What Docker answers with 500 as well, in these words."""


def _judged(status: int, body: bytes) -> tuple[str, str]:
    if status == 500 and any(words in body for words in DOCKERS_OWN):
        return "4xx", ""
    if status in (501, 503):
        return str(status), ""
    if status >= 500:
        return "500", f"{status} {body[:300]!r}"
    hidden = re.search(rb'"(?:error|message)": ?"[^"]*(?:internal error|Traceback)[^"]*"', body)
    if hidden:
        return "500", f"within the answer: {hidden[0][:300]!r}"
    return ("4xx" if status >= 400 else "3xx" if status >= 300 else "2xx"), ""


class Watch:
    """Whether the daemon answers others meanwhile: the longest that ``_ping`` took."""

    def __enter__(self) -> Watch:
        self.longest, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._ping)
        self._thread.start()
        return self

    def __init__(self, daemon: LabDaemon) -> None:
        self._daemon = daemon

    def _ping(self) -> None:
        while not self._ended.wait(0.25):
            begun = time.monotonic()
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._daemon.api("GET", "/_ping")
            self.longest = max(self.longest, time.monotonic() - begun)

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()


def resident(daemon: LabDaemon) -> int:
    text = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def fuzz(daemon: LabDaemon, numbers: range, table: list[str]) -> None:
    fuzzing = Fuzz(daemon, SEED)
    for image in daemon.images():  # requests remove it, and it would come back with other numbers
        daemon.api("DELETE", f"/images/{image}?force=1")
    watch, left = Watch(daemon), ""
    try:
        with no_leak(daemon), watch:
            fuzzing.run(numbers)
            daemon.remove_containers()
            for secret in daemon.api("GET", "/secrets").json or []:
                daemon.api("DELETE", f"/secrets/{secret['ID']}")
    except pytest.fail.Exception as e:
        left = str(e)
    table += fuzzing.tally.lines(f"API fuzzing: seed {SEED}, {len(numbers)} requests, {CLIENTS} clients")
    table.append(f"longest _ping {watch.longest:.2f} s, resident {resident(daemon) >> 20} MiB")
    log = daemon.log
    tracebacks = [line[:3000] for line in log.splitlines() if "Traceback" in line]
    problems = [*fuzzing.tally.problems[:40], *tracebacks[:10], *([left] if left else [])]
    assert not problems, "\n".join(problems)
    assert watch.longest < 5


@pytest.mark.patient(240)
def test_requests_of_all_kinds(target: LabDaemon, table: list[str]) -> None:
    fuzz(target, range(500), table)


@pytest.mark.slow
@pytest.mark.fault("API requests made from the definition, valid to hostile", "10,000 requests")
@pytest.mark.patient(3600)
def test_ten_thousand_requests(target: LabDaemon, table: list[str]) -> None:
    before = resident(target)
    fuzz(target, range(500, 10_500), table)
    assert resident(target) - before < GROWTH_MAX


@pytest.mark.skipif("FUZZ_ONLY" not in os.environ, reason="FUZZ_ONLY names no request")
def test_one_request(target: LabDaemon) -> None:
    fuzzing = Fuzz(target, SEED)
    fuzzing.furnish()
    for number in map(int, os.environ.get("FUZZ_ONLY", "").split(",")):
        fuzzing.one(fuzzing.maker.make(number))
    assert fuzzing.tally.problems == [], "\n".join(fuzzing.tally.problems)
    assert "Traceback" not in target.log, target.log[-4000:]


def test_a_request_can_be_made_again() -> None:
    names = {"containers": ["a", "b"]}
    first, second = Maker(SEED, names), Maker(SEED, names)
    assert [str(first.make(n)) for n in range(200)] == [str(second.make(n)) for n in range(200)]
    made = {first.make(n).operation for n in range(4000)}
    assert made == {f"{o['method']} {o['path']}" for o in first.operations}


def test_what_is_an_internal_error() -> None:
    assert _judged(500, b"x")[1] and _judged(502, b"")[1]
    assert _judged(200, b'{"error": "internal error: KeyError: x"}')[1]
    assert not _judged(501, b"")[1] and not _judged(404, b"")[1]
