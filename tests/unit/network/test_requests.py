from __future__ import annotations

import pytest
from msgspec.structs import replace

from wherry.errors import InvalidArgument, NotFound
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network.drivers import Traits
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.requests import plan
from wherry.network.types import Network

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
NETWORKS = {
    name: Network(id=name * 8, name=name, driver=driver, created=1)
    for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"), ("mine", "bridge"))
}
NETWORKS |= {n: replace(NETWORKS[n], has_names=False) for n in ("bridge", "host", "none")}
DRIVERS = {d.name: d.traits for d in (BridgeDriver, HostDriver, NoneDriver)}


def traits(driver: str) -> Traits:
    return DRIVERS[driver]


def find(wanted: str) -> Network:
    name = "bridge" if wanted == "default" else wanted
    if name not in NETWORKS:
        raise NotFound(f"network {wanted} not found")
    return NETWORKS[name]


def names(mode: str, *endpoints: str) -> list[str]:
    return [n.name for n, _ in plan(mode, dict.fromkeys(endpoints) or None, find, traits)]


def test_the_mode_is_a_network() -> None:
    assert names("") == names("default") == names("bridge") == ["bridge"]
    assert names("default", "bridge") == ["bridge"]
    assert names("none") == ["none"]
    with pytest.raises(NotFound, match="network other not found"):
        names("other")


def test_a_container_may_be_on_no_network_and_on_several() -> None:
    assert plan("mine", {}, find, traits) == []
    assert names("mine", "mine", "bridge") == ["mine", "bridge"]


def test_requests_reach_their_network() -> None:
    request = EndpointRequest(mac_address="02:42:00:00:00:01")
    assert plan("default", {"bridge": request}, find, traits) == [(NETWORKS["bridge"], request)]


def test_none_and_host_stand_alone() -> None:
    for mode, other in (("none", "bridge"), ("bridge", "none"), ("bridge", "host")):
        with pytest.raises(InvalidArgument, match="conflicting options"):
            names(mode, mode, other)
    with pytest.raises(InvalidArgument, match="host"):
        names("host")


def address(ip4: str = "", ip6: str = "", *link_local: str) -> EndpointRequest:
    config = EndpointIpamConfig(ipv4_address=ip4, ipv6_address=ip6, link_local_ips=list(link_local))
    return EndpointRequest(ipam_config=config)


@pytest.mark.parametrize(
    ("network", "request_", "words"),
    [
        ("bridge", EndpointRequest(aliases=["a"]), "network-scoped alias"),
        (
            "bridge",
            address("172.17.0.9"),
            "user specified IP address is supported on user defined networks only",
        ),
        ("mine", address("172.17.0.9"), "only when connecting to networks with user configured subnets"),
        ("mine", address("", "fd00::9"), "only when connecting to networks with user configured subnets"),
        ("mine", address("x"), "invalid IPv4 address"),
        ("mine", address("", "", "10.0.0.1"), "invalid link-local IP address 10.0.0.1"),
        ("mine", EndpointRequest(links=[":x"]), "bad format for links"),
        ("mine", EndpointRequest(aliases=["a\nb"]), "invalid network alias"),
        ("mine", EndpointRequest(driver_opts={"a": "b"}), "invalid driver option 'a'"),
        ("mine", EndpointRequest(driver_opts={IFNAME: "a b"}), "not a valid interface name"),
        (
            "mine",
            EndpointRequest(driver_opts={SYSCTLS: "net.ipv4.ip_forward=1"}),
            "unrecognised network interface sysctl",
        ),
        (
            "mine",
            EndpointRequest(driver_opts={SYSCTLS: "net.ipv4.conf.Ifname.a=1"}),
            "unrecognised network interface sysctl",
        ),
        (
            "mine",
            EndpointRequest(driver_opts={SYSCTLS: "net.ipv4.conf.IFNAME.x/../y=1"}),
            "unrecognised network interface sysctl",
        ),
    ],
)
def test_what_cannot_be_met_is_named(network: str, request_: EndpointRequest, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        plan(network, {network: request_}, find, traits)
