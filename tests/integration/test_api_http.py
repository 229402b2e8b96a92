"""The API itself: versions, headers, what is missing, and what no client of good will would send."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from daemonlab import TIMEOUT, LabDaemon, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel

PATHS = [
    tuple(line.split())
    for line in (Path(__file__).parent.parent / "data" / "engine_api_paths.txt").read_text().splitlines()
]


# ---- versions and headers --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.40", "1.41", "1.43", "1.51", "1.56"])
def test_versions_that_are_spoken(daemon: LabDaemon, version: str) -> None:
    answer = daemon.api("GET", f"/v{version}/version")
    assert answer.status == 200
    assert (answer.json["ApiVersion"], answer.json["MinAPIVersion"]) == ("1.56", "1.40")


def test_versions_that_are_not(daemon: LabDaemon) -> None:
    old = daemon.api("GET", "/v1.39/info")
    assert (old.status, old.message) == (
        400,
        "client version 1.39 is too old. Minimum supported API version is 1.40, please upgrade your client "
        "to a newer version",
    )
    new = daemon.api("GET", "/v1.99/info")
    assert (new.status, new.message) == (
        400,
        "client version 1.99 is too new. Maximum supported API version is 1.56",
    )
    assert daemon.api("GET", f"/v1.{'9' * 5000}/info").status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(daemon: LabDaemon, method: str) -> None:
    answer = daemon.api(method, "/_ping")
    assert answer.status == 200
    assert answer.body == (b"OK" if method == "GET" else b"")
    expected = {
        "Api-Version": "1.56",
        "Ostype": "linux",
        "Docker-Experimental": "false",
        "Builder-Version": "2",
        "Swarm": "inactive",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
    }
    assert {k: answer.headers[k] for k in expected} == expected
    assert answer.headers["Server"].startswith("wherry/")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_every_path_of_the_reference_is_known(daemon: LabDaemon) -> None:
    """Missing features answer 501 by name; nothing answers as if the path did not exist."""
    missing = []
    for method, path in PATHS:
        if path == "/events":
            continue
        url = path.replace("{id}", "0000").replace("{name}", "nothing")
        answer = daemon.api(method, url, b"" if method in ("POST", "PUT") else None)
        if answer.status == 404 and b"page not found" in answer.body:
            missing.append(f"{method} {path}")
        if answer.status == 501 and method != "HEAD":
            assert "not implemented yet" in answer.message
        assert answer.status != 500, (method, path, answer.body)
    assert missing == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/swarm/init"),
    ],
)
def test_what_is_missing_is_named(daemon: LabDaemon, method: str, path: str) -> None:
    answer = daemon.api(method, path)
    assert answer.status == 501
    assert "not implemented yet" in answer.message


@pytest.mark.parametrize(
    ("method", "path", "code", "words"),
    [
        ("GET", "/swarm", 503, "This node is not a swarm manager."),
        ("POST", "/swarm/update", 503, "This node is not a swarm manager."),
        ("GET", "/nodes", 503, "This node is not a swarm manager."),
        ("GET", "/services", 503, "This node is not a swarm manager."),
        ("POST", "/services/create", 503, "This node is not a swarm manager."),
        ("GET", "/v1.45/tasks/abc", 503, "This node is not a swarm manager."),
        ("GET", "/configs", 503, "This node is not a swarm manager."),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("POST", "/swarm/unlock", 503, "This node is not a swarm manager."),
    ],
)
def test_there_is_no_swarm(daemon: LabDaemon, method: str, path: str, code: int, words: str) -> None:
    answer = daemon.api(method, path, {} if method == "POST" else None)
    assert answer.status == code and answer.message.startswith(words)


def test_the_cli_says_so(daemon: LabDaemon) -> None:
    failed = daemon.docker("node", "ls")
    assert failed.code == 1 and 'Use "docker swarm init" or "docker swarm join"' in failed.errors


def test_what_nobody_knows_is_404(daemon: LabDaemon) -> None:
    for path in ("/", "/nonsense", "/v1.45", "/containers", "/containers/a/b/c/d"):
        answer = daemon.api("GET", path)
        assert (answer.status, answer.message) == (404, "page not found"), path


def test_info_tells_the_truth(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    info = daemon.api("GET", "/info").json
    assert (info["Containers"], info["ContainersRunning"], info["Images"]) == (1, 1, 1)
    assert ["driver-type", "io.containerd.snapshotter.v1"] in info["DriverStatus"]
    assert info["DockerRootDir"] == str(daemon.root)
    assert info["NCPU"] == os.cpu_count()
    assert info["KernelVersion"] == os.uname().release
    assert info["Name"] == socket.gethostname()
    assert info["ServerVersion"] == daemon.api("GET", "/version").json["Version"]


# ---- filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/containers/json", "/images/json", "/volumes", "/networks", "/plugins"])
def test_bad_filters(daemon: LabDaemon, path: str) -> None:
    for filters in ("{", "[]", "1", '{"a":1}', '{"nonsense":["x"]}', '{"label":"x"}', "\0"):
        answer = daemon.api("GET", f"{path}?filters={quote(filters)}&until=1")
        assert answer.status == 400, (filters, answer.body)
        assert "invalid filter" in answer.message


def test_filters_in_both_spellings(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "-l", "a=1", "busybox").ok()
    for spelling in ({"label": ["a=1"]}, {"label": {"a=1": True}}):
        found = daemon.api("GET", "/containers/json", all=1, filters=spelling).json
        assert [c["Names"] for c in found] == [[f"/{name}"]]


@pytest.mark.parametrize("key", ["since", "until"])
def test_absurd_times(daemon: LabDaemon, name: str, key: str) -> None:
    daemon.docker("run", "--name", name, "busybox", "echo", "x").ok()
    for value in ("-5", "1e5", "x", "²", "9" * 5000, "9" * 400 + "h", "1h" * 2000, "9" * 19):
        until = "" if key == "until" else f"&until={time.time():.0f}"
        paths = [f"/containers/{name}/logs?stdout=1&{key}={quote(value)}"]
        if (key, value) != ("until", "9" * 19):  # That one listens until the year 2262.
            paths.append(f"/events?{key}={quote(value)}{until}")
        for path in paths:
            answer = daemon.api("GET", path)
            assert answer.status in (200, 400), (path, answer.body)


# ---- bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"",
        b"\xff\xfe",
        b'{"Image": 5}',
        b'{"Image": "busybox", "Env": "x"}',
        b'{"Image": "busybox", "HostConfig": []}',
        b'{"Image": "busybox", "HostConfig": {"Memory": "1g"}}',
        b'{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": "x"}}}',
        b"[" * 100000,
        b'{"a":' * 100000,
    ],
)
def test_malformed_bodies(daemon: LabDaemon, body: bytes) -> None:
    answer = daemon.api("POST", "/containers/create", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400, answer.body[:200]
    assert answer.message
    assert daemon.containers() == []


def test_unknown_fields_and_nulls_are_ignored(daemon: LabDaemon) -> None:
    body = {"Image": "busybox", "Nonsense": {"a": [1]}, "Env": None, "HostConfig": {"Odd": 1, "Binds": None}}
    assert daemon.api("POST", "/containers/create", body).status == 201


def test_other_content_types_are_refused(daemon: LabDaemon) -> None:
    answer = daemon.api("POST", "/containers/create", b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status == 400
    assert "Content-Type" in answer.message


BIG = 1 << 70


@pytest.mark.parametrize(
    "host",
    [
        {"Memory": BIG},
        {"Memory": -1},
        {"Memory": 1 << 62, "MemorySwap": 1},
        {"NanoCpus": BIG},
        {"NanoCpus": -1},
        {"CpuShares": BIG},
        {"CpuQuota": BIG},
        {"PidsLimit": BIG},
        {"ShmSize": BIG},
        {"OomScoreAdj": 5000},
        {"MemorySwappiness": 500},
        {"Ulimits": [{"Name": "nofile", "Soft": BIG, "Hard": BIG}]},
        {"Ulimits": [{"Name": "bogus", "Soft": 1, "Hard": 1}]},
        {"RestartPolicy": {"Name": "sometimes"}},
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
        {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
        {"NetworkMode": "container:nobody"},
        {"NetworkMode": "no-such-network"},
        {"PidMode": "container:nobody"},
        {"IpcMode": "odd"},
        {"Runtime": "none-such"},
        {"Binds": ["::"]},
        {"Binds": ["/a:/b:odd"]},
        {"Binds": ["a:b"]},
        {"Binds": ["../../etc:/x"]},
        {"Tmpfs": {"relative": ""}},
        {"Tmpfs": {"/t": "size=1m,evil=1"}},
        {"PortBindings": {"99999/tcp": [{}]}},
        {"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}},
        {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}},
        {"PortBindings": {"80/icmp": [{}]}},
        {"SecurityOpt": ["bogus=1"]},
        {"SecurityOpt": ["seccomp={"]},
        {"CapAdd": ["CAP_BOGUS"]},
        {"DeviceCgroupRules": ["nonsense"]},
        {"CgroupParent": "../../../etc"},
    ],
)
def test_host_configurations_that_cannot_be(daemon: LabDaemon, host: dict[str, Any]) -> None:
    """Refused at creation, or at the start at the latest, with words and without a trace."""
    answer = daemon.api(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    )
    if answer.status == 201:
        identifier = answer.json["Id"]
        inspect = daemon.api("GET", f"/containers/{identifier}/json")
        assert inspect.status == 200
        answer = daemon.api("POST", f"/containers/{identifier}/start")
    assert 400 <= answer.status < 500, (answer.status, answer.body)
    assert answer.message


@pytest.mark.parametrize(
    "config",
    [
        {"Image": ""},
        {"Image": "UPPER"},
        {"Image": "no-such-image"},
        {"Image": "busybox", "Cmd": ["a\0b"]},
        {"Image": "busybox", "Env": ["=x"]},
        {"Image": "busybox", "Env": ["A=\0"]},
        {"Image": "busybox", "Hostname": "a\nb"},
        {"Image": "busybox", "Hostname": "x" * 65},
        {"Image": "busybox", "WorkingDir": "relative"},
        {"Image": "busybox", "User": "a:b:c\n"},
        {"Image": "busybox", "User": "-1"},
        {"Image": "busybox", "StopSignal": "SIGNOTHING"},
        {"Image": "busybox", "StopTimeout": BIG},
        {"Image": "busybox", "ExposedPorts": {"x": {}}},
        {"Image": "busybox", "Volumes": {"../../etc": {}}},
        {"Image": "busybox", "Labels": {"a": 1}},
    ],
)
def test_configurations_that_cannot_be(daemon: LabDaemon, config: dict[str, Any]) -> None:
    answer = daemon.api("POST", "/containers/create", {"Cmd": ["true"], **config})
    if answer.status == 201:
        answer = daemon.api("POST", f"/containers/{answer.json['Id']}/start")
    assert 400 <= answer.status < 500, (answer.status, answer.body)
    assert answer.message


def test_bad_names(daemon: LabDaemon) -> None:
    for name in ("a", "-ab", "a b", "a\nb", "a\0b", "ä", "a/b", "../etc", "a" * 300 + "!"):
        answer = daemon.api("POST", "/containers/create", {"Image": "busybox"}, name=name)
        assert answer.status == 400, name
        assert "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" in answer.message


def test_names_that_cannot_exist_are_not_found(daemon: LabDaemon) -> None:
    for name in ("a%0Ab", "..", "%00", "a%2Fb", "x" * 5000, "%FF%FE"):
        for path in (f"/containers/{name}/json", f"/volumes/{name}", f"/images/{name}/json"):
            assert daemon.api("GET", path).status in (400, 404), path


# ---- HTTP as an enemy writes it --------------------------------------------------------------------------


def raw(daemon: LabDaemon, data: bytes, *, half_close: bool = False) -> bytes:
    """What comes back to bytes written as they are, until the daemon closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patiently(TIMEOUT))
        connection.connect(str(daemon.socket))
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"GET /info HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100000 + b"\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"\0" * 1000 + b"\r\n\r\n",
    ],
)
def test_broken_requests(daemon: LabDaemon, request_bytes: bytes) -> None:
    answer = raw(daemon, request_bytes, half_close=True)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer[:200]
    assert daemon.api("GET", "/_ping").status == 200


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n{}", b"-1\r\n{}\r\n0\r\n\r\n"]
)
def test_bad_chunks(daemon: LabDaemon, chunk: bytes) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = raw(
        daemon, head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunk, half_close=True
    )
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer[:300]
    assert daemon.containers() == []


def test_a_body_beyond_the_bound(daemon: LabDaemon) -> None:
    body = b'{"Image": "' + b"a" * (9 << 20) + b'"}'
    answer = daemon.api("POST", "/containers/create", body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert "too large" in answer.message


def test_a_body_that_breaks_off(daemon: LabDaemon) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    raw(daemon, head + b'Content-Length: 1000\r\n\r\n{"Image": "busybox"', half_close=True)
    assert daemon.containers() == []
    assert "POST /containers/create failed" not in daemon.log


def test_a_slow_client_keeps_nobody_waiting(daemon: LabDaemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(str(daemon.socket))
        for byte in b"GET /_ping HTTP/1.1\r\nHo":
            slow.sendall(bytes([byte]))
            assert daemon.api("GET", "/_ping").status == 200
        slow.sendall(b"st: x\r\n\r\n")
        slow.settimeout(patiently(TIMEOUT))
        assert slow.recv(15) == b"HTTP/1.1 200 OK"


def test_pipelined_requests(daemon: LabDaemon) -> None:
    one = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(daemon, one * 3 + last).count(b"HTTP/1.1 200 OK") == 4


# ---- clients that leave ----------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", ['{"type":["daemon"]}', "{}"])
def test_a_listener_that_leaves_is_forgotten(daemon: LabDaemon, filters: str) -> None:
    assert daemon.api("GET", "/info").json["NEventsListener"] == 0
    connection = daemon.connection()
    connection.request("GET", f"/events?filters={quote(filters)}")
    response = connection.getresponse()
    assert daemon.api("GET", "/info").json["NEventsListener"] == 1
    response.close()
    connection.close()
    wait_until(lambda: daemon.api("GET", "/info").json["NEventsListener"] == 0)


def test_a_waiter_that_leaves_does_not_disturb(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "1000").ok()
    connection = daemon.connection()
    connection.request("POST", f"/containers/{name}/wait")
    connection.getresponse().close()
    connection.close()
    daemon.docker("kill", name).ok()
    assert daemon.docker("wait", name).ok() == "137"


def test_a_client_that_leaves_does_not_stop_what_it_asked_for(daemon: LabDaemon, name: str) -> None:
    identifier = daemon.api(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"]}, name=name
    ).json["Id"]
    connection = daemon.connection()
    connection.request("POST", f"/containers/{identifier}/start")
    connection.close()
    wait_until(lambda: daemon.state_of(name)["Running"])


# ---- web sockets -----------------------------------------------------------------------------------------


def test_attach_by_web_socket(daemon: LabDaemon, name: str) -> None:
    import websocket

    daemon.docker("run", "-di", "--name", name, "busybox", "cat").ok()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patiently(TIMEOUT))
        connection.connect(str(daemon.socket))
        client = websocket.create_connection(
            f"ws://localhost/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1", socket=connection
        )
        client.send_binary(b"binary\n")
        assert client.recv() == b"binary\n"
        client.send("text\n")
        assert client.recv() == b"text\n"
        daemon.docker("kill", name).ok()
        with pytest.raises(websocket.WebSocketConnectionClosedException):
            client.recv()
            client.recv()


def test_a_web_socket_needs_its_handshake(daemon: LabDaemon, name: str) -> None:
    daemon.docker("create", "--name", name, "busybox").ok()
    assert daemon.api("GET", f"/containers/{name}/attach/ws?stream=1").status == 400
    key = base64.b64encode(b"0" * 16).decode()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": key}
    assert daemon.api("GET", "/containers/nobody/attach/ws", headers=headers).status == 404
    assert json.loads(daemon.api("GET", "/containers/nobody/attach/ws").body)["message"]
