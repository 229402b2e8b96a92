"""What others wrote is shown, and does nothing: no control character of theirs reaches a terminal, and no
line break of theirs makes a line.

A proxy stands between wherry's client and a daemon and puts both into every text of every answer; then every
command that prints what the daemon says is run, to a pipe and to a terminal.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import pty
import re
import select
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buildlab import write
from daemonlab import TIMEOUT, LabDaemon
from patience import patiently

pytestmark = pytest.mark.kernel

PARTS = 6
HOSTILE = "\nFORGED row\x1b]0;title\x07\x1b[2J\r\t\x9b31m\u202eover\u2028\x7f"
ENTRY = "from wherry.cli.main import entry; raise SystemExit(entry())"
_NEEDED = re.compile(
    r"(?i).*(id|ids|digest|need|time|timenano|created|at|due|started|finished|read|preread|key|size|state|"
    r"apiversion|minapiversion|version|os|arch|architecture|ostype|mountpoint|http_?)$"
)
"""What clients go on with: asked for in the next request, computed with, or a choice of a few words."""


def poisoned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        free = key in ("Labels", "Attributes", "Options", "Annotations")
        return {(k + HOSTILE if free else k): poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) and not _NEEDED.fullmatch(key) else value


class Proxy(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, upstream: LabDaemon) -> None:
        self.upstream, self.active = upstream, True
        super().__init__(str(path), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def address_string(self) -> str:
        return "client"

    def log_message(self, *_arguments: object) -> None:
        pass

    def _forward(self) -> None:
        body = self._body()
        connection = self.server.upstream.connection()
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in ("connection", "transfer-encoding")
        }
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kind = answer.headers.get("Content-Type", "")
        if "json" in kind and self.server.active:
            lines = [json.loads(line) for line in data.splitlines() if line]
            data = b"".join(json.dumps(poisoned(line)).encode() + b"\n" for line in lines)
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _forward


@pytest.fixture
def proxy(daemon: LabDaemon) -> Iterator[Proxy]:
    path = daemon.base / "p"
    path.unlink(missing_ok=True)
    server = Proxy(path, daemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def furnished(daemon: LabDaemon, name: str) -> str:
    """Something for every command to show."""
    daemon.docker("network", "create", "--label", "a=b", name).ok()
    daemon.docker("volume", "create", "--label", "a=b", name).ok()
    daemon.wherry("volume", "snapshot", "create", name, "s1").ok()
    daemon.docker("tag", "busybox", f"{name}:one").ok()
    daemon.api("POST", "/secrets/create", {"Name": name, "Data": "eA==", "Labels": {"a": "b"}})
    daemon.docker(
        "run", "-d", "--name", name, "--label", "a=b", "-p", "0:80", "-v", f"{name}:/v", "--network", name,
        "--health-cmd", "true", "busybox", "sh", "-c", "echo x > /new; sleep 1000",
    ).ok()  # fmt: skip
    return name


COMMANDS = """
ps -a
ps -a --no-trunc
ps --format {{.Names}}
ps --format {{.Labels}}
ps -aq
images
images --digests
images -q
network ls
volume ls
volume ls -q
secret ls
secret inspect --pretty N
info
version
system df
system df -v
top N
port N
diff N
history busybox
history --no-trunc busybox
events --since 1 --until NOW
container exec-ls N
logs N
logs --details N
stats --no-stream
stats --no-stream N
volume snapshot ls N
volume du N
volume diff N s1
builder du
builder history
builder inspect
image versions N:one
image diff busybox N:one
wait nothing
rm nothing
start nothing
inspect nothing
system fsck
rename N nothing
update --memory 64m N
image rm nothing
network rm nothing
volume rm nothing
pull 127.0.0.1:1/nothing
create nothing
exec nothing true
kill nothing
commit nothing
search 127.0.0.1:1/x
network prune -f
image prune -f
container prune -f
volume prune -f
builder prune -f
__complete -- stop N
__complete -- rmi busybox
__complete -- network inspect N
"""


def listings(name: str) -> list[list[str]]:
    """Command lines whose output is for people."""
    now = str(int(time.time()))
    return [
        [name if word == "N" else f"{name}:one" if word == "N:one" else now if word == "NOW" else word
         for word in line.strip().split(" ")]
        for line in COMMANDS.strip().splitlines()
    ]  # fmt: skip


def machine(name: str) -> list[list[str]]:
    """Those whose output is for programs, unless it goes to a terminal."""
    now = str(int(time.time()))
    return [
        ["inspect", name],
        ["inspect", "-f", "{{.Name}} {{.Config.Labels}}", name],
        ["inspect", "-f", "{{json .Config}}", name],
        ["image", "inspect", "busybox"],
        ["events", "--since", "1", "--until", now, "--format", "{{.Type}} {{.Actor.Attributes}}"],
        ["events", "--since", "1", "--until", now, "--format", "json"],
        ["info", "--format", "{{.Name}} {{.Warnings}}"],
        ["info", "--format", "json"],
        ["version", "--format", "{{.Server.Platform}}"],
        ["ps", "-a", "--format", "json"],
        ["secret", "inspect", name],
        ["system", "df", "-v", "--format", "json"],
    ]


def run(proxy: Proxy, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code, and both outputs together."""
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "-H", f"unix://{proxy.server_address}", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        timeout=patiently(TIMEOUT * 2), env=proxy.upstream.environment, check=False, cwd=cwd,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape")


def on_terminal(proxy: Proxy, *arguments: str) -> str:
    """What a terminal gets to carry out."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "-H", f"unix://{proxy.server_address}", *arguments],
        stdin=secondary, stdout=secondary, stderr=secondary, env=proxy.upstream.environment,
    )  # fmt: skip
    os.close(secondary)
    out = b""
    try:
        while select.select([primary], [], [], patiently(TIMEOUT))[0]:
            piece = os.read(primary, 65536)
            if not piece:
                break
            out += piece
    except OSError:
        pass  # EIO: nobody has the other end any more
    finally:
        os.close(primary)
        process.wait(patiently(TIMEOUT))
    return out.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def controls(text: str) -> list[str]:
    return re.findall(r"[^\n]*[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028][^\n]*", text)


def bad(text: str) -> list[str]:
    """What may not be there."""
    return controls(text) + re.findall(r"(?m)^FORGED[^\n]*|Traceback[^\n]*", text)


@pytest.mark.parametrize("part", range(PARTS))
def test_what_others_wrote_is_only_shown(proxy: Proxy, furnished: str, part: int) -> None:
    problems, silent = {}, []
    for arguments in listings(furnished)[part::PARTS]:
        code, out = run(proxy, *arguments)
        if bad(out):
            problems[" ".join(arguments)] = (code, bad(out)[:3])
        if "FORGED" not in out:
            silent.append(" ".join(arguments))
    assert problems == {}
    # Not the test's own failure to reach them.
    assert len(silent) < 8, silent


def test_formats_are_only_changed_on_a_terminal(proxy: Proxy, furnished: str) -> None:
    for arguments in machine(furnished):
        code, out = run(proxy, *arguments)
        assert code == 0, (arguments, out)
        if "json" in arguments or (arguments[0] in ("inspect", "secret") and "-f" not in arguments):
            for line in out.splitlines() if "events" in arguments else [out]:
                json.loads(line.split("\n{")[0] if arguments[0] == "ps" else line)
        assert controls(on_terminal(proxy, *arguments)) == [], arguments
    plain = run(proxy, "inspect", "-f", "{{.Name}}", furnished)[1]
    assert plain == f"/{furnished}{HOSTILE}\n"


def test_a_build_shows_what_it_is_told(proxy: Proxy, furnished: str, tmp_path: Path) -> None:
    context = write(
        tmp_path, {"Dockerfile": "FROM busybox\nLABEL a=b\nRUN echo hi; printf '\\033[31m'\nRUN exit 3\n"}
    )
    code, out = run(proxy, "build", "--progress=plain", str(context))
    assert code != 0 and "FORGED" in out
    lines, _, _error = out.partition("\nERROR: ")  # whose text has lines of its own: what the Dockerfile says
    assert bad(lines) == controls(out) == []
    for call in ("--call=check", "--call=outline", "--call=targets"):
        assert bad(run(proxy, "build", call, str(context))[1]) == []


def test_a_label_cannot_forge_an_event(daemon: LabDaemon, name: str) -> None:
    """As it happens without any proxy."""
    forged = "2026-01-01T00:00:00.000000000Z container start evil (name=evil)"
    since = str(time.time())
    daemon.docker("create", "--name", name, "--label", f"x=y)\n{forged}\x1b[2J", "busybox", "true").ok()
    out = daemon.wherry("events", "--since", since, "--until", str(time.time() + 0.1)).ok()
    assert not any(line.startswith(forged) for line in out.splitlines())
    assert f"\\n{forged}\\x1b[2J" in out
    assert len(out.splitlines()) == 1


def test_the_daemons_log_is_one_line_an_event(daemon: LabDaemon) -> None:
    before = len(daemon.log)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(daemon.socket))
        path = b"/containers/%0alevel=error%20msg=forged%1b%5b2J%c2%9b31m/start?x=%0a"
        raw.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status == 404
    daemon.api("POST", "/images/create", fromImage="127.0.0.1:1/x%0alevel")
    log = daemon.log[before:]
    assert not any(line.startswith("level=") for line in log.splitlines())
    assert bad(log) == []
