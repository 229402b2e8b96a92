"""docker compose of two releases, with what projects do: waits for health, logs, exec, run, scale, profiles,
configs, secrets, networks, `up` in the foreground and its exit codes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from buildkitlab import VERSIONS, BuildClient, read_until
from buildlab import write
from clientlab import lab_daemon
from daemonlab import Done, LabDaemon, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.patient(120)]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabDaemon]:
    with lab_daemon() as daemon:
        yield daemon


class Project:
    def __init__(self, client: BuildClient, directory: Path) -> None:
        self.client, self.directory = client, directory

    def file(self, text: str, **files: str) -> None:
        write(self.directory, {"compose.yaml": text, **files})

    def __call__(self, *arguments: str) -> Done:
        return self.client.compose(self.directory, *arguments)

    def ok(self, *arguments: str) -> str:
        done = self(*arguments)
        assert done.code == 0, f"{arguments}: {done.code}\n{done.out}\n{done.errors}"
        return done.out

    def states(self) -> dict[str, str]:
        """State of every container, by its service."""
        lines = self.ok("ps", "--all", "--format", "json").splitlines()
        rows = [
            row for line in lines for row in (lambda v: v if isinstance(v, list) else [v])(json.loads(line))
        ]
        return {row["Service"]: row["State"] for row in rows}


@pytest.fixture(params=VERSIONS)
def project(request: pytest.FixtureRequest, lab: LabDaemon, tmp_path: Path, name: str) -> Iterator[Project]:
    directory = tmp_path / name
    directory.mkdir()
    project = Project(BuildClient(lab, request.param), directory)
    yield project
    project("--profile", "*", "down", "--timeout", "0", "--volumes", "--remove-orphans", "--rmi", "local")
    assert lab.containers() == []


WEB = """
services:
  db:
    image: busybox
    command: [sh, -c, "echo from $$WHO; sleep 0.3; touch /tmp/up; exec sleep 1000"]
    environment: {WHO: db}
    healthcheck: {test: [CMD, test, -e, /tmp/up], interval: 200ms, timeout: 5s, retries: 50}
    volumes: ["data:/data"]
    networks: {back: {aliases: [database]}}
    init: true
  seed:
    image: busybox
    command: sh -c "echo seeded >/data/seed"
    volumes: ["data:/data"]
    depends_on: {db: {condition: service_healthy}}
    network_mode: none
  web:
    image: busybox
    command: [sh, -c, "cat /run/secrets/word /word >/www; cp /www /index.html; exec httpd -f -p 80 -h /"]
    depends_on:
      seed: {condition: service_completed_successfully}
      db: {condition: service_healthy, restart: true}
    ports: ["127.0.0.1::80"]
    networks: [front, back]
    secrets: [word]
    configs: [{source: word, target: /word}]
    volumes: [{type: volume, source: data, target: /data, read_only: true}, {type: tmpfs, target: /scratch}]
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M}}}
    extra_hosts: ["there=10.1.2.3"]
    labels: {of: compose}
    init: true
    stop_grace_period: 1s
  extra:
    image: busybox
    command: sleep 1000
    profiles: [extra]
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {word: {file: ./secret}}
configs: {word: {file: ./config}}
"""


def test_a_stack_comes_up_in_its_order(project: Project, lab: LabDaemon) -> None:
    project.file(WEB, secret="hidden", config="shown")
    project.ok("up", "--detach", "--wait", "--quiet-pull", "db", "web")
    assert project.states() == {"db": "running", "seed": "exited", "web": "running"}
    port = project.ok("port", "web", "80").rpartition(":")[2]
    assert int(port) > 0
    page = project.ok("exec", "-T", "web", "wget", "-qO-", "http://localhost/index.html")
    assert page == "hiddenshown"
    assert project.ok("exec", "-T", "web", "cat", "/data/seed") == "seeded"
    assert project("exec", "-T", "web", "touch", "/data/x").code != 0
    assert (
        project.ok("exec", "-T", "web", "sh", "-c", "nslookup database >/dev/null && echo found") == "found"
    )
    assert "10.1.2.3" in project.ok("exec", "-T", "web", "cat", "/etc/hosts")
    assert "from db" in project.ok("logs", "--no-color", "db")
    assert project.ok("logs", "--no-color", "--no-log-prefix", "--tail", "1", "db").endswith("from db")
    assert "sleep 1000" in project.ok("top", "db")
    assert len(project.ok("images", "--quiet").split()) >= 1
    assert project.ok("up", "--detach").count("Started") == 0, "nothing was to be done"
    assert project.ok("run", "--rm", "-T", "--no-deps", "db", "echo", "once") == "once"
    project.ok("pause", "web")
    assert project.states()["web"] == "paused"
    project.ok("unpause", "web")
    project.ok("restart", "--timeout", "0", "web")
    project.ok("kill", "--signal", "KILL", "web")
    assert wait_until(lambda: project.states()["web"] == "exited", "web to end")
    project.ok("start", "web")
    project.ok("cp", "web:/www", str(project.directory / "out"))
    assert (project.directory / "out").read_text() == "hiddenshown"
    project.ok("--profile", "extra", "up", "--detach", "extra")
    assert project.states()["extra"] == "running"
    project.ok("--profile", "extra", "stop", "--timeout", "0")
    project.ok("--profile", "extra", "rm", "--force")
    assert project.states() == {}
    project.ok("--profile", "extra", "down", "--volumes")
    assert [n for n in lab.networks() if n not in ("bridge", "host", "none")] == []


def test_a_changed_service_is_made_anew(project: Project) -> None:
    text = "services:\n  one: {image: busybox, command: sleep 1000, init: true, environment: {A: '%s'}}\n"
    project.file(text % 1)
    project.ok("up", "--detach")
    first = project.ok("ps", "--quiet")
    assert project.ok("up", "--detach") is not None and project.ok("ps", "--quiet") == first
    project.file(text % 2)
    project.ok("up", "--detach", "--timeout", "0")
    assert project.ok("ps", "--quiet") != first
    assert project.ok("exec", "-T", "one", "sh", "-c", "echo $A") == "2"
    project.ok("up", "--detach", "--scale", "one=3")
    assert len(project.ok("ps", "--quiet").split()) == 3
    project.ok("up", "--detach", "--scale", "one=1", "--timeout", "0")
    assert len(project.ok("ps", "--quiet").split()) == 1
    project.file("services:\n  two: {image: busybox, command: sleep 1000, init: true}\n")
    project.ok("up", "--detach", "--remove-orphans", "--timeout", "0")
    assert project.states() == {"two": "running"}


def test_a_config_and_a_secret_of_the_file_itself(project: Project) -> None:
    project.file("""
services:
  one:
    image: busybox
    command: sh -c 'cat /conf /run/secrets/word; stat -c %a /conf'
    configs: [{source: conf, target: /conf, mode: 0440}]
    secrets: [word]
configs: {conf: {content: "in the file\\n"}}
secrets: {word: {environment: WORD}}
""")
    done = project.client.docker("compose", "up", "--no-log-prefix", cwd=project.directory, WORD="of it")
    assert done.code == 0, done.errors
    assert "in the file" in done.out and "of it" in done.out and "440" in done.out


@pytest.mark.parametrize("flag, code", [("--abort-on-container-exit", 0), ("--exit-code-from=one", 3)])
def test_up_ends_with_a_container(project: Project, flag: str, code: int) -> None:
    project.file("""
services:
  one: {image: busybox, command: sh -c 'echo one says; exit 3'}
  two: {image: busybox, command: sleep 1000, init: true, stop_grace_period: 0s}
""")
    done = project("up", "--no-color", flag)
    assert "one says" in done.out
    assert done.code in ((code,) if code else (0, 3)), (done.code, done.errors)
    assert set(project.states().values()) == {"exited"}


def test_up_follows_restarts(project: Project) -> None:
    """A container that restarts is followed, not taken for one that has ended. (It lives for a second: of
    shorter ones compose itself may lose the last log. Compose 2.26 follows none, with every engine.)"""
    if not project.client.is_new:
        pytest.skip("this compose follows no restarts")
    project.file("""
services:
  one:
    image: busybox
    command: sh -c 'echo x >>/count; echo round $$(wc -l </count); sleep 1; test $$(wc -l </count) -ge 3'
    restart: on-failure
""")
    done = project("up", "--no-color")
    assert done.code == 0, done.errors
    assert all(f"round {n}" in done.out for n in (1, 2, 3)), done.out


def test_up_is_interrupted(project: Project, lab: LabDaemon) -> None:
    project.file(
        "services:\n  one: {image: busybox, command: sh -c 'echo here; exec sleep 1000', init: true}\n"
    )
    file = str(project.directory / "compose.yaml")
    with project.client.running("compose", "-f", file, "up", "--no-color") as process:
        read_until(process, b"here")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
    assert project.states() == {"one": "exited"}
    assert [c["State"] for c in lab.api("GET", "/containers/json", all=1).json] == ["exited"]


def test_a_dependency_that_fails(project: Project) -> None:
    project.file("""
services:
  ill:
    image: busybox
    command: sleep 1000
    init: true
    healthcheck: {test: [CMD, "false"], interval: 100ms, retries: 1}
  one: {image: busybox, depends_on: {ill: {condition: service_healthy}}}
""")
    done = project("up", "--detach")
    assert done.code == 1 and "is unhealthy" in done.errors, done.errors


def test_external_networks_and_fixed_addresses(project: Project, lab: LabDaemon, name: str) -> None:
    lab.docker("network", "create", name).ok()
    project.file(f"""
services:
  one:
    image: busybox
    command: sh -c 'ip addr; exec sleep 1000'
    init: true
    mac_address: "02:42:ac:11:00:99"
    networks: {{own: {{ipv4_address: 10.214.1.77, priority: 10}}, out: {{}}}}
  two: {{image: busybox, command: sleep 1000, network_mode: "service:one", init: true}}
networks:
  out: {{external: true, name: {name}}}
  own:
    ipam: {{config: [{{subnet: 10.214.1.0/24, ip_range: 10.214.1.128/25}}]}}
    driver_opts: {{com.docker.network.bridge.name: w{name[:10]}}}
""")
    try:
        project.ok("up", "--detach")
        shown = project.ok("exec", "-T", "two", "ip", "addr")
        assert "10.214.1.77/24" in shown and "02:42:ac:11:00:99" in shown
        project.ok("up", "--detach", "--force-recreate", "--timeout", "0")
        project.ok("down", "--timeout", "0")
    finally:
        lab.docker("network", "rm", name)
