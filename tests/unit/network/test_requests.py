from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument, NotFound, NotImplemented_
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network.requests import plan
from wherry.network.types import Network

NETWORKS = {
    name: Network(id=name * 8, name=name, driver=driver, created=1)
    for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
}


def find(wanted: str) -> Network:
    name = "bridge" if wanted == "default" else wanted
    if name not in NETWORKS:
        raise NotFound(f"network {wanted} not found")
    return NETWORKS[name]


def names(mode: str, *endpoints: str) -> list[str]:
    return [n.name for n, _ in plan(mode, dict.fromkeys(endpoints), find)]


def test_the_mode_is_a_network() -> None:
    assert names("") == names("default") == names("bridge") == ["bridge"]
    assert names("default", "bridge") == ["bridge"]
    assert names("none") == ["none"]
    with pytest.raises(NotFound, match="network mine not found"):
        names("mine")


def test_requests_reach_their_network() -> None:
    request = EndpointRequest(mac_address="02:42:00:00:00:01")
    assert plan("default", {"bridge": request}, find) == [(NETWORKS["bridge"], request)]


def test_none_and_host_stand_alone() -> None:
    for mode, other in (("none", "bridge"), ("bridge", "none"), ("bridge", "host")):
        with pytest.raises(InvalidArgument, match="conflicting options"):
            names(mode, other)
    with pytest.raises(InvalidArgument, match="host"):
        names("host")


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (EndpointRequest(aliases=["a"]), InvalidArgument, "network-scoped alias"),
        (
            EndpointRequest(ipam_config=EndpointIpamConfig(ipv4_address="172.17.0.9")),
            InvalidArgument,
            "user specified IP address is supported on user defined networks only",
        ),
        (EndpointRequest(ipam_config=EndpointIpamConfig(ipv6_address="fd00::9")), NotImplemented_, "IPv6"),
        (
            EndpointRequest(ipam_config=EndpointIpamConfig(link_local_ips=["169.254.1.1"])),
            NotImplemented_,
            "link-local",
        ),
        (EndpointRequest(links=["other:db"]), NotImplemented_, "--link"),
        (EndpointRequest(driver_opts={"a": "b"}), NotImplemented_, "driver options"),
    ],
)
def test_what_cannot_be_met_is_named(request_: EndpointRequest, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan("bridge", {"bridge": request_}, find)
