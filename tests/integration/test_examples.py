"""The examples as their READMEs say: built, run, used. They install packages from the indexes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from daemonlab import LabDaemon, wait_until
from patience import patiently

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

pytestmark = [pytest.mark.slow, pytest.mark.patient(900)]


def build(daemon: LabDaemon, tag: str, example: str, *arguments: str) -> None:
    secret = ("--secret", f"id=ca,src={BUNDLE}") if BUNDLE.exists() else ()
    context = str(EXAMPLES / example)
    daemon.wherry("build", "-q", "-t", tag, *secret, *arguments, context, timeout=300).ok()


def bootstrap(daemon: LabDaemon, image: str) -> None:
    daemon.wherry("image", "bootstrap", image, timeout=500).ok()


def ask(url: str, body: Any = None) -> str:
    """An answer, once there is one."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})

    def once() -> str | None:
        try:
            with _direct.open(request, timeout=patiently(5)) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return None

    answered: str = wait_until(once, f"{url} answers", timeout=60)
    return answered


def port_of(daemon: LabDaemon, container: str, port: int) -> str:
    return daemon.docker("port", container, str(port)).ok().splitlines()[0]


def test_flask(fresh_daemon: LabDaemon) -> None:
    daemon = fresh_daemon
    bootstrap(daemon, "python:3.11-slim")
    build(daemon, "board", "flask")
    daemon.docker("run", "-d", "--name", "board", "-p", "127.0.0.1::5000", "board").ok()
    page = ask(f"http://{port_of(daemon, 'board', 5000)}/")
    assert "Served by Flask in a wherry container" in page
    build(daemon, "board", "flask")
    steps = daemon.api("GET", "/build/history").json[0]["Steps"]
    assert not [s for s in steps if s["Status"] == "done" and "] RUN" in s["Name"]]


def test_mern_as_a_compose_file(fresh_daemon: LabDaemon, tmp_path: Path) -> None:
    daemon = fresh_daemon
    bootstrap(daemon, "node:18-slim")
    bootstrap(daemon, "debian:bookworm-slim")
    (tmp_path / "env").write_text("PORT=0\n")
    file = EXAMPLES / "mern" / "compose.yaml"
    compose = ("compose", "-f", str(file), "-p", "mern", "--env-file", str(tmp_path / "env"))
    daemon.wherry(*compose, "up", "-d", "--wait", timeout=600).ok()
    url = f"http://{port_of(daemon, 'mern-tasks-1', 8000)}"
    ask(f"{url}/api/tasks", {"title": "write a test"})
    assert json.loads(ask(f"{url}/api/tasks"))[0]["title"] == "write a test"
    daemon.wherry(*compose, "down", "-v", timeout=60).ok()


def test_mern(fresh_daemon: LabDaemon) -> None:
    daemon = fresh_daemon
    bootstrap(daemon, "node:18-slim")
    bootstrap(daemon, "debian:bookworm-slim")
    build(daemon, "tasks-database", "mern", "--target", "database")
    build(daemon, "tasks", "mern")
    daemon.docker("network", "create", "tasks").ok()
    daemon.docker("run", "-d", "--name", "database", "--network", "tasks", "tasks-database").ok()
    daemon.docker("run", "-d", "--name", "tasks", "--network", "tasks", "-p", "127.0.0.1::8000", "tasks").ok()
    url = f"http://{port_of(daemon, 'tasks', 8000)}"
    assert json.loads(ask(f"{url}/api/tasks")) == []
    ask(f"{url}/api/tasks", {"title": "write a test"})
    assert json.loads(ask(f"{url}/api/tasks"))[0]["title"] == "write a test"
    assert '<div id="root">' in ask(f"{url}/") and len(ask(f"{url}/main.js")) > 100_000
