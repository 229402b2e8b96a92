from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherry.engine.containers import normalise
from wherry.engine.containers.sandboxes import port_mappings
from wherry.engine.images.changes import parse_changes
from wherry.engine.settings import Settings
from wherry.errors import Conflict, InvalidArgument, NotImplemented_
from wherry.model.container import (
    ContainerConfig,
    Empty,
    EndpointRequest,
    HostConfig,
    PortBinding,
    RestartPolicy,
)
from wherry.model.oci import Healthcheck, ImageRunConfig

SETTINGS = Settings(Path("/r"), Path("/x"))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, (["e"], ["c"])),
        (None, ["x"], (["e"], ["x"])),
        (["y"], None, (["y"], None)),
        (["y"], ["x"], (["y"], ["x"])),
        ([""], ["x"], (None, ["x"])),
        ("y", "x", (["y"], ["x"])),
    ],
)
def test_commands(entrypoint: list[str] | None, cmd: list[str] | None, expected: object) -> None:
    image = ImageRunConfig(entrypoint=["e"], cmd=["c"])
    merged = normalise.merge_image(ContainerConfig(entrypoint=entrypoint, cmd=cmd), image)
    assert (merged.entrypoint, merged.cmd) == expected


def test_the_request_wins_over_the_image() -> None:
    image = ImageRunConfig(env=["A=1", "B=1"], labels={"l": "1", "m": "1"}, user="u", working_dir="/w")
    merged = normalise.merge_image(ContainerConfig(env=["A=2"], labels={"l": "2"}), image)
    assert merged.env == ["A=2", "B=1"]
    assert merged.labels == {"l": "2", "m": "1"}
    assert (merged.user, merged.working_dir) == ("u", "/w")


@pytest.mark.parametrize(
    "config",
    [
        ContainerConfig(),
        ContainerConfig(cmd=["a\0"]),
        ContainerConfig(cmd=["a"], env=["=x"]),
        ContainerConfig(cmd=["a"], hostname="-x"),
        ContainerConfig(cmd=["a"], hostname="x\n"),
        ContainerConfig(cmd=["a"], working_dir="x"),
        ContainerConfig(cmd=["a"], stop_signal="NONE"),
        ContainerConfig(cmd=["a"], exposed_ports={"0": {}}),
    ],
)
def test_bad_configurations(config: ContainerConfig) -> None:
    with pytest.raises(InvalidArgument):
        normalise.check_config(config)


def test_host_defaults() -> None:
    host = normalise.check_host(HostConfig(memory=64 << 20), SETTINGS, [])
    assert (host.network_mode, host.ipc_mode, host.runtime) == ("bridge", "private", "crun")
    assert (host.shm_size, host.memory_swap) == (64 << 20, 128 << 20)
    assert host.restart_policy.name == "no"
    assert "/proc/kcore" in (host.masked_paths or [])
    assert normalise.check_host(HostConfig(privileged=True), SETTINGS, []).masked_paths is None


@pytest.mark.parametrize(
    ("host", "error"),
    [
        (HostConfig(restart_policy=RestartPolicy(name="x")), InvalidArgument),
        (HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=1)), InvalidArgument),
        (HostConfig(auto_remove=True, restart_policy=RestartPolicy(name="always")), Conflict),
        (HostConfig(ipc_mode="x"), InvalidArgument),
        (HostConfig(pid_mode="container:"), InvalidArgument),
        (HostConfig(uts_mode="x"), InvalidArgument),
        (HostConfig(runtime="x"), InvalidArgument),
        (HostConfig(isolation="hyperv"), InvalidArgument),
        (HostConfig(cgroup="x"), NotImplemented_),
        (HostConfig(storage_opt={"colour": "1g"}), InvalidArgument),
    ],
)
def test_bad_hosts(host: HostConfig, error: type[Exception]) -> None:
    with pytest.raises(error):
        normalise.check_host(host, SETTINGS, [])


_MODES = {"joined": "container:a", "shared": "host", "own": "mine", "default": "bridge"}


@pytest.mark.parametrize(
    ("modes", "config", "host", "words"),
    [
        ("joined", {"hostname": "h"}, {}, "hostname and the network mode"),
        ("joined", {}, {"links": ["a"]}, "container type network can't be used with links. This would"),
        ("joined", {}, {"dns": ["9.9.9.9"]}, "dns and the network mode"),
        ("joined", {}, {"extra_hosts": ["a:1.1.1.1"]}, "custom host-to-IP mapping and the network mode"),
        ("joined shared", {"mac_address": "02:00:00:00:00:01"}, {}, "mac-address and the network mode"),
        ("joined", {}, {"publish_all_ports": True}, "port publishing and the container type network mode"),
        (
            "joined",
            {"exposed_ports": {"80/tcp": Empty()}},
            {},
            "port exposing and the container type network",
        ),
        ("shared own default", {"hostname": "h"}, {"uts_mode": "host"}, "hostname and the UTS mode"),
        ("shared", {}, {"links": ["a"]}, "host type networking can't be used with links. This would"),
    ],
)
def test_what_does_not_go_with_a_namespace_of_others(
    modes: str, config: dict[str, Any], host: dict[str, Any], words: str
) -> None:
    refused = set()
    for name, mode in _MODES.items():
        try:
            normalise.check_network_mode(ContainerConfig(**config), HostConfig(network_mode=mode, **host))
        except InvalidArgument as e:
            if e.message.startswith(f"conflicting options: {words}"):
                refused.add(name)
    assert refused == set(modes.split())


def test_networks() -> None:
    assert normalise.networks("bridge", {}, "") == {"bridge": EndpointRequest()}
    assert normalise.networks("bridge", {"default": None}, "02:00:00:00:00:01") == {
        "bridge": EndpointRequest(mac_address="02:00:00:00:00:01")
    }
    assert normalise.networks("container:x", {}, "") == {}
    with pytest.raises(InvalidArgument):
        normalise.networks("host", {"bridge": None}, "")
    several = normalise.networks("mine", {"a": None, "mine": EndpointRequest(aliases=["x"])}, "")
    assert list(several) == ["mine", "a"], "the mode's network is the first"
    for alone in ("host", "none", "container:x"):
        with pytest.raises(InvalidArgument):
            normalise.networks("mine", {"mine": None, alone: None}, "")


def test_port_mappings() -> None:
    host = HostConfig(
        port_bindings={
            "80/tcp": None,
            "81/tcp": None,
            "53/udp": [PortBinding(host_ip="127.0.0.1", host_port="5000-5010")],
        },
        publish_all_ports=True,
    )
    found = port_mappings(host, ["80/tcp", "90/tcp"])
    assert [(m.container_port, m.proto, m.host_port, m.host_port_end) for m in found] == [
        (80, "tcp", None, None),
        (81, "tcp", None, None),
        (53, "udp", 5000, 5010),
        (90, "tcp", None, None),
    ]
    for bad in ("x", "70000", "5-4", "-1"):
        with pytest.raises(InvalidArgument):
            port_mappings(HostConfig(port_bindings={"80": [PortBinding(host_port=bad)]}), [])


def test_extra_hosts() -> None:
    normalise.check_extra_hosts(["a:1.2.3.4", "b:::1", "c:[::1]", "d:host-gateway"])
    for bad, words in (("a", "bad format"), (":1.1.1.1", "bad format"), ("a:b", "invalid IP address")):
        with pytest.raises(InvalidArgument, match=f"{words} (for|in) add-host"):
            normalise.check_extra_hosts([bad])


def test_changes() -> None:
    config = parse_changes(
        [
            'CMD ["a", "b"]',
            "ENTRYPOINT run it",
            "ENV A=1 B='x y'",
            "env C d e",
            "LABEL k=v",
            "EXPOSE 80 90-91/udp",
            "VOLUME /a /b",
            "USER u:g",
            "WORKDIR /w",
            "STOPSIGNAL USR1",
        ]
    )
    assert config.entrypoint == ["/bin/sh", "-c", "run it"]
    assert config.cmd == ["a", "b"]
    assert config.env == ["A=1", "B=x y", "C=d e"]
    assert set(config.exposed_ports or {}) == {"80/tcp", "90/udp", "91/udp"}
    assert set(config.volumes or {}) == {"/a", "/b"}
    assert (config.user, config.working_dir, config.stop_signal) == ("u:g", "/w", "USR1")


@pytest.mark.parametrize(
    "change", ["RUN x", "CMD", "ENV =", "ENV A='", "EXPOSE x", "STOPSIGNAL NO", "LABEL a=1 b"]
)
def test_bad_changes(change: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_changes([change])


def test_a_health_check_is_merged_member_by_member() -> None:
    image = ImageRunConfig(
        healthcheck=Healthcheck(test=["CMD", "a"], interval=5, retries=2, on_failure="kill")
    )
    own = ContainerConfig(healthcheck=Healthcheck(interval=7, on_failure="restart"))
    assert normalise.merge_image(own, image).healthcheck == Healthcheck(
        test=["CMD", "a"], interval=7, retries=2, on_failure="restart"
    )
    # An image says when a container is unhealthy; what follows is not its business.
    inherited = normalise.merge_image(ContainerConfig(), image).healthcheck
    assert inherited == Healthcheck(test=["CMD", "a"], interval=5, retries=2)
    none = ContainerConfig(healthcheck=Healthcheck(test=["NONE"]))
    merged = normalise.merge_image(none, image).healthcheck
    assert merged is not None and merged.test == ["NONE"]


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Healthcheck(interval=999_999), "Interval in Healthcheck cannot be less than 1ms"),
        (Healthcheck(timeout=-1), "Timeout in Healthcheck cannot be less than 1ms"),
        (Healthcheck(start_period=1), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (Healthcheck(start_interval=1), "StartInterval in Healthcheck cannot be less than 1ms"),
        (Healthcheck(retries=-1), "Retries in Healthcheck cannot be negative"),
        (Healthcheck(test=["RUN", "x"]), "Unknown healthcheck type 'RUN' (expected 'CMD')"),
        (Healthcheck(test=["CMD"]), "needs a command"),
        (Healthcheck(test=["CMD", "a\0"]), "NUL"),
        (Healthcheck(on_failure="explode"), "explode"),
    ],
)
def test_bad_health_checks(health: Healthcheck, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        normalise.check_config(ContainerConfig(cmd=["a"], healthcheck=health))
    assert words in caught.value.message
