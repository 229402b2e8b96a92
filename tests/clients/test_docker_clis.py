"""The docker CLI of today and Debian 12's (API 1.41): the commands people type, on the same daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clientlab import call, content, fetched, lab_daemon
from daemonlab import DOCKER, Done, LabDaemon, wait_until
from patience import patiently

pytestmark = [pytest.mark.kernel, pytest.mark.patient(120)]
CLIENTS = ("28", "20.10")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    with lab_daemon() as daemon:
        yield daemon


class Client:
    def __init__(self, daemon: LabDaemon, program: str | Path) -> None:
        self.daemon, self.program = daemon, program

    def __call__(self, *arguments: str, **environment: str) -> Done:
        return call(self.daemon, [self.program, *arguments], **environment)

    def ok(self, *arguments: str, **environment: str) -> str:
        return content(self(*arguments, **environment))


@pytest.fixture(params=CLIENTS)
def docker(request: pytest.FixtureRequest, lab: LabDaemon) -> Iterator[Client]:
    yield Client(lab, DOCKER if request.param == "28" else fetched("docker-20.10"))
    lab.remove_containers()


def test_a_container_from_its_start_to_its_end(docker: Client, name: str) -> None:
    command = "echo out; echo err >&2; touch /up; exec sleep 1000"
    checked = ("--health-cmd=test -e /up", "--health-interval=1s")
    docker.ok(
        "run", "-d", "--init", "--name", name, *checked, "-p", "127.0.0.1::80", "busybox", "sh", "-c", command
    )
    assert docker.ok("exec", name, "echo", "in") == "in"
    assert docker("exec", name, "sh", "-c", "exit 7").code == 7
    logs = docker("logs", name)
    assert (logs.out, logs.errors) == ("out", "err\n")
    assert (
        docker.ok("ps", "--filter", f"name={name}", "--format", "{{.Names}} {{.State}}") == f"{name} running"
    )
    healthy = "{{.State.Health.Status}}"
    wait_until(lambda: docker.ok("inspect", "-f", healthy, name) == "healthy", "it to be healthy")
    assert docker.ok("port", name, "80").startswith("127.0.0.1:")
    assert "sleep 1000" in docker.ok("top", name)
    assert name in docker.ok("stats", "--no-stream", name)
    docker.ok("pause", name)
    docker.ok("unpause", name)
    docker.ok("update", "--memory", "64m", "--memory-swap", "128m", name)
    docker.ok("rename", name, f"{name}-b")
    assert "A /up" in docker.ok("diff", f"{name}-b")
    docker.ok("restart", "-t", "0", f"{name}-b")
    docker.ok("kill", f"{name}-b")
    assert docker.ok("wait", f"{name}-b") == "137"
    docker.ok("start", f"{name}-b")
    docker.ok("stop", "-t", "0", f"{name}-b")
    docker.ok("rm", f"{name}-b")
    assert docker("inspect", f"{name}-b").code == 1


def test_files_and_images(docker: Client, name: str, tmp_path: Path) -> None:
    docker.ok("create", "--name", name, "busybox", "cat", "/put")
    (tmp_path / "put").write_text("put in")
    docker.ok("cp", str(tmp_path / "put"), f"{name}:/put")
    assert docker.ok("start", "-a", name) == "put in"
    docker.ok("cp", f"{name}:/put", str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == "put in"
    docker.ok("commit", "-c", "CMD cat /put", name, f"{name}:1")
    assert docker.ok("run", "--rm", f"{name}:1") == "put in"
    docker.ok("save", "-o", str(tmp_path / "image.tar"), f"{name}:1")
    docker.ok("rmi", f"{name}:1")
    assert f"{name}:1" in docker.ok("load", "-i", str(tmp_path / "image.tar"))
    docker.ok("tag", f"{name}:1", f"{name}:2")
    assert len(docker.ok("images", "-q", name).split()) == 2
    assert docker.ok("history", "--format", "{{.CreatedBy}}", f"{name}:1")
    docker.ok("export", "-o", str(tmp_path / "root.tar"), name)
    docker.ok("import", str(tmp_path / "root.tar"), f"{name}:flat")
    assert json.loads(docker.ok("image", "inspect", f"{name}:flat"))[0]["Os"] == "linux"
    docker.ok("rmi", f"{name}:1", f"{name}:2", f"{name}:flat")


def test_the_legacy_builder(docker: Client, name: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG WHO\nCOPY f /f\nRUN cat /f; echo for $WHO\nCMD cat /f\n"
    )
    (tmp_path / "f").write_text("of the context\n")
    arguments = ("build", "--no-cache", "--build-arg", "WHO=me", "-t", name, str(tmp_path))
    said = docker.ok(*arguments, DOCKER_BUILDKIT="0")
    assert "of the context" in said and "for me" in said and f"Successfully tagged {name}:latest" in said
    assert docker.ok("run", "--rm", name) == "of the context"
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN exit 9\n")
    failed = docker("build", str(tmp_path), DOCKER_BUILDKIT="0")
    assert failed.code == 9 and "returned a non-zero code: 9" in failed.errors
    docker.ok("rmi", name)


def test_networks_volumes_and_events(docker: Client, name: str) -> None:
    docker.ok("network", "create", "--label", "a=b", name)
    docker.ok("volume", "create", "--label", "a=b", name)
    docker.ok(
        "run",
        "-d",
        "--init",
        "--name",
        name,
        "--network",
        name,
        "-v",
        f"{name}:/d",
        "busybox",
        "sleep",
        "1000",
    )
    assert docker.ok("run", "--rm", "--network", name, "busybox", "nslookup", name)
    assert docker("volume", "rm", name).code == 1
    docker.ok("network", "disconnect", name, name)
    docker.ok("network", "connect", "--alias", "x", name, name)
    assert name in docker.ok("network", "inspect", name)
    seen = ("events", "--since", "1m", "--until", "0s")  # up to the second that has begun
    wait_until(lambda: "container start" in docker.ok(*seen, "--filter", f"container={name}"), "the event")
    wait_until(lambda: "network disconnect" in docker.ok(*seen, "--filter", f"network={name}"), "the event")
    docker.ok("rm", "-f", name)
    docker.ok("network", "rm", name)
    docker.ok("volume", "rm", name)
    assert docker.ok("system", "df") and docker.ok("info") and docker.ok("version")
    swarm = docker("node", "ls")
    assert swarm.code == 1 and "This node is not a swarm manager" in swarm.errors
    docker.ok("system", "prune", "-f", "--volumes")


def test_input_goes_in(docker: Client) -> None:
    done = subprocess.run(
        [docker.program, "run", "-i", "--rm", "busybox", "cat"],
        input=b"x" * 1_000_000,
        capture_output=True,
        env=docker.daemon.environment,
        timeout=patiently(60),
        check=False,
    )
    assert done.returncode == 0 and len(done.stdout) == 1_000_000


def test_skopeo_of_debian_12_asks_for_an_api_that_is_gone(lab: LabDaemon) -> None:
    """Its ``docker-daemon:`` transport wants API 1.22, which Docker refuses likewise. (skopeo 1.14 and newer
    asks which versions there are.) Archives go both ways: ``test_registry_auth.py``."""
    where = ("--daemon-host", f"unix://{lab.socket}")
    done = call(lab, ["skopeo", "inspect", *where, "docker-daemon:busybox:latest"])
    assert done.code == 1
    assert "client version 1.22 is too old. Minimum supported API version is 1.40" in done.errors
