"""Programs that use a library or tool as its users do; each check in them is named when it fails.

``docs/compatibility.md`` says what is run here. The fetched ones run in ``make test-clients``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from buildlab import write
from clientlab import HERE, NODE, call, configuration, content, fetched, lab_daemon, python_path
from daemonlab import LabDaemon

pytestmark = [pytest.mark.kernel, pytest.mark.patient(200)]


@pytest.fixture
def daemon() -> Iterator[LabDaemon]:
    with lab_daemon() as daemon:
        yield daemon


@pytest.mark.parametrize("version", ["old", "new"])
def test_testcontainers(daemon: LabDaemon, version: str) -> None:
    """Waiting by every strategy, networks, mounts, images, Compose, and the session's reaper."""
    done = call(
        daemon,
        [fetched("python", "bin", "python"), HERE / "testcontainers_program.py"],
        TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=str(daemon.socket),
        **configuration(daemon, version),
    )
    assert content(done).count("ok ") == 8
    assert daemon.containers() == []


def test_dockerode(daemon: LabDaemon) -> None:
    done = call(daemon, [NODE, HERE / "dockerode_program.js"], NODE_PATH=str(fetched("node_modules")))
    assert content(done).count("ok ") == 9
    assert daemon.containers() == []


@pytest.mark.parametrize("version", ["old", "new"])
def test_ansible(daemon: LabDaemon, tmp_path: Path, name: str, version: str) -> None:
    """Every module of community.docker for containers, images, networks and volumes, each task twice."""
    python = fetched("python", "bin", "python")
    done = call(
        daemon,
        [
            fetched("python", "bin", "ansible-playbook"),
            *("-e", f"work={tmp_path}", "-e", f"ansible_python_interpreter={python}", "-e", f"bridge={name}"),
            HERE / "playbook.yml",
        ],
        PATH=python_path(),
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="false",
        ANSIBLE_LOCAL_TEMP=str(tmp_path / "local"),
        ANSIBLE_REMOTE_TEMP=str(tmp_path / "remote"),
        **configuration(daemon, version),
    )
    content(done)
    assert daemon.containers() == [] and daemon.volumes() == set()


DEV = {
    "name": "tried",
    "build": {"dockerfile": "Dockerfile", "context": "..", "args": {"WHO": "me"}},
    "features": {"./feat": {"word": "from-the-feature"}},
    "containerEnv": {"IN_CONTAINER": "yes"},
    "mounts": [{"source": "dev-data", "target": "/data", "type": "volume"}],
    "runArgs": ["--init", "--cap-add=SYS_PTRACE"],
    "appPort": [],
    "postCreateCommand": "echo created >/tmp/created",
    "remoteUser": "someone",
}
FEATURE = {"id": "feat", "version": "1.0.0", "options": {"word": {"type": "string", "default": "x"}}}
SEEN = "cat /who /feature /tmp/created; echo $IN_CONTAINER; id -un; ls -d /data; cat file"


@pytest.mark.parametrize("version", ["old", "new"])
@pytest.mark.parametrize("kind", ["dockerfile", "compose"])
def test_devcontainers(daemon: LabDaemon, tmp_path: Path, version: str, kind: str) -> None:
    """A workspace's container: built with a feature, its user's id changed, commands run in it."""
    cli = fetched("node_modules", "@devcontainers", "cli", "devcontainer.js")
    told = dict(DEV)
    if kind == "compose":
        for key in ("build", "mounts", "runArgs", "appPort", "containerEnv"):
            del told[key]
        told |= {"dockerComposeFile": "compose.yaml", "service": "dev", "workspaceFolder": "/workspaces/dev"}
    user = "RUN echo someone:x:1234:1234::/home/someone:/bin/sh >>/etc/passwd && mkdir -p /home/someone /tmp"
    group = "RUN echo someone:x:1234: >>/etc/group && chmod 1777 /tmp && chown 1234:1234 /home/someone"
    compose = """
services:
  dev:
    build: {context: .., dockerfile: .devcontainer/Dockerfile, args: {WHO: me}}
    command: sleep infinity
    environment: {IN_CONTAINER: "yes"}
    volumes: ["..:/workspaces/dev", "dev-data:/data"]
volumes: {dev-data: {}}
"""
    write(
        tmp_path / "dev",
        {
            ".devcontainer/devcontainer.json": json.dumps(told),
            ".devcontainer/compose.yaml": compose,
            ".devcontainer/Dockerfile": f"FROM busybox\nARG WHO\nRUN echo $WHO >/who\n{user}\n{group}\n",
            ".devcontainer/feat/devcontainer-feature.json": json.dumps(FEATURE),
            ".devcontainer/feat/install.sh": '#!/bin/sh\nset -e\necho "$WORD" >/feature\n',
            "file": "of the workspace\n",
        },
    )
    where = ["--workspace-folder", tmp_path / "dev"]
    environment = configuration(daemon, version)
    up = content(call(daemon, [NODE, cli, "up", *where], **environment))
    assert json.loads(up.splitlines()[-1])["outcome"] == "success"
    seen = content(call(daemon, [NODE, cli, "exec", *where, "sh", "-c", SEEN], **environment))
    wanted = ["me", "from-the-feature", "created", "yes", "someone", "/data", "of the workspace"]
    assert seen.split("\n") == wanted
    again = content(call(daemon, [NODE, cli, "up", *where], **environment))
    assert json.loads(again.splitlines()[-1])["containerId"] == json.loads(up.splitlines()[-1])["containerId"]
