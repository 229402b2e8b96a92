"""What the daemon's log says of requests that fail: a user's mistake is no error of the daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from buildkitlab import BuildClient
from daemonlab import LabDaemon

pytestmark = pytest.mark.kernel

_ERROR = re.compile(r"level=error .*room=(?:api|rpc)")


@pytest.mark.parametrize(
    ("path", "words"),
    [("/swarm", "not a swarm manager"), ("/nodes", "not a swarm manager"), ("/tasks/x", "not a swarm")],
)
def test_a_missing_swarm(daemon: LabDaemon, path: str, words: str) -> None:
    before = len(daemon.log)
    answer = daemon.api("GET", path)
    assert (answer.status, words in answer.json["message"]) == (503, True)
    assert _ERROR.findall(daemon.log[before:]) == []


def test_a_port_that_is_taken(daemon: LabDaemon, name: str) -> None:
    daemon.docker("run", "-d", "--name", name, "-p", "127.0.0.1:24190:80", "busybox", "sleep", "60").ok()
    before = len(daemon.log)
    for ports in ("127.0.0.1:24190:81", "127.0.0.1:24190-24190:81"):
        refused = daemon.docker("run", "--rm", "-p", ports, "busybox", "true")
        assert (refused.code, "is already allocated" in refused.errors) == (125, True), refused.errors
    assert _ERROR.findall(daemon.log[before:]) == []


@pytest.mark.parametrize("line", ["RUN exit 3", "NONSENSE", "COPY nosuch /"])
def test_a_dockerfile_that_is_wrong(daemon: LabDaemon, tmp_path: Path, line: str) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
    before = len(daemon.log)
    done = BuildClient(daemon, "new").build(tmp_path)
    assert (done.code, f">>> {line}" in done.errors) == (1, True), done.errors
    assert _ERROR.findall(daemon.log[before:]) == []
