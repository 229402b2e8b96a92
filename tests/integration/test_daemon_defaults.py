"""Options of the daemon as containers and clients see them, and its end while a registry keeps it waiting."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from daemonlab import LabDaemon, new_base, wait_until
from patience import patiently

pytestmark = pytest.mark.kernel


@pytest.fixture
def configured() -> Iterator[LabDaemon]:
    daemon = LabDaemon(
        new_base(),
        *(
            "--default-shm-size",
            "32m",
            "--default-ipc-mode",
            "shareable",
            "--init",
            "--default-ulimit=nofile=123:456",
        ),
        *("--registry-mirror", "https://mirror.example", "--insecure-registry", "reg.example:5000"),
        *(
            "--insecure-registry",
            "10.1.0.0/16",
            "--http-proxy",
            "http://proxy.example:3128",
            "--no-proxy",
            "a,b",
        ),
    )
    (daemon.base / "daemon.json").write_text("")
    try:
        daemon.start()
        daemon.bootstrap()
        yield daemon
    finally:
        daemon.destroy()


def test_defaults_of_containers(configured: LabDaemon) -> None:
    script = "df -k /dev/shm | tail -1; ulimit -n; readlink /proc/1/exe"
    shown = configured.docker("run", "--rm", "busybox", "sh", "-c", script).ok().split()
    assert shown[1] == "32768" and "123" in shown and shown[-1] != "/bin/sh"
    plain = configured.docker("run", "--rm", "--init=false", "--shm-size=16m", "busybox", "sh", "-c", script)
    assert plain.ok().split()[1] == "16384" and plain.ok().split()[-1] == "/bin/sh"
    box = configured.docker("create", "busybox").ok()
    assert configured.api("GET", f"/containers/{box}/json").json["HostConfig"]["IpcMode"] == "shareable"


def test_info_tells_of_registries(configured: LabDaemon) -> None:
    info = configured.api("GET", "/info").json
    config = info["RegistryConfig"]
    assert config["Mirrors"] == ["https://mirror.example/"]
    assert config["InsecureRegistryCIDRs"] == ["10.1.0.0/16", "127.0.0.0/8", "::1/128"]
    assert config["IndexConfigs"]["reg.example:5000"] == {
        "Name": "reg.example:5000", "Mirrors": [], "Secure": False, "Official": False,
    }  # fmt: skip
    assert config["IndexConfigs"]["docker.io"]["Official"] is True
    assert (info["HttpProxy"], info["NoProxy"]) == ("http://proxy.example:3128", "a,b")
    shown = configured.docker("info").ok()
    assert "https://mirror.example/" in shown and "reg.example:5000" in shown


class _Busy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked = True  # type: ignore[attr-defined]
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_arguments: object) -> None:
        pass


def test_the_daemon_ends_while_a_registry_keeps_a_pull_waiting(fresh_daemon: LabDaemon) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Busy)
    server.asked = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        image = f"127.0.0.1:{server.server_address[1]}/some/image:1"
        with fresh_daemon.docker_process("pull", image):
            wait_until(lambda: server.asked)  # type: ignore[attr-defined]
            began = time.monotonic()
            assert fresh_daemon.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < patiently(10)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    fresh_daemon.start()
    assert json.loads(fresh_daemon.api("GET", "/_ping").body == b"OK" and "true")
