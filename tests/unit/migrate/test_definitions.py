"""What dockerd has written down, as requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wherry.migrate import definitions
from wherry.migrate.definitions import ContainerPlan, LeftOut


def stored(
    name: str, *, host: dict[str, Any] | None = None, points: Any = None, **config: Any
) -> dict[str, Any]:
    inner = {"Image": "app:1", "Hostname": name[:12].ljust(12, "0"), **config.pop("Config", {})}
    identifier = name[:12].ljust(12, "0") + "f" * 52
    about = {"ID": identifier, "Name": f"/{name}", "Config": inner, "MountPoints": points or {}, **config}
    return {"config": about, "host": {"NetworkMode": "default", **(host or {})}}


def body(*arguments: Any, names: dict[str, str] | None = None, **keywords: Any) -> dict[str, Any]:
    return ContainerPlan(stored(*arguments, **keywords)).body(names or {}, "app:1")


def test_a_hostname_that_was_made_up_is_made_up_again() -> None:
    assert "Hostname" not in body("web")
    assert body("web", Config={"Hostname": "chosen"})["Hostname"] == "chosen"


@pytest.mark.parametrize("mode", ["host", "container:abc"])
def test_what_belongs_to_the_other_network_namespace_is_not_asked_for(mode: str) -> None:
    made = body("web", host={"NetworkMode": mode}, Config={"Hostname": "h", "ExposedPorts": {"80/tcp": {}}})
    assert "Hostname" not in made and "ExposedPorts" not in made


def test_containers_of_others_are_named() -> None:
    made = body(
        "side", host={"NetworkMode": "container:1234", "PidMode": "container:77"}, names={"1234": "web"}
    )
    assert made["HostConfig"]["NetworkMode"] == "container:web"
    assert made["HostConfig"]["PidMode"] == "container:77"


def test_volumes_without_a_name_keep_their_data() -> None:
    points = {
        "/a": {"Type": "volume", "Name": "f" * 64, "RW": False},
        "/b": {"Type": "volume", "Name": "e" * 64},
        "/c": {"Type": "volume", "Name": "named"},
        "/d": {"Type": "bind", "Name": ""},
    }
    host = {"Binds": ["named:/c", "/host:/d"], "Mounts": [{"Type": "volume", "Target": "/b"}]}
    made = body("web", host=host, points=points)["HostConfig"]
    assert made["Binds"] == ["named:/c", "/host:/d", f"{'f' * 64}:/a:ro"]
    assert made["Mounts"] == [{"Type": "volume", "Target": "/b", "Source": "e" * 64}]


def test_lists_that_dockerd_writes_out_are_the_new_daemons_unless_they_were_emptied() -> None:
    assert "MaskedPaths" not in body("web", host={"MaskedPaths": ["/proc/kcore"]})["HostConfig"]
    assert body("web", host={"MaskedPaths": []})["HostConfig"]["MaskedPaths"] == []


@pytest.mark.parametrize(
    ("policy", "facts", "expected"),
    [
        ("always", {"HasBeenStartedBefore": True}, True),
        ("always", {"HasBeenStartedBefore": True, "HasBeenManuallyStopped": True}, True),
        ("unless-stopped", {"HasBeenStartedBefore": True}, True),
        ("unless-stopped", {"HasBeenStartedBefore": True, "HasBeenManuallyStopped": True}, False),
        ("unless-stopped", {}, False),
        ("on-failure", {"HasBeenStartedBefore": True}, False),
        ("no", {"HasBeenStartedBefore": True}, False),
    ],
)
def test_what_docker_would_start(policy: str, facts: dict[str, bool], expected: bool) -> None:
    assert (
        ContainerPlan(stored("web", host={"RestartPolicy": {"Name": policy}}, **facts)).comes_back is expected
    )


def test_the_order_is_that_of_need_and_a_circle_does_no_harm() -> None:
    plans = [
        ContainerPlan(stored("a", host={"Links": ["/b:/a/alias"]})),
        ContainerPlan(stored("b", host={"VolumesFrom": ["c:ro"]})),
        ContainerPlan(stored("c", host={"NetworkMode": "container:" + "d".ljust(12, "0") + "f" * 52})),
        ContainerPlan(stored("d")),
        ContainerPlan(stored("x", host={"Links": ["y"]})),
        ContainerPlan(stored("y", host={"Links": ["x"]})),
    ]
    names = {plan.id: plan.name for plan in plans}
    for plan in plans:
        plan.look(names)
    assert [plan.name for plan in definitions.in_order(plans)] == ["d", "c", "b", "a", "y", "x"]
    assert plans[0].body(names, "app:1")["HostConfig"]["Links"] == ["b:alias"]


def test_swarm_is_left_out() -> None:
    with pytest.raises(LeftOut, match="swarm"):
        ContainerPlan(stored("task", Config={"Labels": {"com.docker.swarm.service.id": "x"}}))
    for network in (
        {"name": "o", "scope": "swarm"},
        {"name": "i", "ingress": True},
        {"name": "docker_gwbridge"},
    ):
        with pytest.raises(LeftOut, match="swarm"):
            definitions.network(network)


def test_a_network_with_both_families() -> None:
    four = {"PreferredPool": "10.1.0.0/16", "SubPool": "10.1.2.0/24", "Gateway": "10.1.0.9"}
    six = {"PreferredPool": "fd00::/64", "SubPool": "", "Gateway": "", "AuxAddresses": None}
    made = definitions.network(
        {
            "name": "both",
            "networkType": "bridge",
            "enableIPv6": True,
            "ipamType": "default",
            "ipamV4Config": json.dumps([{**four, "AuxAddresses": {"x": "10.1.0.5"}}]),
            "ipamV6Config": json.dumps([six]),
            "generic": {"com.docker.network.generic": {"com.docker.network.driver.mtu": 1400}},
        }
    )
    assert made["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/16",
            "IPRange": "10.1.2.0/24",
            "Gateway": "10.1.0.9",
            "AuxiliaryAddresses": {"x": "10.1.0.5"},
        },
        {"Subnet": "fd00::/64"},
    ]
    assert made["EnableIPv6"] and made["Options"] == {"com.docker.network.driver.mtu": "1400"}
