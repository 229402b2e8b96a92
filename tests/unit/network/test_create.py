from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.network import create, options
from wherry.network.create import NetworkRequest, NetworkSurroundings
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.overlay import OverlayDriver
from wherry.network.drivers.vlans import MacvlanDriver
from wherry.network.types import IPNetwork, Network, NetworkConfig, Subnet

TRAITS = {d.name: d.traits for d in (BridgeDriver, MacvlanDriver, OverlayDriver)}
PREFIX = IPv6Network("fd12:3456:789a::/48")


def around(*networks: Network, routed: Callable[[], set[IPNetwork]] = set) -> NetworkSurroundings:
    taken = [s.network for n in networks if not n.config_only for s in n.subnets]
    return NetworkSurroundings({n.id: n for n in networks}, NetworkConfig(), taken, routed, PREFIX)


def make(*networks: Network, **request: Any) -> Network:
    asked = NetworkRequest(**{"name": "mine", **request})
    return create.make(asked, around(*networks), TRAITS[asked.driver or "bridge"])[0]


def test_subnets_are_chosen_for_each_family() -> None:
    plain = make()
    assert [(s.cidr, s.gateway) for s in plain.subnets] == [("172.18.0.0/24", "172.18.0.1")]
    both = make(plain, name="both", ipv6=True)
    assert [s.cidr for s in both.subnets] == ["172.18.1.0/24", "fd12:3456:789a::/64"]
    six = make(ipv4=False, ipv6=True)
    assert [s.family for s in six.subnets] == [6] and not six.enable_ipv4
    said = make(options={"com.docker.network.enable_ipv6": "true"})
    assert said.enable_ipv6


def test_what_the_host_has_a_route_to_is_left_alone() -> None:
    routed: set[IPNetwork] = {IPv4Network("172.16.0.0/12")}
    network, warnings = create.make(
        NetworkRequest("mine"), around(routed=lambda: routed), BridgeDriver.traits
    )
    assert (network.subnets[0].cidr, warnings) == ("192.168.0.0/24", [])
    asked = NetworkRequest("mine", subnets=(Subnet(cidr="172.20.0.0/24"),))
    network, warnings = create.make(asked, around(routed=lambda: routed), BridgeDriver.traits)
    assert network.subnets[0].gateway == "172.20.0.1"
    assert warnings == ["subnet 172.20.0.0/24 overlaps with 172.16.0.0/12, which this host has a route to"]


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "a:b", "-a", "a\x1b[31m", "ü", "a" * 256])
def test_names_no_network_can_have(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"network name|name is empty"):
        make(name=name)


@pytest.mark.parametrize("name", ["bridge", "host", "none", "default", "container", "ingress"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(Forbidden, match="operation is not permitted on predefined"):
        make(name=name)


def test_names_are_unique() -> None:
    with pytest.raises(Conflict, match="network with name mine already exists"):
        make(make())


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (Subnet(cidr="x"), "invalid subnet x: invalid CIDR block notation"),
        (Subnet(cidr="10.0.0.1/24"), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24"),
        (Subnet(cidr="10.0.0.0"), "it should be 10.0.0.0/32"),
        (
            Subnet(cidr="10.0.0.0/24", ip_range="10.0.1.0/25"),
            "parent subnet 10.0.0.0/24 doesn't contain ip-range",
        ),
        (Subnet(cidr="10.0.0.0/24", ip_range="fd00::/64"), "doesn't contain ip-range"),
        (Subnet(cidr="10.0.0.0/24", gateway="10.0.1.1"), "doesn't contain this address"),
        (Subnet(cidr="10.0.0.0/24", gateway="x"), "invalid gateway x: invalid address"),
        (Subnet(cidr="10.0.0.0/24", aux={"a": "10.9.0.1"}), "invalid auxiliary address a: parent"),
        (Subnet(cidr="fd00::/64"), "IPv6 subnet fd00::/64 without --ipv6"),
    ],
)
def test_subnets_that_make_no_sense(subnet: Subnet, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words.replace("(", "\\(")):
        make(subnets=(subnet,))


def test_subnets_that_overlap() -> None:
    there = make(subnets=(Subnet(cidr="10.0.0.0/24"),))
    for subnets in ((Subnet(cidr="10.0.0.0/16"),), (Subnet(cidr="10.1.0.0/16"), Subnet(cidr="10.1.2.0/24"))):
        with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
            make(there, name="other", subnets=subnets)


@pytest.mark.parametrize(
    ("driver", "scope"), [("bridge", "global"), ("", "global"), ("macvlan", "global"), ("overlay", "local")]
)
def test_scopes_that_a_driver_does_not_have(driver: str, scope: str) -> None:
    with pytest.raises(InvalidArgument, match="networks only"):
        make(driver=driver, scope=scope)
    with pytest.raises(InvalidArgument, match="invalid network scope"):
        make(scope="swarm")


def test_neither_family() -> None:
    with pytest.raises(InvalidArgument, match="IPv4 or IPv6 must be enabled"):
        make(ipv4=False)


def test_settings_of_another() -> None:
    settings = make(
        name="settings",
        config_only=True,
        subnets=(Subnet(cidr="10.5.0.0/24"),),
        options={options.MTU_OPTION: "1400"},
        labels={"a": "b"},
    )
    assert settings.config_only and settings.subnets[0].cidr == "10.5.0.0/24"
    network = make(settings, config_from="settings")
    assert (network.subnets[0].cidr, network.options, network.labels) == (
        "10.5.0.0/24",
        {options.MTU_OPTION: "1400"},
        {"a": "b"},
    )
    with pytest.raises(Forbidden, match="user-specified configurations are not supported"):
        make(settings, config_from="settings", labels={"x": "y"})
    with pytest.raises(NotFound, match="configuration network 'nope' not found"):
        make(config_from="nope")
    with pytest.raises(Forbidden, match="is not a configuration network"):
        make(make(name="real"), config_from="real")
    with pytest.raises(Forbidden):
        make(config_only=True, driver="macvlan")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"com.docker.network.bridge.enable_icc": "perhaps"}, "strconv.ParseBool"),
        ({"com.docker.network.driver.mtu": "1e3"}, "strconv.Atoi"),
        ({"com.docker.network.driver.mtu": "67"}, "68 to 65535"),
        ({"com.docker.network.bridge.name": "a b"}, "not a valid interface name"),
        ({"com.docker.network.bridge.name": "x" * 16}, "not a valid interface name"),
        (
            {"com.docker.network.bridge.gateway_mode_ipv4": "open"},
            "not one of nat, nat-unprotected, routed, isolated",
        ),
        ({"com.docker.network.bridge.host_binding_ipv4": "x"}, "does not appear to be"),
        ({"com.docker.network.host_ipv4": "::1"}, "Expected 4 octets"),
        ({"com.docker.network.container_iface_prefix": "a/b"}, "not a valid prefix"),
        ({"com.docker.network.bridge.enable_ic": "true"}, "network driver bridge does not have it"),
    ],
)
def test_options_that_make_no_sense(given: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        options.bridge(given)


def test_options() -> None:
    found = options.bridge(
        {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.trusted_host_interfaces": "eth0:vpn1",
            "com.docker.network.bridge.gateway_mode_ipv6": "routed",
            "com.docker.network.bridge.default_bridge": "true",
        }
    )
    assert (found.icc, found.trusted, found.mode(6), found.mode(4)) == (
        False,
        ("eth0", "vpn1"),
        "routed",
        "nat",
    )


@pytest.mark.parametrize(("text", "bytes_"), [("0", 0), ("68", 68), ("1500", 1500), ("65535", 65535)])
def test_sizes_of_packets(text: str, bytes_: int) -> None:
    assert options.bridge({options.MTU_OPTION: text}).mtu == bytes_


@pytest.mark.parametrize("text", ["1", "65536", "-1", "+1500"])
def test_no_sizes_of_packets(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"MTU number|68 to 65535"):
        options.bridge({options.MTU_OPTION: text})
