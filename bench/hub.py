"""``python bench/hub.py``: wherry-hub beside Debian's docker-registry, in turn, on the same blobs.

Ours has authentication, a database and counters; docker-registry has none of them, as that is how it is run
where nothing is around it. The client costs as little as it can: what is pulled the kernel drops, what is
pushed goes from the page cache. Medians of all rounds, the ratio of medians, processor time of the server
alone, and its memory (PSS). Docker-registry's package is docker-registry.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_DROP = 1 << 20
_ACCOUNT, _PASSWORD = "bench", "a password of the bench"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Server:
    """One of the two, serving."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    authorization: str = ""
    tokens: list[str] = field(default_factory=list)

    def processor(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """PSS in MB."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0


class Connection:
    """HTTP as plain as it goes, on one connection that stays."""

    def __init__(self, server: Server) -> None:
        self._server, self._drop = server, bytearray(_DROP)
        self._socket = socket.create_connection(("127.0.0.1", server.port), 120)
        self._socket.settimeout(None)  # with one, sendfile would not wait
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def head(self, method: str, path: str, length: int | None = None, authorization: str = "") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Accept: {MANIFEST}"]
        if authorization := authorization or self._server.authorization:
            lines.append(f"Authorization: {authorization}")
        if length is not None:
            lines += [f"Content-Length: {length}", f"Content-Type: {MANIFEST}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def ask(self, request: bytes, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        self._socket.sendall(request + body)
        return self.answer()

    def answer(self, drop: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body; a body that is dropped is never copied to us."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the server has gone")
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        left = int(headers.get("content-length", "0")) - len(rest)
        while left > 0:
            if drop:
                left -= self._socket.recv_into(self._drop, min(left, _DROP), socket.MSG_TRUNC)
            else:
                piece = self._socket.recv(left)
                rest, left = rest + piece, left - len(piece)
        return int(lines[0].split()[1]), headers, rest

    def pull(self, path: str) -> None:
        self._socket.sendall(self.head("GET", path))
        status, _, _ = self.answer(drop=True)
        assert status == 200, status

    def push(self, repository: str, file: int, size: int, digest: str) -> None:
        status, headers, body = self.ask(self.head("POST", f"/v2/{repository}/blobs/uploads/", 0))
        assert status == 202, body
        place = (
            headers["location"].partition("//")[2].partition("/")[2] if "//" in headers["location"] else ""
        )
        place = f"/{place}" if place else headers["location"]
        join = "&" if "?" in place else "?"
        self._socket.sendall(self.head("PUT", f"{place}{join}digest={digest}", size))
        offset = 0
        while offset < size:
            offset += os.sendfile(self._socket.fileno(), file, offset, size - offset)
        status, _, body = self.answer()
        assert status == 201, body


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: Server) -> Server:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
            return server
        time.sleep(0.05)
    sys.exit(f"bench: {server.name} does not come up")


def docker_registry(base: Path) -> Server:
    port = free_port()
    config = base / "registry.json"
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(base / "registry")},
                    "cache": {"blobdescriptor": "inmemory"},
                },
                "http": {"addr": f"127.0.0.1:{port}"},
            }
        )
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
    )
    return _wait(Server("docker-registry", port, process))


def wherry_hub(base: Path, role: str = "registry,worker") -> Server:
    port, root = free_port(), base / "hub"
    program = [sys.executable, "-m", "wherry.hub.cli.main"]
    add = [*program, "account", "add", _ACCOUNT, "--admin", "--password-stdin", "--root", str(root)]
    if not (root / "hub.db").exists():
        subprocess.run(add, input=_PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(
        [*program, "serve", "--root", str(root), "--listen", f"127.0.0.1:{port}", "--role", role],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    server = _wait(Server("wherry-hub", port, process))
    server.authorization = f"Bearer {token(server)}"
    return server


def token(server: Server) -> str:
    connection = Connection(server)
    basic = "Basic " + base64.b64encode(f"{_ACCOUNT}:{_PASSWORD}".encode()).decode()
    scope = "repository:bench/image:pull,push"
    status, _, body = connection.ask(
        connection.head("GET", f"/token?service=wherry-hub&scope={scope}", authorization=basic)
    )
    connection.close()
    assert status == 200, body
    made: str = json.loads(body)["token"]
    return made


def renew(server: Server) -> None:
    """Tokens count for five minutes, and a round may take longer."""
    if server.authorization:
        server.authorization = f"Bearer {token(server)}"


def together(count: int, work: Callable[[int], None]) -> float:
    """Seconds until all have done theirs."""
    wrong: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if wrong:
        raise wrong[0]
    return seconds


@dataclass
class Measured:
    """Of one case: a number a round for each server, and how much of the processor it took."""

    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    cost: dict[str, list[float]] = field(default_factory=dict)

    def add(self, server: Server, value: float, cost: float) -> None:
        self.values.setdefault(server.name, []).append(value)
        self.cost.setdefault(server.name, []).append(cost)


class Bench:
    def __init__(self, base: Path, size: int) -> None:
        self.base, self.size = base, size
        self.blobs: list[tuple[Path, str]] = []
        self.rows: dict[str, Measured] = {}

    def make_blob(self) -> tuple[int, str]:
        """A file of new random bytes; its descriptor and digest. Random, so that no server has it already."""
        path = self.base / "blob"
        block = os.urandom(1 << 20)
        hashing = hashlib.sha256()
        with path.open("wb") as file:
            for i in range(self.size >> 20):
                piece = i.to_bytes(8, "big") + block[8:]
                hashing.update(piece)
                file.write(piece)
        descriptor = os.open(path, os.O_RDONLY)
        path.unlink()
        return descriptor, f"sha256:{hashing.hexdigest()}"

    def push(self, server: Server, count: int) -> list[str]:
        renew(server)
        blobs = [self.make_blob() for _ in range(count)]
        connections = [Connection(server) for _ in range(count)]
        before = server.processor()

        def work(i: int) -> None:
            connections[i].push("bench/image", blobs[i][0], self.size, blobs[i][1])

        try:
            seconds = together(count, work)
        finally:
            for descriptor, _ in blobs:
                os.close(descriptor)
            for connection in connections:
                connection.close()
        self._row(f"push {self.size >> 20} MiB, {count} at once", server, seconds, count, before)
        return [digest for _, digest in blobs]

    def pull(self, server: Server, digests: list[str], times: int) -> None:
        renew(server)
        count = len(digests)
        connections = [Connection(server) for _ in range(count)]
        before = server.processor()

        def work(i: int) -> None:
            for _ in range(times):
                connections[i].pull(f"/v2/bench/image/blobs/{digests[i]}")

        try:
            seconds = together(count, work)
        finally:
            for connection in connections:
                connection.close()
        self._row(f"pull {self.size >> 20} MiB, {count} at once", server, seconds, count * times, before)

    def _row(self, name: str, server: Server, seconds: float, count: int, before: float) -> None:
        megabytes = self.size * count / 1e6
        cost = (server.processor() - before) / (megabytes / 1000)
        self.rows.setdefault(name, Measured("MB/s")).add(server, megabytes / seconds, cost)

    def manifests(self, server: Server, name: str, authorizations: list[str], requests: int) -> None:
        """GETs of one manifest on eight connections."""
        renew(server)
        connections = [Connection(server) for _ in range(8)]
        before = server.processor()

        def work(i: int) -> None:
            heads = [
                connections[i].head("GET", "/v2/bench/image/manifests/v1", authorization=one)
                for one in authorizations[i::8] or [server.authorization]
            ]
            for n in range(requests // 8):
                status, _, _ = connections[i].ask(heads[n % len(heads)])
                assert status == 200

        seconds = together(8, work)
        for connection in connections:
            connection.close()
        cost = (server.processor() - before) / requests * 1e6
        self.rows.setdefault(name, Measured("requests/s")).add(server, requests / seconds, cost)


def image(server: Server) -> None:
    """A small image under the tag v1."""
    connection = Connection(server)
    config = b"{}"
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    status, headers, _ = connection.ask(connection.head("POST", "/v2/bench/image/blobs/uploads/", 0))
    assert status == 202
    place = headers["location"].replace("http://bench/", "/")
    join = "&" if "?" in place else "?"
    assert connection.ask(connection.head("PUT", f"{place}{join}digest={digest}", 2), config)[0] == 201
    descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2}
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": []}
    ).encode()
    assert connection.ask(connection.head("PUT", "/v2/bench/image/manifests/v1", len(body)), body)[0] == 201
    connection.close()


def run(options: argparse.Namespace) -> None:
    base = Path(tempfile.mkdtemp(prefix="hub-bench-", dir=options.directory))
    servers: list[Server] = []
    try:
        servers = [docker_registry(base), wherry_hub(base)]
        bench = Bench(base, options.size << 20)
        for server in servers:
            image(server)
        time.sleep(2)
        idle = {server.name: server.memory() for server in servers}
        for round_ in range(options.rounds):
            for server in servers if round_ % 2 == 0 else reversed(servers):
                one = bench.push(server, 1)
                bench.pull(server, one, 8)
                many = bench.push(server, 8)
                bench.pull(server, many, 2)
                bench.manifests(server, "manifest, one token", [], 4000)
            ours = servers[1]
            fresh = [f"Bearer {token(ours)}" for _ in range(400)]
            bench.manifests(ours, "manifest, a new token each", fresh, 400)
            clear(base)
        report(bench, servers, idle)
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait()
        shutil.rmtree(base, ignore_errors=True)


def fill(database: Path, repositories: int, tags: int) -> None:
    """Rows as pushes would have made them: many repositories, and many tags of one image in the first."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        (space,) = db.execute("SELECT namespace_id FROM repository").fetchone()
        (number, manifest) = db.execute("SELECT repository_id, id FROM manifest").fetchone()
        db.executemany(
            "INSERT INTO repository (namespace_id, name, public, created) VALUES (?, ?, FALSE, 0)",
            ((space, f"bench/r{i:06}") for i in range(repositories)),
        )
        db.executemany(
            "INSERT INTO tag (repository_id, name, manifest_id, updated) VALUES (?, ?, ?, 0)",
            ((number, f"t{i:07}", manifest) for i in range(tags)),
        )
        db.commit()


def lists(options: argparse.Namespace) -> None:
    """Pages of lists on a large hub: milliseconds, the median of 50."""
    base = Path(tempfile.mkdtemp(prefix="hub-bench-", dir=options.directory))
    server = wherry_hub(base)
    try:
        image(server)
        fill(base / "hub" / "hub.db", 100_000, 1_000_000)
        connection = Connection(server)
        basic = base64.b64encode(f"{_ACCOUNT}:{_PASSWORD}".encode()).decode()
        for path in (
            "/v2/bench/image/tags/list?n=1000",
            "/v2/bench/image/tags/list?n=1000&last=t0500000",
            "/v2/_catalog?n=1000",
            "/v2/_catalog?n=1000&last=bench/r050000",
            "/v1/search?q=r099",
        ):
            head, times = connection.head("GET", path, authorization=f"Basic {basic}"), list[float]()
            for _ in range(50):
                began = time.perf_counter()
                assert connection.ask(head)[0] == 200
                times.append((time.perf_counter() - began) * 1e3)
            print(f"| `{path}` | {statistics.median(times):.1f} ms |")
        connection.close()
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        shutil.rmtree(base, ignore_errors=True)


def clear(base: Path) -> None:
    """Large objects of the round before, so that the disk does not fill; what is pulled next is new."""
    for path in (*(base / "hub" / "objects").rglob("*"), *(base / "registry").rglob("data")):
        if path.is_file() and path.stat().st_size > 1 << 20:
            path.unlink()


def report(bench: Bench, servers: list[Server], idle: dict[str, float]) -> None:
    theirs, ours = servers
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load {load:.1f} at the end, this bench included\n")
    print("| work | docker-registry | wherry-hub | ratio | their processor | ours |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in bench.rows.items():
        unit = "s/GB" if row.unit == "MB/s" else "µs"
        cells: list[str] = []
        for server in (theirs, ours):
            values = row.values.get(server.name)
            cells.append(f"{statistics.median(values):.0f} {row.unit}" if values else "-")
        both = [statistics.median(row.values[s.name]) for s in servers if s.name in row.values]
        cells.append(f"{both[1] / both[0]:.2f}" if len(both) == 2 else "-")
        for server in (theirs, ours):
            costs = row.cost.get(server.name)
            cells.append(f"{statistics.median(costs):.2f} {unit}" if costs else "-")
        print(f"| {name} | {' | '.join(cells)} |")
    after = {server.name: server.memory() for server in servers}
    for what, memory in (("idle", idle), ("after all of it", after)):
        print(f"| PSS, {what} | {memory[theirs.name]:.0f} MB | {memory[ours.name]:.0f} MB | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=200, metavar="MIB")
    parser.add_argument("--directory", default=None, help="where blobs and objects go")
    parser.add_argument("--lists", action="store_true", help="pages of lists on a large hub, ours alone")
    options = parser.parse_args()
    if options.lists:
        return lists(options)
    if shutil.which("docker-registry") is None:
        sys.exit("bench: docker-registry is not there (package docker-registry)")
    return run(options)


if __name__ == "__main__":
    main()
