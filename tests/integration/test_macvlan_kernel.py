"""macvlan on a wire to another host, with a DHCP server there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network_lab import QUIET, ask, footprint, lacks, manager, on_a_host, other_host, serve, shell, until
from patience import patiently
from test_networks_kernel import container, ip, network, resolve, started

from wherry.errors import Conflict, Forbidden, Internal, InvalidArgument, NotFound, Unavailable
from wherry.linux import netns
from wherry.linux import rtkinds as kinds
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network.dhcp import client as dhcp_client
from wherry.network.dhcp import leases as dhcp_leases
from wherry.network.types import Sandbox, Subnet

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_SUBNET = Subnet(cidr="198.51.100.0/24", gateway="198.51.100.2", ip_range="198.51.100.64/26")


@on_a_host
def test_containers_are_on_the_hosts_own_network(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    before = footprint(tmp_path)
    network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": "lan"})
    web, other = container(m, "wire", name="web"), container(m, "wire", name="other")
    serve(web.path, 80, "web")
    assert ask(web.path, "198.51.100.2", 80) == f"lan {ip(web)}", "under its own address"
    assert ask(lan, ip(web), 80) == "web 198.51.100.2"
    assert ask(other.path, ip(web), 80) == f"web {ip(other)}"
    assert resolve(other, "web") == [ip(web)]
    assert ask(None, ip(web), 80, timeout=QUIET) in ("silence", "No route to host"), (
        "the kernel keeps them apart"
    )
    with pytest.raises(Forbidden, match="network wire is already using parent interface lan"):
        network(m, "more", driver="macvlan", subnets=(Subnet(cidr="10.9.0.0/24"),), options={"parent": "lan"})
    for box in (web, other):
        m.sandboxes.delete(box.container_id)
    m.networks.remove("wire")
    m.settle()
    after = footprint(tmp_path)
    assert (after["links"], after["rows"], after["nft"]) == (before["links"], before["rows"], before["nft"])


@on_a_host
def test_modes(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    options = {"parent": "lan", "macvlan_mode": "private"}
    network(m, "private", driver="macvlan", subnets=(_SUBNET,), options=options)
    web, other = container(m, "private"), container(m, "private")
    serve(web.path, 80, "web")
    assert ask(other.path, ip(web), 80, timeout=QUIET) in ("silence", "No route to host")
    assert ask(other.path, "198.51.100.2", 80) == f"lan {ip(other)}"
    for box in (web, other):
        m.sandboxes.delete(box.container_id)
    m.settle()
    m.networks.remove("private")
    network(
        m, "through", driver="macvlan", subnets=(_SUBNET,), options={**options, "macvlan_mode": "passthru"}
    )
    only = container(m, "through")
    assert ask(only.path, "198.51.100.2", 80) == f"lan {ip(only)}"
    with pytest.raises(Conflict, match="its parent is in use otherwise"):
        container(m, "through")


@on_a_host
def test_the_host_has_a_shim_on_request(tmp_path: Path) -> None:
    m = started(tmp_path)
    other_host(tmp_path / "hosts", "lan", "198.51.100")
    options = {"parent": "lan", "host_shim": "198.51.100.250"}
    network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options=options)
    web = container(m, "wire")
    serve(web.path, 80, "web")
    serve(None, 99, "host")
    assert ask(None, ip(web), 80) == "web 198.51.100.250"
    assert ask(web.path, "198.51.100.250", 99) == f"host {ip(web)}"
    with pytest.raises(Conflict, match="Address already in use"):
        wanted = EndpointRequest(ipam_config=EndpointIpamConfig(ipv4_address="198.51.100.250"))
        container(m, "wire", wire=wanted)
    # a daemon that starts again finds its way to running containers
    shell("ip", "route", "del", f"{ip(web)}/32")
    m.restore({web.container_id: 0})
    assert ask(None, ip(web), 80) == "web 198.51.100.250"
    m.sandboxes.delete(web.container_id)
    m.settle()
    assert ip(web) not in shell("ip", "route")
    m.networks.remove("wire")
    assert "wm-" not in shell("ip", "link")
    with pytest.raises(InvalidArgument, match="in none of the network's subnets"):
        shim = {"parent": "lan", "host_shim": "10.0.0.1"}
        network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options=shim)


@on_a_host
def test_parents_that_are_not_there(tmp_path: Path) -> None:
    m = started(tmp_path)
    before = footprint(tmp_path)
    for parent in ("nope", "nope.5", "lo.0", "lo.5000"):
        with pytest.raises(InvalidArgument, match=f"invalid parent interface {parent}"):
            network(m, "wire", driver="macvlan", subnets=(_SUBNET,), options={"parent": parent})
    with pytest.raises(InvalidArgument, match="invalid value for macvlan_mode"):
        network(m, "wire", driver="macvlan", options={"parent": "lo", "macvlan_mode": "open"})
    assert footprint(tmp_path) == before
    shell("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    if lacks(kinds.create_dummy("probe0")):
        with pytest.raises(Unavailable, match="this kernel has no dummy interfaces"):
            network(m, "alone", driver="macvlan", internal=True)
    if lacks(kinds.create_vlan("probe0", parent=0, number=5)):
        with pytest.raises(Unavailable, match="this kernel has no VLAN interfaces"):
            network(m, "tagged", driver="macvlan", subnets=(_SUBNET,), options={"parent": "up0.50"})
    else:
        with pytest.raises(Internal, match=r"interface up0 is down"):
            network(m, "tagged", driver="macvlan", subnets=(_SUBNET,), options={"parent": "up0.50"})
    assert "up0.50" not in shell("ip", "link")


@contextmanager
def dhcp_server(directory: Path, where: Path, *arguments: str) -> Iterator[Path]:
    """dnsmasq on the other host; yields its file of leases."""
    program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
    leases, log = directory / "leases", directory / "dnsmasq.log"
    argv = [
        program, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping",
        "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", f"--dhcp-leasefile={leases}",
        f"--log-facility={log}", "--log-dhcp", f"--pid-file={directory / 'pid'}", *arguments,
    ]  # fmt: skip
    process = netns.inside(where, lambda: subprocess.Popen(argv))
    try:
        until(lambda: log.exists() and "sockets bound" in log.read_text(), "dnsmasq")
        yield leases
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(patiently(10))


def addresses(box: Sandbox) -> str:
    return shell("ip", "-o", "-4", "addr", where=box.path)


@on_a_host
def test_addresses_from_a_dhcp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    monkeypatch.setattr(dhcp_leases, "RETRY", 0.2)
    network(m, "wire", driver="macvlan", ipam_driver="dhcp", options={"parent": "lan"})
    give = "--dhcp-range=198.51.100.100,198.51.100.120,255.255.255.0,2m"
    with dhcp_server(tmp_path, lan, give) as leases:
        web = container(m, "wire", name="web")
        other = container(m, "wire", name="other")
        assert ip(web).startswith("198.51.100.1") and f"{ip(web)}/24" in addresses(web)
        assert web.endpoints[0].gateway == "198.51.100.2"
        assert ask(web.path, "198.51.100.2", 80) == f"lan {ip(web)}"
        assert ip(web) in leases.read_text() and "web" in leases.read_text()
        assert resolve(other, "web") == [ip(web)]
        assert m.sandboxes.get(web.container_id).endpoints[0].ip == ip(web)  # type: ignore[union-attr]
        # a daemon that starts again asks for the same lease at once
        m.shutdown()
        again = manager(tmp_path)
        again.start()
        assert again.restore({web.container_id: 0, other.container_id: 0}) == []
        log = tmp_path / "dnsmasq.log"
        until(lambda: log.read_text().count(f"DHCPACK(eth0) {ip(web)}") > 1, "the lease to be renewed")
        again.sandboxes.delete(web.container_id)
        until(lambda: f"DHCPRELEASE(eth0) {ip(web)}" in log.read_text(), "the lease to be given back")
        m = again
    with dhcp_server(tmp_path, lan, "--dhcp-range=198.51.100.200,198.51.100.220,255.255.255.0,2m"):
        # the server has forgotten the lease, and has other addresses now
        (held,) = m.sandboxes._leases._held.values()
        with m.sandboxes._leases._changed:
            held.renew_at = 0
            m.sandboxes._leases._changed.notify()
        until(lambda: f"{ip(other)}/" not in addresses(other), "the new address")
        until(
            lambda: (m.sandboxes.endpoints_of(other.container_id)[0].ip).startswith("198.51.100.2"), "the row"
        )

        assert ask(other.path, "198.51.100.2", 80).startswith("lan 198.51.100.2")
    m.shutdown()


@on_a_host
def test_without_a_dhcp_server_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = started(tmp_path)
    other_host(tmp_path / "hosts", "lan", "198.51.100")
    monkeypatch.setattr(dhcp_client, "_TRIES", (0.05, 0.05))
    monkeypatch.setattr(
        dhcp_client.DhcpExchange._ask,
        "__kwdefaults__",
        {**dhcp_client.DhcpExchange._ask.__kwdefaults__, "tries": (0.05, 0.05)},
    )
    network(m, "wire", driver="macvlan", ipam_driver="dhcp", options={"parent": "lan"})
    before = footprint(tmp_path)
    with pytest.raises(Internal, match="cannot get an address on network wire: no DHCP server answers"):
        container(m, "wire")
    m.settle()
    assert footprint(tmp_path) == before
    with pytest.raises(InvalidArgument, match="IPAM driver dhcp needs driver macvlan"):
        network(m, "x", ipam_driver="dhcp")
    with pytest.raises(NotFound, match='plugin "nope" not found'):
        network(m, "x", ipam_driver="nope")
