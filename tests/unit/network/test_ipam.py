from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from databases import open_database
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.errors import Conflict, Forbidden, InvalidArgument
from wherry.network import ipam
from wherry.network.types import BRIDGE_POOLS, DEFAULT_ADDRESS_POOLS, Network, Subnet
from wherry.state import schema
from wherry.state.networks import EndpointRow, NetworkRow, Networks


class Pool:
    """A network with rows, as the manager keeps it."""

    def __init__(self, subnet: Subnet) -> None:
        self.rows = Networks(open_database(":memory:", schema.MIGRATIONS))
        self.network = Network(id="n" * 64, name="net", driver="bridge", created=1, subnets=(subnet,))
        self.rows.put_network(NetworkRow("n" * 64, "net", "bridge", 1, b"{}"))

    def take(self, wanted: str = "") -> str:
        ip, _ = ipam.allocate(self.rows, self.network, wanted)
        self.rows.insert_sandbox(ip, 1)
        self.rows.insert_endpoint(EndpointRow(ip, self.network.id, ip, ip, b"{}"))
        return ip

    def give_back(self, ip: str) -> None:
        self.rows.delete_sandbox(ip)


def pool(cidr: str = "10.0.0.0/29", **more: object) -> Pool:
    gateway = str(IPv4Network(cidr).network_address + 1)
    return Pool(Subnet(cidr=cidr, gateway=gateway, **more))  # type: ignore[arg-type]


def test_gateway_network_and_broadcast_are_not_handed_out() -> None:
    p = pool()
    assert [p.take() for _ in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        p.take()


def test_an_address_given_back_rests() -> None:
    p = pool()
    first = p.take()
    p.give_back(first)
    assert [p.take() for _ in range(5)] == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", first]


def test_wanted_address() -> None:
    p = pool()
    assert p.take("10.0.0.5") == "10.0.0.5"
    with pytest.raises(Conflict, match="Address already in use"):
        p.take("10.0.0.5")
    for reserved in ("10.0.0.1", "10.0.0.0", "10.0.0.7"):
        with pytest.raises(Conflict, match="Address already in use"):
            p.take(reserved)
    with pytest.raises(InvalidArgument, match="no configured subnet or ip-range contain the IP address"):
        p.take("10.0.1.2")
    with pytest.raises(InvalidArgument, match="invalid IPv4 address"):
        p.take("nonsense")
    assert [p.take() for _ in range(4)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6"]


def test_range_and_reserved_names() -> None:
    p = pool("10.0.0.0/24", ip_range="10.0.0.8/30", aux={"router": "10.0.0.9"})
    assert [p.take() for _ in range(3)] == ["10.0.0.8", "10.0.0.10", "10.0.0.11"]
    with pytest.raises(Conflict):
        p.take()
    assert p.take("10.0.0.77") == "10.0.0.77"


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60))
def test_no_two_have_the_same(moves: list[int]) -> None:
    p = pool("10.0.0.0/28")
    held: list[str] = []
    for move in moves:
        if move < 4 and held:
            p.give_back(held.pop(move % len(held)))
        elif len(held) < 13:
            ip = p.take()
            assert ip not in held
            assert IPv4Address(ip) in IPv4Network("10.0.0.0/28")
            held.append(ip)


def test_first_free_subnet() -> None:
    assert ipam.pick_subnet(BRIDGE_POOLS, set()) == Subnet(cidr="172.17.0.0/16", gateway="172.17.0.1")
    used = {IPv4Network("172.17.3.0/24"), IPv4Network("172.18.0.0/15")}
    assert ipam.pick_subnet(BRIDGE_POOLS, used).cidr == "172.20.0.0/16"
    assert ipam.pick_subnet(DEFAULT_ADDRESS_POOLS, used).cidr == "172.20.0.0/24"
    used = {IPv4Network("172.16.0.0/12"), IPv4Network("192.168.1.0/24"), IPv4Network("192.168.0.0/25")}
    assert ipam.pick_subnet(DEFAULT_ADDRESS_POOLS, used).cidr == "192.168.2.0/24"


def test_thousands_of_networks_fit() -> None:
    used: set[IPv4Network | IPv6Network] = set()
    for _ in range(3000):
        used.add(IPv4Network(ipam.pick_subnet(DEFAULT_ADDRESS_POOLS, used).cidr))
    assert len(used) == 3000


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 255), st.integers(20, 30)), max_size=20))
def test_a_subnet_overlaps_nothing(taken: set[tuple[int, int]]) -> None:
    used = {IPv4Network((f"10.0.{third}.0", prefix), strict=False) for third, prefix in taken}
    try:
        found = ipam.pick_subnet((("10.0.0.0/16", 26),), used)
    except Forbidden:
        assert sum(n.num_addresses for n in used) > (1 << 16) // 64
        return
    assert not any(IPv4Network(found.cidr).overlaps(n) for n in used)


def test_ipv6() -> None:
    prefix = ipam.local_prefix(bytes(range(5)))
    assert str(prefix) == "fd00:102:304::/48"
    subnet = ipam.pick_subnet(((str(prefix), 64),), {IPv6Network("fd00:102:304::/64")}, 6)
    assert subnet == Subnet(cidr="fd00:102:304:1::/64", gateway="fd00:102:304:1::1")
    p = Pool(subnet)
    found = [ipam.allocate(p.rows, p.network, family=6)[0] for _ in range(2)]
    assert found == ["fd00:102:304:1::2", "fd00:102:304:1::3"]
    assert ipam.allocate(p.rows, p.network, "fd00:102:304:1::99", family=6)[0] == "fd00:102:304:1::99"
    with pytest.raises(InvalidArgument, match="invalid IPv6 address"):
        ipam.allocate(p.rows, p.network, "10.0.0.1", family=6)


def test_status_counts() -> None:
    p = pool("10.0.0.0/28", aux={"r": "10.0.0.9"})
    p.take()
    assert ipam.status(p.rows, p.network, p.network.subnets[0]) == (5, 11)


def test_no_subnet_left() -> None:
    with pytest.raises(Forbidden, match="all predefined address pools have been fully subnetted"):
        ipam.pick_subnet((("10.0.0.0/24", 25),), {IPv4Network("10.0.0.0/8")})


@pytest.mark.parametrize("bad", [("10.0.0.0/24", 16), ("10.0.0.0/24", 31), ("10.0.0.1/24", 25), ("x", 24)])
def test_bad_address_pool(bad: tuple[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="cannot use address pool"):
        ipam.pick_subnet((bad,), set())


def test_bip() -> None:
    assert ipam.parse_bip("192.168.5.9/24") == Subnet(cidr="192.168.5.0/24", gateway="192.168.5.9")
    assert ipam.parse_bip("fd00::9/64") == Subnet(cidr="fd00::/64", gateway="fd00::9")


@pytest.mark.parametrize(
    "bip",
    ["192.168.5.0/24", "192.168.5.255/24", "192.168.5.1", "192.168.5.1/31", "fd00::/64", "fd00::1", "x"],
)
def test_bad_bip(bip: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid"):
        ipam.parse_bip(bip)


def test_mac() -> None:
    assert ipam.mac_for("172.17.0.2") == "02:42:ac:11:00:02"
    assert ipam.check_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "mac", ["", "x", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:ac:11:00", "0x:" * 6]
)
def test_bad_mac(mac: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid MAC address"):
        ipam.check_mac(mac)
