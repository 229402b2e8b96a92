"""ipvlan and 802.1Q VLANs on a wire to another host, where the kernel has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from network_lab import QUIET, ask, footprint, lacks, manager, on_a_host, other_host, serve, shell
from test_networks_kernel import container, ip, network, resolve, started

from wherry.errors import Internal, Unavailable
from wherry.linux import rtkinds as kinds
from wherry.network.drivers.vlans import ipvlan_missing
from wherry.network.types import Subnet

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_SUBNET = Subnet(cidr="198.51.100.0/24", gateway="198.51.100.2", ip_range="198.51.100.64/26")
_BEYOND = Subnet(cidr="203.0.113.0/24", gateway="203.0.113.2")
_UNHEARD = ("silence", "No route to host")


def _need_ipvlan() -> None:
    if ipvlan_missing():
        pytest.skip(ipvlan_missing())


def _need_vlans() -> None:
    if lacks(kinds.create_vlan("probe0", parent=0, number=5)):
        pytest.skip("this kernel has no VLAN interfaces")


def _need_dummies() -> None:
    if lacks(kinds.create_dummy("probe0")):
        pytest.skip("this kernel has no dummy interfaces")
    shell("ip", "link", "del", "probe0")


@on_a_host
def test_without_ipvlan_it_is_refused_by_name(tmp_path: Path) -> None:
    if not ipvlan_missing():
        pytest.skip("this kernel has ipvlan")
    m = started(tmp_path)
    other_host(tmp_path / "hosts", "lan", "198.51.100")
    with pytest.raises(Unavailable, match="this kernel has no ipvlan"):
        network(m, "wire", driver="ipvlan", subnets=(_SUBNET,), options={"parent": "lan"})


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
@on_a_host
def test_containers_meet_each_other_and_a_peer(tmp_path: Path, mode: str) -> None:
    _need_ipvlan()
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    before = footprint(tmp_path)
    if mode != "l2":
        # nobody answers for addresses there: others have a route by the host
        shell("ip", "route", "add", _BEYOND.cidr, "via", "198.51.100.1", where=lan)
    subnet = _SUBNET if mode == "l2" else _BEYOND
    options = {"parent": "lan", "ipvlan_mode": mode}
    network(m, "wire", driver="ipvlan", subnets=(subnet,), options=options)
    web, other = container(m, "wire", name="web"), container(m, "wire", name="other")
    serve(web.path, 80, "web")
    assert ask(other.path, ip(web), 80) == f"web {ip(other)}"
    assert ask(other.path, "198.51.100.2", 80) == f"lan {ip(other)}", "under its own address"
    assert ask(lan, ip(web), 80) == "web 198.51.100.2"
    assert resolve(other, "web") == [ip(web)]
    shown = " ".join(shell("ip", "-d", "link", "show", "eth0", where=web.path).split())
    assert f"ipvlan mode {mode} bridge" in shown
    routes = shell("ip", "route", "show", "default", where=web.path)
    assert "via 198.51.100.2" in routes if mode == "l2" else "via" not in routes and "dev eth0" in routes
    for box in (web, other):
        m.sandboxes.delete(box.container_id)
    m.networks.remove("wire")
    m.settle()
    after = footprint(tmp_path)
    assert (after["links"], after["rows"], after["nft"]) == (before["links"], before["rows"], before["nft"])


@on_a_host
def test_private_containers_reach_the_peer_alone(tmp_path: Path) -> None:
    _need_ipvlan()
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    options = {"parent": "lan", "ipvlan_flag": "private"}
    network(m, "wire", driver="ipvlan", subnets=(_SUBNET,), options=options)
    web, other = container(m, "wire"), container(m, "wire")
    serve(web.path, 80, "web")
    assert ask(lan, ip(web), 80) == "web 198.51.100.2"
    assert ask(other.path, "198.51.100.2", 80) == f"lan {ip(other)}"
    assert ask(other.path, ip(web), 80, timeout=QUIET) in _UNHEARD


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
@on_a_host
def test_containers_without_a_parent_meet(tmp_path: Path, driver: str) -> None:
    _need_dummies()
    if driver == "ipvlan":
        _need_ipvlan()
    m = started(tmp_path)
    before = footprint(tmp_path)
    network(m, "alone", driver=driver, subnets=(Subnet(cidr="10.9.0.0/24"),), internal=True)
    web, other = container(m, "alone"), container(m, "alone")
    serve(web.path, 80, "web")
    assert ask(other.path, ip(web), 80) == f"web {ip(other)}"
    for box in (web, other):
        m.sandboxes.delete(box.container_id)
    m.networks.remove("alone")
    m.settle()
    assert footprint(tmp_path)["links"] == before["links"]


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
@on_a_host
def test_a_vlan_is_made_and_carries_tagged_traffic(tmp_path: Path, driver: str) -> None:
    _need_vlans()
    if driver == "ipvlan":
        _need_ipvlan()
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    for line in (
        "link add link eth0 name tagged type vlan id 50",
        "addr add 203.0.113.2/24 dev tagged",
        "link set tagged up",
    ):
        shell("ip", *line.split(), where=lan)
    serve(lan, 80, "lan")
    before = footprint(tmp_path)
    network(m, "wire", driver=driver, subnets=(_BEYOND,), options={"parent": "lan.50"})
    assert "vlan protocol 802.1Q id 50" in shell("ip", "-d", "link", "show", "lan.50")
    web, other = container(m, "wire"), container(m, "wire")
    serve(web.path, 80, "web")
    assert ask(web.path, "203.0.113.2", 80) == f"lan {ip(web)}"
    assert ask(lan, ip(web), 80) == "web 203.0.113.2"
    assert ask(other.path, ip(web), 80) == f"web {ip(other)}"
    # the same address, but untagged: not of this network
    shell("ip", "link", "del", "tagged", where=lan)
    shell("ip", "addr", "add", "203.0.113.2/24", "dev", "eth0", where=lan)
    assert ask(lan, ip(web), 80, timeout=QUIET) in _UNHEARD
    for box in (web, other):
        m.sandboxes.delete(box.container_id)
    m.settle()
    m.networks.remove("wire")
    assert footprint(tmp_path)["links"] == before["links"]


@on_a_host
def test_a_vlan_comes_back_with_the_daemon_and_goes_with_its_network(tmp_path: Path) -> None:
    _need_vlans()
    m = started(tmp_path)
    other_host(tmp_path / "hosts", "lan", "198.51.100")
    network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": "lan.50"})
    m.shutdown()
    shell("ip", "link", "del", "lan.50")  # as a host has it that was switched off
    m = manager(tmp_path)
    m.start()
    assert ",UP," in shell("ip", "link", "show", "lan.50")
    m.networks.remove("wire")
    assert "lan.50" not in shell("ip", "link")
    # one that the host's owner made is the owner's
    shell("ip", "link", "add", "link", "lan", "name", "lan.60", "type", "vlan", "id", "60")
    network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": "lan.60"})
    m.networks.remove("wire")
    assert "lan.60" in shell("ip", "link")


@on_a_host
def test_a_vlan_of_an_interface_that_is_down_is_not_left_behind(tmp_path: Path) -> None:
    _need_vlans()
    m = started(tmp_path)
    other_host(tmp_path / "hosts", "lan", "198.51.100")
    shell("ip", "link", "set", "lan", "down")
    before = footprint(tmp_path)
    with pytest.raises(Internal, match=r"cannot set up network wire: interface lan is down"):
        network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": "lan.50"})
    assert footprint(tmp_path) == before
    shell("ip", "link", "set", "lan", "up")
    network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": "lan.50"})
