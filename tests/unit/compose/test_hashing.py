"""The configuration hash, by values that Docker's plugin 2.40.3 printed (``config --hash``)."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import load, put

from wherry.compose import gojson, hashing


def hashed(where: Path, text: str) -> str:
    put(where, {"compose.yaml": f"services:\n  a: {text}\n  b: {{image: redis}}\nvolumes: {{data: {{}}}}\n"})
    return hashing.of_service(load(where, name="p").services["a"])


GOLDEN = {
    "{image: busybox}": ("2afd7866203dca40993313263173003833e9de9c3ad83f2f59484e32a5605234"),
    '{image: x, command: sh -c "a b", environment: [A=1, B=<&>]}': (
        "a93661b6469d7878299ba88134cf5bb53a2c3ee786bc30dfe4213ae570e409ce"
    ),
    '{image: x, ports: ["8080:80", "53:53/udp"], volumes: ["data:/d"]}': (
        "e8d124e9bb773b4309dabee6ddf9e61486229b9db3d2126e0244a512ddc20d91"
    ),
    ('{image: x, healthcheck: {test: "true", interval: 90s, retries: 0}, init: false, cpus: 0.3}'): (
        "02718447100340276a73904e3cb4db9410232a5071b81311ce24c10ece47ba62"
    ),
    (
        "{image: x, mem_limit: 1.5g, ulimits: {nofile: {soft: 1, hard: 2}}, blkio_config: "
        "{weight: 10, weight_device: [{path: /dev/sda, weight: 5}]}}"
    ): ("75f64c6004a2f681dfc764f96d7a8bece483674333859a7f5a9daf2aa8d82baf"),
    '{image: x, deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 10m}}}}': (
        "e3477abaea205c51b1039cb248f14ad5ca6c4a5df97a966fc4ddfd17641745a8"
    ),
    '{image: x, network_mode: "service:b", extra_hosts: ["z:1.1.1.1", "a:2.2.2.2"]}': (
        "6ec7f30ea10fecb2b918434155545ce54c09d6f5b44857224ada5b05b6c79a61"
    ),
    ("{image: x, develop: {watch: [{path: /src, action: rebuild}]}, gpus: all, stop_grace_period: 2m}"): (
        "80ad59cda0bb386a524828e259171191493e9d34e1b405e6798243056d07c3b9"
    ),
    "{image: x, labels: {a: 1, b: }, sysctls: {x: 1}, tmpfs: /t, secrets: [], logging: {}}": (
        "9e8a812f78e3d04ac0ef596d10b1366191999a109e579234a63cc9809cdb9970"
    ),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_services(tmp_path: Path, text: str) -> None:
    assert hashed(tmp_path, text) == GOLDEN[text]


@pytest.mark.parametrize(
    "more",
    [
        "build: .",
        "pull_policy: always",
        "scale: 3",
        "depends_on: [b]",
        "profiles: []",
        "deploy: {replicas: 2}",
    ],
)
def test_what_changes_no_container_changes_no_hash(tmp_path: Path, more: str) -> None:
    plain = "{image: x, deploy: {}}" if "deploy" in more else "{image: x}"
    assert hashed(tmp_path, f"{{image: x, {more}}}") == hashed(tmp_path, plain)


@pytest.mark.parametrize(
    "more", ["hostname: h", "environment: {A: 1}", "ports: ['80']", "init: false", "command: []"]
)
def test_what_changes_a_container_changes_the_hash(tmp_path: Path, more: str) -> None:
    assert hashed(tmp_path, f"{{image: x, {more}}}") != hashed(tmp_path, "{image: x}")


def test_json_is_written_as_go_writes_it() -> None:
    assert gojson.compact({"a": "<&>", "b": 2.0, "c": [0.5], "d": "ü\u2028"}) == (
        '{"a":"\\u003c\\u0026\\u003e","b":2,"c":[0.5],"d":"ü\\u2028"}'
    )
