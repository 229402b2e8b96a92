"""Requests that are nearly right, and answers from elsewhere that lead where nobody should go."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from buildlab import archive, built, cat, error, post, stream, web, write
from daemonlab import TIMEOUT, LabDaemon, wait_until

pytestmark = pytest.mark.kernel

METADATA = "http://169.254.169.254/latest/meta-data"


@contextmanager
def quiet_log(daemon: LabDaemon) -> Iterator[None]:
    before = len(daemon.log)
    yield
    assert "Traceback" not in daemon.log[before:]


def raw(daemon: LabDaemon, request: str) -> bytes:
    """The whole answer, to the end of the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(daemon.socket))
        connection.sendall(request.replace("\n", "\r\n").encode())
        data = b""
        while piece := connection.recv(65536):
            data += piece
        return data


# ---- files that nobody may open ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/proc/1/root", "/proc/1/root/etc", "/proc/1/cwd", "/proc/1/fd/0", "/proc/1/ns/net"]
)
def test_what_the_kernel_forbids_is_forbidden(daemon: LabDaemon, name: str, path: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("f"))
    with quiet_log(daemon):
        for method, body in (("HEAD", None), ("GET", None), ("PUT", packed.getvalue())):
            answer = daemon.api(method, f"/containers/{name}/archive", body, path=path)
            assert answer.status == 403, (method, answer.body)
        done = daemon.docker("cp", f"{name}:{path}", "-")
        assert done.code != 0 and "ermission denied" in done.errors


# ---- handshakes and protocols ------------------------------------------------------------------------------

_KEY = base64.b64encode(bytes(range(16))).decode()


@pytest.mark.parametrize(
    "head",
    [
        f"Sec-WebSocket-Key: {_KEY}\nSec-WebSocket-Version: 12",
        f"Sec-WebSocket-Key: {_KEY}\nSec-WebSocket-Version: x",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Key: short\nSec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: \nSec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: ?????????????????????===\nSec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 13",
    ],
)
@pytest.mark.parametrize("upgrade", ["Upgrade: websocket\nConnection: Upgrade", "Connection: close"])
def test_handshakes_that_are_none(daemon: LabDaemon, name: str, head: str, upgrade: str) -> None:
    """Refused, and nothing stays attached to the container."""
    daemon.docker("run", "-di", "--name", name, "busybox", "cat").ok()
    with quiet_log(daemon):
        for version in ("1.1", "1.0"):
            line = f"GET /containers/{name}/attach/ws?stream=1&stdin=1 HTTP/{version}"
            answer = raw(daemon, f"{line}\nHost: x\n{upgrade}\n{head}\n\n")
            assert b" 400 " in answer.splitlines()[0], answer[:300]
            assert b"WebSocket handshake" in answer
    sockets = subprocess.run(["ss", "-x"], capture_output=True, text=True, check=False).stdout
    assert sum(f"{name}/attach" in line for line in sockets.splitlines()) == 0


def test_a_handshake_over_http_1_0(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-di", "--name", name, "busybox", "cat").ok()
    with quiet_log(daemon):
        answer = raw(
            daemon,
            f"GET /containers/{name}/attach/ws?stream=1 HTTP/1.0\nUpgrade: websocket\nConnection: Upgrade\n"
            f"Sec-WebSocket-Key: {_KEY}\nSec-WebSocket-Version: 13\n\n",
        )
    assert b" 400 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/events?since=1&until=2", b""),
        ("/containers/{}/logs?stdout=1", b"printed"),
        ("/containers/{}/stats?stream=0", b'"cpu_stats"'),
        ("/containers/{}/export", b"ustar"),
        ("/containers/{}/archive?path=/etc/passwd", b"ustar"),
        ("/images/busybox/get", b"manifest.json"),
        ("/images/get?names=busybox", b"manifest.json"),
        ("/volumes/{}/export", b""),
        ("/info", b'"ID"'),
        ("/_ping", b"OK"),
    ],
)
def test_streams_over_http_1_0(daemon: LabDaemon, name: str, path: str, expected: bytes) -> None:
    """No chunks, which that protocol does not know: the answer ends with the connection."""
    daemon.docker(
        "run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sh", "-c", "echo printed; sleep 1000"
    ).ok()
    wait_until(lambda: "printed" in daemon.docker("logs", name).out)
    with quiet_log(daemon):
        answer = raw(daemon, f"GET {path.replace('{}', name)} HTTP/1.0\nHost: x\n\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0].split()[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert expected in body


def test_progress_over_http_1_0(daemon: LabDaemon) -> None:
    body = archive({"Dockerfile": "FROM busybox\nRUN echo hello\n"})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(daemon.socket))
        head = (
            f"POST /build HTTP/1.0\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    lines = [json.loads(line) for line in data.partition(b"\r\n\r\n")[2].splitlines()]
    assert any("hello" in line.get("stream", "") for line in lines)


def test_a_connection_after_an_upgrade_that_was_none(daemon: LabDaemon) -> None:
    """It is closed: what comes next on it would never be read."""
    for path in ("/info", "/_ping", "/nothing", "/containers/nothing/json"):
        for kind in ("tcp", "websocket", "h2c"):
            answer = raw(daemon, f"GET {path} HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: {kind}\n\n")
            assert answer.startswith(b"HTTP/1.1 "), (path, kind)


# ---- addresses ---------------------------------------------------------------------------------------------


def test_a_build_is_led_to_no_metadata(daemon: LabDaemon, tmp_path: Path) -> None:
    with web(tmp_path, redirect=METADATA) as url:
        for source in (
            f"{url}/redirect",
            METADATA,
            "http://[fe80::1]/x",
            "http://[::ffff:169.254.169.254]/x",
        ):
            for answer in (
                post(daemon, archive({"Dockerfile": f"FROM busybox\nADD {source} /x\n"})),
                post(daemon, b"", remote=source),
                post(
                    daemon,
                    archive({"Dockerfile": "FROM busybox\nCOPY --from=c / /x\n"}),
                    contexts={"c": {"kind": "http", "value": source}},
                ),
            ):
                assert "link-local or metadata address" in error(answer)


def test_a_repository_is_led_to_no_metadata(daemon: LabDaemon, tmp_path: Path) -> None:
    with web(tmp_path, redirect=METADATA) as url:
        addresses = (
            f"{url}/redirect/r.git", "http://169.254.169.254/r.git", "git://169.254.169.254/r.git",
            "ssh://git@169.254.169.254/r.git", "git@169.254.169.254:r.git",
        )  # fmt: skip
        for source in addresses:
            answer = post(daemon, archive({"Dockerfile": f"FROM busybox\nADD {source} /x\n"}))
            assert "link-local or metadata address" in error(answer), source
        assert "link-local or metadata address" in error(post(daemon, b"", remote=f"{url}/redirect/r.git"))


def test_a_repository_that_has_moved(daemon: LabDaemon, tmp_path: Path) -> None:
    """Redirects of a repository are followed where they may lead."""
    work, served = write(tmp_path / "work", {"f": "moved"}), tmp_path / "served"
    git = ("git", "-C", str(work), "-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(served / "r.git")], check=True)
    subprocess.run(["git", "-C", str(served / "r.git"), "update-server-info"], check=True)
    with web(served) as url, web(served, redirect=f"{url}/r.git/info/refs?service=git-upload-pack") as before:
        text = f"FROM busybox\nADD --keep-git-dir=true {before}/redirect.git /all\n"
        image = built(daemon, write(tmp_path / "context", {"Dockerfile": text}))
        assert cat(daemon, image, "/all/f") == "moved"
        assert f"{before}/redirect.git" in cat(daemon, image, "/all/.git/config")
        assert "Successfully built" not in stream_or_error(daemon, f"{before}/redirect-nowhere/x")


def stream_or_error(daemon: LabDaemon, remote: str) -> str:
    answer = post(daemon, b"", remote=remote)
    return stream(answer) if answer.status == 200 else answer.message


# ---- what the fuzzer found ---------------------------------------------------------------------------------


def test_a_context_is_only_taken_after_its_manifest(daemon: LabDaemon) -> None:
    session = daemon.api("POST", "/build/sessions", {}).json["Id"]
    path = f"/build/sessions/{session}/context"
    with quiet_log(daemon):
        assert daemon.api("POST", path, b"no manifest", name="c", key="abc").status == 400
        assert daemon.api("PUT", path, archive({"f": "x"}), name="c").status == 409
        assert daemon.api("POST", path, b"", name="c", key="abc").json == {"Current": True}
        assert daemon.api("PUT", path, archive({"f": "x"}), name="c").status == 409
    assert daemon.api("DELETE", f"/build/sessions/{session}").status == 204


def test_errors_quote_what_is_no_text(daemon: LabDaemon) -> None:
    with quiet_log(daemon):
        answer = daemon.api("POST", "/networks/x/disconnect", b"{}", headers={"Content-Type": "x/y; a=\xe9"})
    assert answer.status == 400 and "x/y; a=\ufffd" in answer.message
