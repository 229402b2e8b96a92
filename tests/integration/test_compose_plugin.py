"""Ours and Docker's plugin on the same files: the same hashes, text and containers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from buildkitlab import plugins
from composelab import Generator, write
from daemonlab import LabDaemon
from patience import patiently

WHERRY = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "wherry"
SEEDS, EACH = 5, 42
"""Over 200 services; those that the plugin refuses are not counted."""


def said(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=where,
        capture_output=True,
        text=True,
        timeout=patiently(60),
        stdin=subprocess.DEVNULL,
        check=False,
    )


def settled(seed: int, where: Path, plugin: str) -> dict[str, Any]:
    """A generated project without the services that the plugin refuses."""
    project = Generator(seed).project(EACH)
    while True:
        write(project, where)
        done = said([plugin, "-p", "g", "config", "--hash", "*"], where)
        if done.returncode == 0:
            project["hashes"] = dict(line.split() for line in done.stdout.splitlines())
            return project
        bad = re.findall(r"\bs\d+\b", done.stderr)
        assert bad, done.stderr
        del project["services"][bad[0]]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_hashes_of_generated_services(seed: int, tmp_path: Path) -> None:
    project = settled(seed, tmp_path, str(plugins() / "new" / "docker-compose"))
    ours = said([str(WHERRY), "compose", "-p", "g", "config", "--hash", "*"], tmp_path)
    assert ours.returncode == 0, ours.stderr
    found = dict(line.split() for line in ours.stdout.splitlines())
    different = {n: project["services"][n] for n, text in project["hashes"].items() if found.get(n) != text}
    assert not different, f"these services have another hash than the plugin's: {different}"
    assert len(found) > EACH - 8


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_config_of_generated_services(form: str, tmp_path: Path) -> None:
    plugin = str(plugins() / "new" / "docker-compose")
    settled(100, tmp_path, plugin)
    theirs = said([plugin, "-p", "g", "config", "--format", form], tmp_path).stdout
    ours = said([str(WHERRY), "compose", "-p", "g", "config", "--format", form], tmp_path).stdout
    assert ours.rstrip("\n").splitlines() == theirs.rstrip("\n").splitlines()


@pytest.mark.parametrize("seed", [0, 1])
def test_two_files_are_merged_as_by_the_plugin(seed: int, tmp_path: Path) -> None:
    plugin = str(plugins() / "new" / "docker-compose")
    generator = Generator(1000 + seed)
    project = generator.project(30)
    over = {name: generator.service() for name in project["services"] if name.startswith("s")}
    for service in over.values():
        service.pop("image")
    files = ["-p", "g", "-f", "compose.yaml", "-f", "over.yaml", "config"]
    while True:
        write(project, tmp_path)
        kept = {name: one for name, one in over.items() if name in project["services"] and one}
        (tmp_path / "over.yaml").write_text(yaml.safe_dump({"services": kept}, allow_unicode=True))
        theirs = said([plugin, *files], tmp_path)
        if theirs.returncode == 0:
            break
        bad = [name for name in re.findall(r"\bs\d+\b", theirs.stderr) if name in project["services"]]
        assert bad, theirs.stderr
        del project["services"][bad[0]]
    ours = said([str(WHERRY), "compose", *files], tmp_path)
    assert ours.returncode == 0, ours.stderr
    assert ours.stdout.splitlines() == theirs.stdout.splitlines()
    assert len(kept) > 15


SHOP = """
services:
  db:
    image: busybox
    command: sh -c "echo up; exec sleep 1000"
    volumes: [data:/var/lib/data, /scratch]
    healthcheck: {test: "true", interval: 200ms, timeout: 2s, retries: 20}
    stop_grace_period: 1s
    init: true
  queue:
    image: busybox
    command: [sleep, "1000"]
    networks: {back: {aliases: [mq]}}
    init: true
    labels: {tier: middle}
  web:
    image: busybox
    command: [sleep, "1000"]
    environment: {MODE: shop, EMPTY: }
    env_file: [shop.env]
    networks: [back, default]
    depends_on: {db: {condition: service_healthy}, queue: {condition: service_started, restart: true}}
    secrets: [token]
    configs: [{source: motd, target: /etc/motd}]
    deploy: {replicas: 2, resources: {limits: {memory: 64m, pids: 50}}}
    init: true
networks: {back: {internal: true}}
volumes: {data: {labels: {a: b}}}
secrets: {token: {environment: TOKEN}}
configs: {motd: {content: hello}}
"""


def shop(where: Path, name: str) -> Path:
    directory = where / name
    directory.mkdir()
    (directory / "shop.env").write_text("FROM_FILE=1\n")
    (directory / "compose.yaml").write_text(SHOP)
    (directory / ".env").write_text("TOKEN=s3cret\n")
    return directory


class Tool:
    """``wherry compose`` or a release of the plugin, on one project."""

    def __init__(self, daemon: LabDaemon, tool: str, where: Path) -> None:
        self.daemon, self.where = daemon, where
        self.command = (
            [str(WHERRY), "compose"] if tool == "wherry" else [str(plugins() / tool / "docker-compose")]
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.where,
            env=self.daemon.environment,
            capture_output=True,
            text=True,
            timeout=patiently(120),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done


def ids(daemon: LabDaemon, project: str) -> dict[str, str]:
    label = quote(json.dumps({"label": [f"com.docker.compose.project={project}"]}))
    listed = daemon.api("GET", f"/containers/json?all=1&filters={label}").json
    return {one["Names"][0]: one["Id"] for one in listed}


@pytest.mark.kernel
@pytest.mark.patient(240)
@pytest.mark.parametrize(("first", "second"), [("wherry", "new"), ("new", "wherry")])
def test_either_takes_over_what_the_other_began(
    first: str, second: str, daemon: LabDaemon, name: str, tmp_path: Path
) -> None:
    where = shop(tmp_path, name)
    one, other = Tool(daemon, first, where), Tool(daemon, second, where)
    try:
        one("up", "-d")
        before = ids(daemon, name)
        assert len(before) == 4
        other("up", "-d")
        assert ids(daemon, name) == before, "the containers were made anew"
        assert "Running" in other("up", "-d").stderr
    finally:
        other("down", "-v", "-t", "1")
    assert ids(daemon, name) == {}


def made(daemon: LabDaemon, project: str) -> dict[str, Any]:
    """What came out, without what differs each time."""
    found: dict[str, Any] = {}
    for shown, identifier in ids(daemon, project).items():
        about = daemon.api("GET", f"/containers/{identifier}/json").json
        config, host = about["Config"], about["HostConfig"]
        kept = {key: config.get(key) for key in ("Cmd", "Entrypoint", "Image", "ExposedPorts", "StopTimeout")}
        kept["Env"] = sorted(config["Env"])
        kept["Healthcheck"] = config.get("Healthcheck")
        labels = {k: v for k, v in config["Labels"].items() if not k.endswith((".version", ".config-hash"))}
        needs = labels["com.docker.compose.depends_on"].split(",")
        kept["Labels"] = labels | {"com.docker.compose.depends_on": sorted(needs)}
        for key in ("Memory", "PidsLimit", "NetworkMode", "RestartPolicy", "PortBindings", "Init"):
            kept[key] = host[key]
        kept["Mounts"] = sorted(
            (
                one["Type"],
                one["Destination"],
                one["RW"],
                "" if len(one.get("Name", "")) == 64 else one["Source"],
            )
            for one in about["Mounts"]
        )
        networks = about["NetworkSettings"]["Networks"]
        kept["Networks"] = {n: sorted(one["Aliases"] or ()) for n, one in networks.items()}
        found[shown] = kept
    for kind in ("networks", "volumes"):
        listed = daemon.api("GET", f"/{kind}").json
        for one in listed if kind == "networks" else listed["Volumes"]:
            labels = one.get("Labels") or {}
            if labels.get("com.docker.compose.project") == project:
                found[one["Name"]] = {
                    k: v for k, v in labels.items() if not k.endswith((".version", "-hash"))
                }
                found[one["Name"]]["internal"] = one.get("Internal")
    return found


@pytest.mark.kernel
@pytest.mark.patient(240)
@pytest.mark.parametrize("release", ["new", "old"])
def test_the_same_comes_out(release: str, daemon: LabDaemon, name: str, tmp_path: Path) -> None:
    where = shop(tmp_path, name)
    results = []
    for tool in ("wherry", release):
        run = Tool(daemon, tool, where)
        try:
            run("up", "-d")
            results.append(made(daemon, name))
        finally:
            run("down", "-v", "-t", "1", *(("--no-trash",) if tool == "wherry" else ()))
    ours, theirs = results
    assert ours.keys() == theirs.keys()
    for shown in theirs:
        different = {k: (ours[shown].get(k), v) for k, v in theirs[shown].items() if ours[shown].get(k) != v}
        assert not different, f"{shown}: ours, the plugin's: {different}"


BAKED = """
services:
  web:
    build:
      context: .
      dockerfile: X.Dockerfile
      args: {A: "1", B: }
      labels: {l: v}
      target: t
      cache_from: [a/b, "type=local,src=x"]
      cache_to: ["type=inline"]
      no_cache: true
      pull: true
      network: host
      platforms: [linux/amd64, linux/arm64]
      secrets: [s, {source: s2, target: tt}]
      ssh: [default]
      tags: [x/y:1]
      shm_size: 64m
      extra_hosts: ["h=1.2.3.4"]
      ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}
      entitlements: [network.host]
      additional_contexts: {o: ../o, i: docker-image://alpine, svc: "service:api"}
      privileged: true
      provenance: mode=max
      sbom: true
  api:
    image: my/api
    platform: linux/arm64
    build: {dockerfile_inline: "FROM scratch\\nRUN $$X\\n"}
  plain.one: {build: ./sub}
secrets: {s: {file: ./s.txt}, s2: {environment: HOME}}
"""


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--push", "--no-cache", "--pull", "--build-arg", "Z=1", "--ssh", "default=/x", "api"),
        ("plain.one",),
    ],
)
def test_the_definition_for_bake(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "compose.yaml").write_text(BAKED)
    plugin = str(plugins() / "new" / "docker-compose")
    theirs = said([plugin, "-p", "g", "build", "--print", *flags], tmp_path)
    ours = said([str(WHERRY), "compose", "-p", "g", "build", "--print", *flags], tmp_path)
    assert (theirs.returncode, ours.returncode) == (0, 0), ours.stderr + theirs.stderr
    wanted, found = json.loads(theirs.stdout), json.loads(ours.stdout)
    for one in (*found["target"].values(), *wanted["target"].values()):
        one.get("ulimits", []).sort()  # theirs have no order
    assert found["target"] == wanted["target"]
    assert [list(one) for one in found["target"].values()] == [list(one) for one in wanted["target"].values()]
    assert sorted(found["group"]["default"]["targets"]) == sorted(wanted["group"]["default"]["targets"])


def test_attestations_in_the_definition_for_bake(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(BAKED)
    flags = ("--provenance", "false", "--sbom", "generator=x", "plain.one")
    ours = said([str(WHERRY), "compose", "build", "--print", *flags], tmp_path)
    target = json.loads(ours.stdout)["target"]["plain_one"]
    assert target["attest"] == ["type=provenance,disabled=true", "type=sbom,generator=x"]
