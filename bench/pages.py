"""``python bench/pages.py``: the hub's pages with 100,000 repositories, 10,000 tags in one of them.

Each page is asked for several times in turn with the others; medians of the time of the answer and of the
server's processor time. Every request has another query, so that no answer comes from the pages that are kept
for ten seconds. Aims: search 30 ms, tags 50 ms, a page 10 ms of processor time."""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

WORDS = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec"
    " server client database cache proxy worker build base tool agent"
).split()
_PASSWORD = "a password of the bench"
_PROGRAM = (sys.executable, "-m", "wherry.hub.cli.main")
_IMAGE = "application/vnd.oci.image.manifest.v1+json"
PAGES = {
    "front page": "/",
    "search, one word": "/search?q=database",
    "search, three words": "/search?q=database+cache+alpha",
    "search, a rare word": "/search?q=99999",
    "search, filters": "/search?q=server&arch=arm64&within=30",
    "search, by update": "/search?sort=updated",
    "a repository": "/r/space0/manytags",
    "its tags": "/r/space0/manytags/-/tags",
    "its tags, filtered": "/r/space0/manytags/-/tags?q=99",
    "its tags, far on": "/r/space0/manytags/-/tags?page=390",
    "a tag": "/r/space0/manytags/-/tag/build-5",
    "a namespace": "/n/space7",
    "a feed": "/r/space0/manytags/-/feed.atom",
    "a badge": "/r/space0/manytags/-/badge/pulls.svg",
}


def fill(path: Path, repositories: int, tags: int) -> None:
    """Rows as pushes leave them, without content."""
    random.seed(7)
    moment = int(time.time())
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    spaces = [
        db.execute("INSERT INTO namespace (name, created) VALUES (?, ?)", (f"space{n}", moment)).lastrowid
        for n in range(2000)
    ]
    for number in range(repositories):
        space = random.randrange(len(spaces))
        text = " ".join(random.choice(WORDS) for _ in range(12)) if number % 3 == 0 else ""
        name = f"space{space}/{random.choice(WORDS)}-{random.choice(WORDS)}-{number}"
        db.execute(
            "INSERT INTO repository (namespace_id, name, public, description, created, pushed, pulls, stars,"
            " platforms, recent_pulls) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                spaces[space], name, random.random() < 0.8, text, moment - random.randrange(10**7),
                moment - random.randrange(10**7), int(random.paretovariate(1) * 10), random.randrange(50),
                " linux/amd64 linux/arm64 " if number % 2 else " linux/amd64 ", number % 50 == 0,
            ),
        )  # fmt: skip
    crowded = db.execute(
        "INSERT INTO repository (namespace_id, name, public, created, pushed) VALUES (?, ?, TRUE, ?, ?)",
        (spaces[0], "space0/manytags", moment, moment),
    ).lastrowid
    for number in range(tags):
        manifest = db.execute(
            "INSERT INTO manifest (repository_id, digest, media_type, artifact_type, size, total_size, body,"
            " created) VALUES (?, ?, ?, ?, 500, 5000000, ?, ?)",
            (crowded, f"sha256:{number:064x}", _IMAGE, "", b'{"schemaVersion":2,"layers":[]}', moment),
        ).lastrowid
        db.execute("INSERT INTO image_fact VALUES (?, 'linux', 'amd64', '')", (manifest,))
        db.execute(
            "INSERT INTO tag (repository_id, name, manifest_id, updated) VALUES (?, ?, ?, ?)",
            (crowded, f"build-{number}", manifest, moment - number),
        )
    db.execute("COMMIT")
    db.execute("ANALYZE")
    db.close()


class Client:
    """One connection, with the cookies of somebody who is logged in or without."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        body = urlencode(form) if form is not None else None
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        for line in answer.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, answer.read().decode()

    def log_in(self, name: str) -> None:
        _, page = self.ask("GET", "/account/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token is not None
        form = {"csrfmiddlewaretoken": token[1], "login": name, "password": _PASSWORD}
        status, _ = self.ask("POST", "/account/login/", form)
        assert status == 302, status


def processor(process: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> float:
    """PSS in MB."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def measure(client: Client, process: int, rounds: int, times: int) -> None:
    walls: dict[str, list[float]] = {name: [] for name in PAGES}
    costs: dict[str, float] = dict.fromkeys(PAGES, 0.0)
    for number in range(rounds):
        for name, path in PAGES.items():
            before = processor(process)
            for repeat in range(times):
                mark = f"{'&' if '?' in path else '?'}unlike={number}-{repeat}"
                began = time.perf_counter()
                status, _ = client.ask("GET", path + mark)
                walls[name].append((time.perf_counter() - began) * 1e3)
                assert status == 200, (path, status)
            costs[name] += processor(process) - before
    for name in PAGES:
        ordered = sorted(walls[name])
        middle, late = statistics.median(ordered), ordered[len(ordered) * 95 // 100]
        cost = costs[name] * 1e3 / len(ordered)
        print(f"  {name:22} median {middle:7.1f} ms   p95 {late:7.1f} ms   processor {cost:6.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--tags", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="whb") as root:
        add = [*_PROGRAM, "account", "add", "bench", "--password-stdin", "--root", root]
        subprocess.run(add, input=_PASSWORD.encode(), check=True, stdout=subprocess.DEVNULL)
        fill(Path(root) / "hub.db", given.repositories, given.tags)
        serve = [*_PROGRAM, "serve", "--root", root, "--listen", "127.0.0.1:0", "--role", "registry,web"]
        server = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.search(r"127\.0\.0\.1:([0-9]+).* after ([0-9]+) ms", line)
            assert found is not None, line
            print(f"start: {found[2]} ms to the first answer; {memory(server.pid):.0f} MB before any page")
            client = Client(int(found[1]))
            print(f"not logged in ({given.repositories} repositories, {given.tags} tags):")
            measure(client, server.pid, given.rounds, given.times)
            client.log_in("bench")
            print("logged in:")
            measure(client, server.pid, given.rounds, given.times)
            print(f"{memory(server.pid):.0f} MB afterwards; load {os.getloadavg()[0]:.1f}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


if __name__ == "__main__":
    main()
