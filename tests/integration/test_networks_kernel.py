"""Networks of one's own on the real kernel: who reaches whom, by which address, under which name."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from network_lab import (
    QUIET,
    ask,
    footprint,
    manager,
    on_a_host,
    other_host,
    ruleset_words,
    serve,
    shell,
    until,
)
from patience import patiently

from wherry.errors import Conflict, Forbidden, Internal, InvalidArgument
from wherry.linux import conntrack, netns
from wherry.linux.netlink import NetlinkSocket
from wherry.linux.nft import Nft
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network import ports as module_of_ports
from wherry.network import sandbox
from wherry.network.catalog import Catalog
from wherry.network.create import NetworkRequest
from wherry.network.dns import message
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.hostsetup import HostSetup
from wherry.network.publishing import Publishing
from wherry.network.room import NetworkRoom
from wherry.network.types import Network, Owner, PortMapping, Resolving, Sandbox, Subnet

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_BRIDGE = "com.docker.network.bridge."


def started(directory: Path) -> NetworkRoom:
    m = manager(directory)
    m.start()
    return m


def network(m: NetworkRoom, name: str, **request: Any) -> Network:
    return m.networks.create(NetworkRequest(name=name, **request))[0]


def container(
    m: NetworkRoom,
    *networks: str,
    name: str = "",
    ports: tuple[PortMapping, ...] = (),
    resolving: Resolving | None = None,
    **requests: EndpointRequest,
) -> Sandbox:
    return m.sandboxes.create(
        secrets.token_hex(32),
        endpoints={n: requests.get(n) for n in networks},
        ports=ports,
        owner=Owner(name=name or "box", resolving=resolving or Resolving()),
    )


def question(name: str, kind: int = message.A) -> bytes:
    labels = b"".join(bytes((len(p),)) + p.encode() for p in name.split(".")) + b"\0"
    return message.HEADER.pack(7, 0x0100, 1, 0, 0, 0) + labels + kind.to_bytes(2, "big") + b"\0\1"


def resolve(box: Sandbox, name: str, kind: int = message.A, *, timeout: float = 5) -> list[str] | int:
    """The addresses that 127.0.0.11 answers inside a container, or the code of its refusal."""

    def query() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patiently(timeout))
            sock.connect(("127.0.0.11", 53))
            sock.send(question(name, kind))
            return sock.recv(4096)

    reply = netns.inside(box.path, query)
    code, count = reply[3] & 15, int.from_bytes(reply[6:8], "big")
    if code:
        return code
    size = {message.A: 4, message.AAAA: 16}[kind]
    end = 12 + len(name) + 2 + 4
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    records = [reply[end + i * (12 + size) :][: 12 + size] for i in range(count)]
    return sorted(socket.inet_ntop(family, r[12:]) for r in records)


def ip(box: Sandbox, position: int = 0) -> str:
    return box.endpoints[position].ip


@on_a_host
def test_networks_are_apart_and_their_own_meet(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "warm")
    m.sandboxes.delete(container(m, "warm").container_id)
    m.settle()
    before = footprint(tmp_path)
    network(m, "front")
    network(m, "back")
    web, db, both = container(m, "front"), container(m, "back"), container(m, "front", "back")
    for box, word in ((web, "web"), (db, "db")):
        serve(box.path, 80, word)
    assert ask(both.path, ip(web), 80) == f"web {ip(both)}"
    assert ask(both.path, ip(db), 80) == f"db {ip(both, 1)}"
    assert ask(web.path, ip(db), 80, timeout=QUIET) == "silence"
    assert ask(db.path, ip(web), 80, timeout=QUIET) == "silence"
    with pytest.raises(Forbidden, match="network front has active endpoints"):
        m.networks.remove("front")
    for box in (web, db, both):
        m.sandboxes.delete(box.container_id)
    m.networks.remove("front")
    m.networks.remove("back")
    m.settle()
    # two descriptors are those of the servers of this test
    assert footprint(tmp_path) == {**before, "descriptors": int(str(before["descriptors"])) + 2}


@on_a_host
def test_an_internal_network_leads_nowhere(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    network(m, "inner", internal=True)
    network(m, "outer")
    box, neighbour = container(m, "inner"), container(m, "inner")
    web = container(m, "outer", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(web.path, 80, "web")
    serve(neighbour.path, 80, "neighbour")
    assert ask(box.path, ip(neighbour), 80) == f"neighbour {ip(box)}"
    assert ask(box.path, "198.51.100.2", 80, timeout=QUIET) == "Network is unreachable"
    gateway = m.networks.get("inner").subnets[0].gateway
    shell("ip", "route", "add", "default", "via", gateway, where=box.path)
    assert ask(box.path, "198.51.100.2", 80, timeout=QUIET) == "silence"
    assert ask(box.path, gateway, 8080, timeout=QUIET) == "silence", "not even a published port"


@on_a_host
def test_addresses_are_as_asked_and_nobody_elses(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "mine", subnets=(Subnet(cidr="10.9.0.0/24", ip_range="10.9.0.128/25"),), ipv6=True)
    wanted = EndpointRequest(
        ipam_config=EndpointIpamConfig(ipv4_address="10.9.0.7", link_local_ips=["169.254.3.4"]),
        mac_address="02:00:00:00:00:07",
        driver_opts={
            "com.docker.network.endpoint.ifname": "lan0",
            "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1",
        },
    )
    box = container(m, "mine", mine=wanted)
    shown = shell("ip", "-o", "addr", "show", "dev", "lan0", where=box.path)
    assert "10.9.0.7/24" in shown and "169.254.3.4/16" in shown and box.endpoints[0].ip6 in shown
    assert "02:00:00:00:00:07" in shell("ip", "link", "show", "lan0", where=box.path)
    martians = "/proc/sys/net/ipv4/conf/lan0/log_martians"
    assert netns.inside(box.path, Path(martians).read_text) == "1\n"
    before = footprint(tmp_path)
    with pytest.raises(Conflict, match="Address already in use"):
        container(m, "mine", mine=wanted)
    with pytest.raises(Conflict, match="MAC address 02:00:00:00:00:07 is already in use"):
        container(m, "mine", mine=EndpointRequest(mac_address="02:00:00:00:00:07"))
    odd = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.no_such_thing=1"}
    with pytest.raises(InvalidArgument, match=r"cannot set sysctl net\.ipv4\.conf\.eth0\.no_such_thing=1"):
        container(m, "mine", mine=EndpointRequest(driver_opts=odd))
    m.settle()
    assert footprint(tmp_path) == before
    assert ip(container(m, "mine")) >= "10.9.0.128"


@on_a_host
def test_connecting_and_disconnecting_while_it_runs(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "front")
    network(m, "back")
    web = container(m, "front", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(web.path, 80, "web")
    client = container(m, "back")
    before = footprint(tmp_path)
    endpoint = m.sandboxes.connect(web.container_id, "back", EndpointRequest(aliases=["www"], gw_priority=1))
    assert endpoint.ifname == "eth1"
    assert ask(client.path, endpoint.ip, 80) == f"web {ip(client)}"
    back, front = (m.networks.get(n).subnets[0].gateway for n in ("back", "front"))
    assert f"default via {back}" in shell("ip", "route", where=web.path), "the higher priority"
    assert ask(None, "127.0.0.1", 8080) == f"web {back}", "the port follows the way out"
    with pytest.raises(Forbidden, match="already exists in network back"):
        m.sandboxes.connect(web.container_id, "back", EndpointRequest())
    m.sandboxes.disconnect(web.container_id, m.networks.get("front").id)
    assert ask(None, "127.0.0.1", 8080) == f"web {back}"
    m.sandboxes.connect(web.container_id, "front", EndpointRequest())
    m.sandboxes.disconnect(web.container_id, m.networks.get("back").id)
    assert f"default via {front}" in shell("ip", "route", where=web.path)
    assert ask(None, "127.0.0.1", 8080) == f"web {front}"
    assert ask(client.path, endpoint.ip, 80, timeout=QUIET) in ("silence", "No route to host")
    after = footprint(tmp_path)
    assert (after["rows"], len(after["links"]), after["descriptors"]) == (  # type: ignore[arg-type]
        before["rows"],
        len(before["links"]),  # type: ignore[arg-type]
        before["descriptors"],
    )
    m.sandboxes.disconnect(web.container_id, m.networks.get("front").id)
    assert ask(None, "127.0.0.1", 8080, timeout=QUIET) == "refused"
    ports = [PortMapping(container_port=80, host_port=8080)]
    m.sandboxes.connect(web.container_id, "back", EndpointRequest(), ports=ports)
    assert ask(None, "127.0.0.1", 8080) == f"web {back}", "published again, as it can be reached again"


def serve6(where: Path, port: int, word: str) -> None:
    """As ``serve``, for IPv6; ends with the process."""
    listener = netns.inside(where, lambda: socket.create_server(("::", port), family=socket.AF_INET6))

    def run() -> None:
        while True:
            connection, peer = listener.accept()
            with connection:
                connection.sendall(f"{word} {peer[0]}".encode())

    threading.Thread(target=run, daemon=True).start()


def ask6(where: Path | None, address: str, port: int, timeout: float = 5) -> str:
    def run() -> str:
        try:
            with socket.create_connection((address, port), patiently(timeout)) as sock:
                return sock.recv(100).decode()
        except TimeoutError:
            return "silence"
        except OSError as e:
            return os.strerror(e.errno or 0)

    return run() if where is None else netns.inside(where, run)


def other_host6(directory: Path) -> Path:
    """Another host on a wire, 2001:db8::2, to this one, 2001:db8::1, with IPv4 addresses besides."""
    lan = other_host(directory, "lan", "198.51.100")
    for where, device, address in ((None, "lan", "2001:db8::1"), (lan, "eth0", "2001:db8::2")):
        shell("ip", "addr", "add", f"{address}/64", "dev", device, "nodad", where=where)
    return lan


@on_a_host
def test_ipv6_is_published_beside_ipv4(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host6(tmp_path / "hosts")
    network(m, "six", ipv6=True)
    web = container(m, "six", ports=(PortMapping(container_port=80, host_port=8080),))
    serve6(web.path, 80, "web")
    assert [p.host_ip for p in web.ports] == ["0.0.0.0", "::"]
    assert ask6(lan, "2001:db8::1", 8080) == "web 2001:db8::2", "the source address stays"
    assert ask6(None, "2001:db8::1", 8080).startswith("web ")
    client = container(m, "six")
    assert ask6(client.path, web.endpoints[0].ip6, 80) == f"web {client.endpoints[0].ip6}"
    shell("ip", "-6", "route", "add", "fd00::/8", "via", "2001:db8::1", where=lan)
    assert ask6(lan, web.endpoints[0].ip6, 80, QUIET) == "silence", "only what is published is reached"
    serve6(lan, 99, "lan")
    assert ask6(client.path, "2001:db8::2", 99) == "lan 2001:db8::1", "out by the host's address"


@on_a_host
def test_the_hosts_own_programs_reach_ports_by_the_ipv6_loopback(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host6(tmp_path / "hosts")
    network(m, "six", ipv6=True)
    network(m, "back", ipv6=True)
    network(m, "four")
    everywhere = PortMapping(container_port=80, host_port=8080)
    here = PortMapping(container_port=80, host_port=9090, host_ip="::1")
    web = container(m, "six", ports=(everywhere, here))
    serve6(web.path, 80, "web")
    old = container(m, "four", ports=(PortMapping(container_port=80, host_port=7070, host_ip="::1"),))
    serve(old.path, 80, "old")
    for port, word in ((8080, "web"), (9090, "web"), (7070, "old")):
        assert ask6(None, "::1", port).startswith(f"{word} ")
    assert ask6(lan, "2001:db8::1", 8080) == "web 2001:db8::2", "others by translation, as before"
    for port in (9090, 7070):
        assert ask6(lan, "2001:db8::1", port, QUIET) in ("Connection refused", "silence")
    client = container(m, "six")
    assert ask6(client.path, "::1", 8080, QUIET) == "Connection refused", "its own loopback is another"
    with pytest.raises(InvalidArgument, match="cannot publish on ::1: for udp that is not implemented"):
        m.sandboxes.publish(web.container_id, [PortMapping(container_port=53, host_ip="::1", proto="udp")])
    m.sandboxes.connect(web.container_id, "back", EndpointRequest(gw_priority=1))
    assert ask6(None, "::1", 9090).startswith("web "), "led to where the container is reached now"
    m.sandboxes.unpublish(web.container_id, [p for p in web.ports if p.host_port == 9090])
    assert ask6(None, "::1", 9090) == "Connection refused"
    assert ask6(None, "::1", 8080).startswith("web ")
    m.shutdown()
    again = started(tmp_path)
    assert again.restore({box.container_id: 0 for box in (web, old, client)}) == []
    assert ask6(None, "::1", 8080).startswith("web ") and ask6(None, "::1", 7070).startswith("old ")
    again.sandboxes.delete(old.container_id)
    assert ask6(None, "::1", 7070) == "Connection refused"
    again.shutdown()
    assert not [t for t in threading.enumerate() if t.name == "loopback"]


@on_a_host
def test_only_those_on_the_list_connect(tmp_path: Path) -> None:
    m = started(tmp_path)
    friend = other_host(tmp_path / "hosts", "friend", "198.51.100")
    stranger = other_host(tmp_path / "hosts", "stranger", "203.0.113")
    network(m, "mine")
    listed = PortMapping(container_port=80, host_port=8080, sources=("198.51.100.0/24", "198.51.0.0/16"))
    web = container(m, "mine", ports=(listed, PortMapping(container_port=80, host_port=9090)))
    serve(web.path, 80, "web")
    assert ask(friend, "198.51.100.1", 8080) == "web 198.51.100.2"
    assert ask(stranger, "203.0.113.1", 8080, timeout=QUIET) == "silence"
    assert ask(stranger, "203.0.113.1", 9090) == "web 203.0.113.2"
    assert ask(None, "127.0.0.1", 8080).startswith("web "), "the host itself is on every list"
    m.sandboxes.unpublish(web.container_id, [p for p in web.ports if p.host_port == 8080])
    m.sandboxes.publish(web.container_id, [PortMapping(container_port=80, host_port=8080)])
    assert ask(stranger, "203.0.113.1", 8080) == "web 203.0.113.2"


@on_a_host
def test_ranges_keep_their_ports(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    network(m, "mine")
    ports = tuple(PortMapping(container_port=n, host_port=n) for n in range(8000, 8010))
    web = container(m, "mine", ports=ports)
    for port in (8000, 8004, 8009):
        serve(web.path, port, str(port))
        assert ask(lan, "198.51.100.1", port) == f"{port} 198.51.100.2"
    m.sandboxes.unpublish(web.container_id, [p for p in web.ports if p.host_port == 8004])
    assert ask(lan, "198.51.100.1", 8004, timeout=QUIET) == "refused"
    assert ask(lan, "198.51.100.1", 8009) == "8009 198.51.100.2"


@on_a_host
def test_gateway_modes(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    mode = f"{_BRIDGE}gateway_mode_ipv4"
    network(m, "routed", options={mode: "routed"})
    network(m, "open", options={mode: "nat-unprotected"})
    routed = container(m, "routed", ports=(PortMapping(container_port=80, host_port=8080),))
    opened = container(m, "open")
    for box in (routed, opened):
        serve(box.path, 80, "box")
        serve(box.path, 81, "box")
    assert ask(lan, ip(routed), 80) == "box 198.51.100.2"
    assert ask(lan, ip(routed), 81, timeout=QUIET) == "silence"
    assert ask(lan, "198.51.100.1", 8080, timeout=QUIET) == "refused"
    assert ask(routed.path, "198.51.100.2", 80) == f"lan {ip(routed)}", "no translation"
    assert ask(lan, ip(opened), 81) == "box 198.51.100.2"
    assert ask(opened.path, "198.51.100.2", 80) == "lan 198.51.100.1"
    with pytest.raises(InvalidArgument, match="gateway mode 'isolated' can only be used for an internal"):
        network(m, "x", options={mode: "isolated"})
    alone = network(m, "alone", internal=True, options={mode: "isolated"})
    assert "inet " not in shell("ip", "addr", "show", alone.bridge_name)


@on_a_host
def test_other_bridge_options(tmp_path: Path) -> None:
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    shell("ip", "addr", "add", "198.51.100.77/24", "dev", "lan")
    serve(lan, 80, "lan")
    options = {
        f"{_BRIDGE}name": "own0",
        f"{_BRIDGE}trusted_host_interfaces": "lan",
        f"{_BRIDGE}host_binding_ipv4": "198.51.100.77",
        "com.docker.network.driver.mtu": "1400",
        "com.docker.network.container_iface_prefix": "net",
        "com.docker.network.host_ipv4": "198.51.100.77",
    }
    network(m, "mine", options=options)
    web = container(m, "mine", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(web.path, 80, "web")
    assert "mtu 1400" in shell("ip", "link", "show", "own0")
    assert "mtu 1400" in shell("ip", "link", "show", "net0", where=web.path)
    assert ask(lan, ip(web), 80) == "web 198.51.100.2", "a trusted interface reaches containers directly"
    assert ask(lan, "198.51.100.77", 8080) == "web 198.51.100.2"
    assert ask(lan, "198.51.100.1", 8080, timeout=QUIET) == "refused"
    assert ask(web.path, "198.51.100.2", 80) == "lan 198.51.100.77"
    with pytest.raises(Conflict, match="bridge interface own0 is in use by another network"):
        network(m, "other", options={f"{_BRIDGE}name": "own0"})
    shell("ip", "link", "add", "theirs0", "type", "bridge")
    with pytest.raises(Conflict, match="interface theirs0 exists on this host"):
        network(m, "other", options={f"{_BRIDGE}name": "theirs0"})


@on_a_host
def test_the_table_comes_back_whatever_is_taken_from_it(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "mine")
    web = container(m, "mine", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(web.path, 80, "web")
    whole = ruleset_words()
    for attack in (
        "flush ruleset",
        "flush chain inet wherry forward",
        "flush set inet wherry bridges",
        "delete element inet wherry any4 { tcp . 8080 }",
        "insert rule inet wherry into_bridge accept",
    ):
        shell("nft", *attack.split(" "))
        until(lambda: ruleset_words() == whole, f"the table to be whole after {attack}", 1)
    assert ask(None, "127.0.0.1", 8080).startswith("web ")
    shell("nft", "add", "table", "inet", "other")
    shell("nft", "add", "chain", "inet", "other", "forward")
    m.shutdown()


DOCKERS_RULES = (
    "-N DOCKER-USER", "-N DOCKER", "-A FORWARD -j DOCKER-USER", "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-A DOCKER-USER -j RETURN",
    "-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 172.30.0.0/16 ! -o docker0 -j MASQUERADE",
    "-t nat -A DOCKER ! -i docker0 -p tcp --dport 9999 -j DNAT --to-destination 172.30.0.2:80",
)  # fmt: skip


@on_a_host
def test_rules_of_docker_and_of_iptables_live_beside_ours(tmp_path: Path) -> None:
    if shutil.which("iptables-nft") is None:
        pytest.skip("needs iptables")
    for rule in DOCKERS_RULES:
        shell("iptables-nft", *rule.split())
    theirs = shell("iptables-nft", "-S") + shell("iptables-nft", "-t", "nat", "-S")
    m = started(tmp_path)
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    serve(lan, 80, "lan")
    network(m, "mine")
    web = container(m, "mine", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(web.path, 80, "web")
    assert ask(lan, "198.51.100.1", 8080) == "web 198.51.100.2"
    assert ask(web.path, "198.51.100.2", 80) == "lan 198.51.100.1"
    assert shell("iptables-nft", "-S") + shell("iptables-nft", "-t", "nat", "-S") == theirs
    for table in ("filter", "nat"):
        shell("iptables-nft", "-t", table, "-F")
    assert ask(lan, "198.51.100.1", 8080) == "web 198.51.100.2", "their flush is not ours"
    shell("iptables-nft", "-I", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP")
    assert ask(lan, "198.51.100.1", 8080, timeout=QUIET) == "silence", "what they drop stays dropped"
    m.shutdown()


@on_a_host
def test_names(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "front", ipv6=True)
    network(m, "back")
    web = container(m, "front", "back", name="web", front=EndpointRequest(aliases=["www"]))
    db = container(m, "back", name="db")
    stranger = container(m, "front", name="stranger")
    assert resolve(web, "db") == [ip(db)]
    assert resolve(db, "web") == [ip(web, 1)], "the address on the network they share"
    assert resolve(stranger, "www") == [ip(web)]
    assert resolve(stranger, "www", message.AAAA) == [web.endpoints[0].ip6]
    assert resolve(stranger, web.container_id[:12]) == [ip(web)]
    assert resolve(stranger, "db", timeout=8) == message.SERVFAIL
    m.sandboxes.rename(db.container_id, "data")
    assert resolve(web, "data") == [ip(db)]
    m.sandboxes.delete(db.container_id)
    assert resolve(web, "data", timeout=8) == message.SERVFAIL


@on_a_host
def test_a_containers_own_server_on_port_53_is_not_disturbed(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "mine")
    box, client = container(m, "mine", name="own"), container(m, "mine", name="client")
    serve(box.path, 53, "mine", udp=True)
    serve(box.path, 53, "mine")
    assert ask(client.path, ip(box), 53, udp=True).startswith("mine ")
    assert ask(client.path, ip(box), 53).startswith("mine ")
    assert ask(box.path, "127.0.0.1", 53, udp=True) == "mine 127.0.0.1"
    assert resolve(box, "client") == [ip(client)]
    assert "udp dport set" in shell("nft", "list", "ruleset", where=box.path)


@on_a_host
def test_questions_for_others_are_asked_from_where_they_may(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "mine")
    upstream = container(m, "mine", name="upstream")

    def answer() -> None:
        sock = netns.inside(upstream.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("0.0.0.0", 53))
        while True:
            data, asker = sock.recvfrom(4096)
            record = message.address_record(asker[0])
            sock.sendto(message.answer(message.parse(data), 0, [record]), asker)

    threading.Thread(target=answer, daemon=True).start()
    box = container(m, "mine", name="box", resolving=Resolving(servers=(ip(upstream),), inside=True))
    assert resolve(box, "example.org") == [ip(box)], "a server chosen for it is asked from inside"
    other = container(m, "mine", name="other", resolving=Resolving(servers=(ip(upstream),)))
    assert resolve(other, "example.org") == [m.networks.get("mine").subnets[0].gateway], (
        "the host's from the host"
    )


@on_a_host
def test_names_survive_the_daemon(tmp_path: Path) -> None:
    m = started(tmp_path)
    network(m, "mine")
    box, other = container(m, "mine", name="box"), container(m, "mine", name="other")
    # the sockets of a killed process are closed by the kernel
    m.parts.dns.close()
    m.parts.publishing.close()
    m.parts.host.close()
    m.parts.marks.release()
    again = manager(tmp_path)
    again.start()
    assert again.restore({box.container_id: 0, other.container_id: 0}) == []
    assert resolve(box, "other") == [ip(other)]
    again.sandboxes.delete(other.container_id)
    assert resolve(box, "other", timeout=8) == message.SERVFAIL


@on_a_host
def test_networks_survive_the_daemon_and_leftovers_do_not(tmp_path: Path) -> None:
    m = started(tmp_path)
    kept = network(m, "kept", ipv6=True)
    gone = network(m, "gone")
    m.shutdown()
    shell("ip", "link", "del", kept.bridge_name)
    m.parts.catalog.remove(gone)  # a removal that was cut short after its row
    again = manager(tmp_path)
    lines = again.start()
    assert f"removed an interface without a network: {gone.bridge_name}" in lines
    assert kept.subnets[1].gateway in shell("ip", "addr", "show", kept.bridge_name)
    assert [n.name for n in again.networks.list()] == ["bridge", "host", "none", "kept"]


MAKING = {
    "row": (Catalog, "put"),
    "bridge": (BridgeDriver, "start"),
    "firewall": (Publishing, "add_network"),
    "forwarding": (HostSetup, "enable_forwarding"),
}
"""What a network is made of: the function that is reached when what is before it is done."""


@pytest.mark.parametrize("step", MAKING)
@on_a_host
def test_a_network_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = started(tmp_path)
    before = footprint(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise Internal("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(*MAKING[step], fail)
        with pytest.raises(Internal, match="the lights went out"):
            network(m, "mine", ipv6=True)
    assert footprint(tmp_path) == before
    assert [n.name for n in m.networks.list()] == ["bridge", "host", "none"]
    network(m, "mine", ipv6=True)


@pytest.mark.parametrize("step", [*MAKING, "removal"])
@on_a_host
def test_a_daemon_killed_while_it_makes_a_network(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there afterwards, whole, or it is not there at all."""
    started(tmp_path).shutdown()
    before = footprint(tmp_path)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        m = manager(tmp_path)
        m.start()
        if step == "removal":
            network(m, "mine", ipv6=True)
            monkeypatch.setattr(Publishing, "remove_network", die)
            m.networks.remove("mine")
        monkeypatch.setattr(*MAKING[step], die)
        network(m, "mine", ipv6=True)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    m = started(tmp_path)
    m.restore({})
    if "mine" in {n.name for n in m.networks.list()}:
        box = container(m, "mine")
        serve(box.path, 80, "box")
        assert ask(container(m, "mine").path, ip(box), 80).startswith("box ")
        for owner in [row.container_id for row in m.parts.rows.sandboxes()]:
            m.sandboxes.delete(owner)
        m.settle()
        m.networks.remove("mine")
    m.shutdown()
    after = footprint(tmp_path)
    for what in ("links", "pins", "nft", "rows", "mounts"):
        assert after[what] == before[what], what


@pytest.mark.parametrize("step", ["_configure", "_route"])
@on_a_host
def test_a_connection_that_fails_is_undone(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = started(tmp_path)
    network(m, "front")
    network(m, "back")
    box = container(m, "front", ports=(PortMapping(container_port=80, host_port=8080),))
    serve(box.path, 80, "box")
    before = footprint(tmp_path)
    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Internal("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(sandbox, step, fail)
        with pytest.raises(Internal, match="the lights went out"):
            m.sandboxes.connect(box.container_id, "back", EndpointRequest())
    m.settle()
    assert footprint(tmp_path) == before
    assert len(shell("ip", "-o", "link", where=box.path).splitlines()) == 2
    assert ask(None, "127.0.0.1", 8080).startswith("box ")
    m.sandboxes.connect(box.container_id, "back", EndpointRequest())


@on_a_host
def test_a_route_that_collides_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    m = started(tmp_path)
    mine = network(m, "mine", subnets=(Subnet(cidr="10.9.0.0/24"),))
    shell("ip", "link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
    shell("ip", "link", "set", "vpn0", "up")
    shell("ip", "route", "add", "10.9.0.0/25", "dev", "vpn0")
    until(lambda: "a new route to 10.9.0.0/25 by vpn0 collides" in caplog.text, "a warning")
    assert mine.name in caplog.text
    m.shutdown()


@on_a_host
def test_router_advertisements_are_heard_on(tmp_path: Path) -> None:
    m = started(tmp_path)
    shell("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for line in ("link set up0 up", "link set up1 up", "addr add 2001:db8::2/64 dev up0 nodad"):
        shell("ip", *line.split())
    shell("ip", "-6", "route", "add", "default", "via", "2001:db8::1", "dev", "up0", "proto", "ra")
    network(m, "six", ipv6=True)
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"
    assert Path("/proc/sys/net/ipv6/conf/up0/accept_ra").read_text() == "2\n"
    bridge = m.networks.get("six").bridge_name
    assert Path(f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra").read_text() == "0\n"


@on_a_host
def test_host_rules_are_obeyed_where_asked(tmp_path: Path) -> None:
    from wherry.network.types import NetworkConfig

    m = manager(tmp_path, config=NetworkConfig(obey_host_firewall=True))
    m.start()
    lan = other_host(tmp_path / "hosts", "lan", "198.51.100")
    rules = (
        "add table inet host",
        "add chain inet host input { type filter hook input priority filter; policy accept; }",
        "add rule inet host input iifname lan tcp dport 8080 drop",
    )
    subprocess.run(["nft", "-f", "-"], input="\n".join(rules), text=True, check=True)
    network(m, "mine")
    ports = (PortMapping(container_port=80, host_port=8080), PortMapping(container_port=80, host_port=9090))
    web = container(m, "mine", ports=ports)
    serve(web.path, 80, "web")
    assert ask(lan, "198.51.100.1", 8080, timeout=1.5) == "silence", "the host drops it"
    assert ask(lan, "198.51.100.1", 9090) == "web 198.51.100.2"
    assert ask(None, "127.0.0.1", 8080).startswith("web ")


@on_a_host
def test_a_thousand_ports_take_no_descriptor_each(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    m = started(tmp_path)
    network(m, "dual", ipv6=True)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    wanted = tuple(PortMapping(container_port=p, host_port=p) for p in range(20000, 21001))
    box = container(m, "dual", ports=wanted)
    assert len(box.ports) == 2002
    assert descriptors() < before + 8, "its names and its ports"
    for port in (20000, 20500, 21000):
        serve6(box.path, port, f"box{port}")
        assert ask6(None, "::1", port).startswith(f"box{port} ")
        with socket.socket() as thief, pytest.raises(OSError, match="Address already in use"):
            thief.bind(("0.0.0.0", port))
    m.sandboxes.unpublish(box.container_id, [p for p in box.ports if p.host_port >= 20500])
    assert ask6(None, "::1", 20500, QUIET) == "Connection refused"
    assert ask6(None, "::1", 20000).startswith("box20000 ")
    with socket.socket() as mine:
        mine.bind(("0.0.0.0", 20500))
        mine.listen()
        with pytest.raises(Internal, match=r"0\.0\.0\.0:20500: address already in use"):
            container(m, "dual", ports=wanted[500:501])
    m.shutdown()
    again = manager(tmp_path)
    again.start()
    assert again.restore({box.container_id: 0}) == []
    with socket.socket() as thief, pytest.raises(OSError, match="Address already in use"):
        thief.bind(("0.0.0.0", 20300))
    assert ask6(None, "::1", 20000).startswith("box20000 "), "by the new daemon's relay"
    again.sandboxes.delete(box.container_id)
    again.shutdown()
    assert descriptors() <= before


@on_a_host
def test_no_transaction_waits_for_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = manager(tmp_path)
    lock = m.parts.rows.db._lock
    within: set[str] = set()
    for target, name in ((NetlinkSocket, "__init__"), (Nft, "run"), (module_of_ports, "_bind")):
        was = getattr(target, name)

        def watched(*args: Any, was: Any = was, name: str = name, **kwargs: Any) -> Any:
            if lock._is_owned():  # type: ignore[attr-defined]
                within.add("".join(traceback.format_stack(limit=6)))
            return was(*args, **kwargs)

        monkeypatch.setattr(target, name, watched)
    m.start()
    network(m, "one", ipv6=True)
    two = network(m, "two", subnets=(Subnet(cidr="10.9.0.0/24"),))
    box = container(m, "one", ports=(PortMapping(container_port=80, host_port=8080),))
    other = container(m, "one")
    m.sandboxes.connect(box.container_id, "two", EndpointRequest())
    (published,) = m.sandboxes.publish(
        box.container_id, [PortMapping(container_port=81, host_ip="127.0.0.1", host_port=8081)]
    )
    m.sandboxes.unpublish(box.container_id, [published])
    m.sandboxes.rename(box.container_id, "renamed")
    m.sandboxes.disconnect(box.container_id, box.endpoints[0].network_id)
    build = m.sandboxes.create(secrets.token_hex(32), network_mode=m.builds.enter())
    for each in (build, box, other):
        m.sandboxes.delete(each.container_id)
    m.builds.leave()
    m.networks.remove(two.id)
    m.shutdown()
    assert not within, "\n".join(within)


@on_a_host
def test_networks_made_at_once_have_subnets_of_their_own(tmp_path: Path) -> None:
    m = started(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: network(m, f"n{n}"), range(24)))
        names = [pool.submit(network, m, "same") for _ in range(8)]
    assert len({n.subnets[0].cidr for n in made}) == 24
    assert sum(future.exception() is None for future in names) == 1
    assert {type(f.exception()) for f in names} == {type(None), Conflict}
    assert len(m.networks.list()) == 3 + 25


@on_a_host
def test_ports_whose_rules_fail_leave_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = started(tmp_path)
    network(m, "mine")
    kept = PortMapping(container_port=80, host_port=8080)
    box = container(m, "mine", ports=(kept,))
    before = footprint(tmp_path)

    def refuse(*_: object) -> None:
        raise Internal("no")

    with monkeypatch.context() as patch:
        patch.setattr(m.parts.publishing, "_change", refuse)
        with pytest.raises(Internal, match="no"):
            m.sandboxes.publish(box.container_id, [PortMapping(container_port=81, host_port=8081)])
        with pytest.raises(Internal, match="no"):
            m.sandboxes.unpublish(box.container_id, box.ports)
    assert footprint(tmp_path) == before
    assert m.sandboxes.get(box.container_id) == box


@pytest.mark.parametrize("way", ["by filter", "one by one", "of many"])
@on_a_host
def test_udp_flows_of_both_families_are_forgotten(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never stops finds the container that has the port now."""
    if way == "one by one":
        monkeypatch.setattr(conntrack, "_delete_by_filter", lambda *_: False)
    m = started(tmp_path)
    network(m, "dual", ipv6=True)
    lan = wired6(tmp_path)
    client4, client6 = (udp_client(lan, family) for family in (socket.AF_INET, socket.AF_INET6))

    def answers() -> list[str]:
        return [hear(client4, "198.51.100.1"), hear(client6, "2001:db8::1")]

    assert answers() == ["silence", "silence"], "nobody has the port yet"
    more = range(6000, 6020) if way == "of many" else ()
    ports = tuple(PortMapping(container_port=53, proto="udp", host_port=p) for p in (5353, *more))
    for word in ("first", "second"):
        box = container(m, "dual", ports=ports)
        echo_udp(box, word)
        assert answers() == [word, word]
        m.sandboxes.delete(box.container_id)
    other = m.networks.create(NetworkRequest(name="other", ipv6=True))[0]
    box = container(m, "dual", ports=ports)
    echo_udp(box, "third")
    assert answers() == ["third", "third"]
    m.sandboxes.connect(box.container_id, "other", EndpointRequest())
    m.sandboxes.disconnect(box.container_id, m.networks.get("dual").id)
    assert answers() == ["third", "third"], "its ports lead to its other addresses"
    assert m.sandboxes.endpoints_of(box.container_id)[0].network_id == other.id


def wired6(directory: Path) -> Path:
    """Another host on a wire, 2001:db8::2, to this one, 2001:db8::1, with IPv4 addresses besides."""
    lan = other_host(directory / "hosts", "lan", "198.51.100")
    for where, device, address in ((None, "lan", "2001:db8::1"), (lan, "eth0", "2001:db8::2")):
        shell("ip", "addr", "add", f"{address}/64", "dev", device, "nodad", where=where)
    return lan


def udp_client(where: Path, family: int) -> socket.socket:
    client = netns.inside(where, lambda: socket.socket(family, socket.SOCK_DGRAM))
    client.bind(("", 0))
    return client


def hear(client: socket.socket, address: str) -> str:
    """What is answered to the same flow as before."""
    deadline = time.monotonic() + patiently(5)
    client.settimeout(patiently(QUIET))
    while True:
        client.sendto(b"?", (address, 5353))
        try:
            return client.recv(100).decode()
        except ConnectionRefusedError:
            return "silence"
        except TimeoutError:
            if time.monotonic() > deadline - patiently(4):
                return "silence"


def echo_udp(box: Sandbox, word: str) -> None:
    def serve_it() -> None:
        while True:
            _, asker = sock.recvfrom(100)
            sock.sendto(word.encode(), asker)

    sock = netns.inside(box.path, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    sock.bind(("::", 53))
    threading.Thread(target=serve_it, daemon=True).start()
