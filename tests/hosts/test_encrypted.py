"""Encrypted overlay networks over two hosts: what is seen on the wire, and what happens to the keys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hostlab import TTL, Cluster, Host, inside, ip, no_esp, nothing_left, wait_until
from patience import patiently
from wirelab import ESP, UDP, Wire, carried, ipsec_of, made, rules, sealed, spis, two_boxes

from wherry.network.cluster import ipsec
from wherry.network.drivers import overlay as driver
from wherry.network.options import VNI_OPTION

REKEY = 15
"""Seconds after which the hosts take new keys."""

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd-server"),
    pytest.mark.skipif(bool(no_esp()), reason="the kernel has no IPsec ESP"),
    pytest.mark.xdist_group("hosts"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # a host that is started anew is back before its lease ends, so that what there is goes on
    with Cluster(2, f"rekey={REKEY}", f"ttl={2 * TTL}") as made:
        yield made


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[Host]]:
    """Two hosts; afterwards nothing of the test is left, on them, in their kernel or in etcd."""
    with nothing_left(cluster):
        yield cluster.hosts
    for host in cluster.hosts:
        wait_until(lambda h=host: not ipsec_of(h), f"{host.name} to have no IPsec")  # type: ignore[misc]
        assert "sealed" not in rules(host)


def signalled(host: Host, number: int) -> None:
    assert host.process is not None
    host.process.send_signal(number)


def mac_of(host: Host) -> bytes:
    shown = json.loads(ip(host.where, "-j", "link", "show", "dev", "eth0"))
    return bytes.fromhex(shown[0]["address"].replace(":", ""))


def udp_frame(mac: bytes, source: IPv4Address, to: IPv4Address, data: bytes) -> bytes:
    """An Ethernet frame with a UDP packet to the port of encrypted networks, without UDP's checksum."""
    size = 20 + 8 + len(data)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 1, 0, 64, UDP, 0, source.packed, to.packed)
    total = sum(struct.unpack("!10H", head))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", check) + head[12:]
    ethernet = mac + bytes.fromhex("0242bbbbbbbb0800")
    return ethernet + head + struct.pack("!HHHH", 40000, ipsec.PORT, 8 + len(data), 0) + data


def test_nothing_is_seen_on_the_wire(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    made(hosts, "open", "10.51.0.0/24")
    one, two = two_boxes(hosts)
    assert one.mtu == 1416
    secret = b"attack-at-dawn" * 3
    with Wire(cluster) as wire:
        assert one.reaches(two, "-s", "1388"), "what fills a packet"
        assert one.reaches(two, "-s", "20000"), "packets that need several frames"
        assert carried(one, two, secret * 5000) == secret * 5000
    assert len(wire.of(ESP)) > 100
    assert not wire.tunnels and not wire.of(UDP, driver.PORT)
    assert not any(secret in frame for frame in wire.seen)
    assert max(map(len, wire.of(ESP))) <= 1500
    assert not any(struct.unpack_from("!H", f, 6)[0] & 0x3FFF for f in wire.of(ESP)), "no fragments"
    open_one, open_two = two_boxes(hosts, "open")
    assert open_one.mtu == 1450
    with Wire(cluster) as wire:
        assert open_one.reaches(open_two)
    assert wire.of(UDP, driver.PORT) and not wire.of(ESP), "a network that is not encrypted is not"


def test_what_comes_in_the_clear_is_dropped(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    one, two = two_boxes(hosts)
    host, other = hosts
    shown = host.api("GET", "/networks/wide").json
    number = int(shown["Options"][VNI_OPTION])
    inner = bytes.fromhex(one.mac.replace(":", "") + "0242aaaaaaaa88b5") + b"x" * 50
    forged = struct.pack("!II", 0x08000000, number << 8) + inner

    def send(source: str) -> None:
        """As a machine on the same wire can, with whatever address it likes."""
        frame = udp_frame(mac_of(host), IPv4Address(source), IPv4Address(host.address), forged)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("to-h1", 0))
            for _ in range(5):
                sock.send(frame)

    def received() -> int:
        device = next(name for name in host.links() if name.startswith("vx-")).rstrip(":")
        shown = json.loads(ip(host.where, "-s", "-j", "link", "show", "dev", device))
        return int(shown[0]["stats64"]["rx"]["packets"])

    def attempt() -> int:
        before = received()
        for source in (other.address, cluster.etcd.address):
            inside(cluster.switch.path, lambda s=source: send(s))  # type: ignore[misc]
        time.sleep(patiently(0.3))
        return received() - before

    assert attempt() == 0
    before = received()
    assert two.reaches(one)
    assert received() > before, "what is counted does count"
    signalled(host, signal.SIGSTOP)
    try:
        ip(host.where, "xfrm", "policy", "flush")
        assert attempt() == 0, "the firewall bars it on its own"
        inside(host.where, lambda: os.system("nft flush ruleset"))
        assert attempt() == 10, "and it would have come in"
    finally:
        signalled(host, signal.SIGCONT)
    wait_until(lambda: two.reaches(one), "traffic again")
    assert attempt() == 0


@pytest.mark.patient(90)
def test_keys_are_changed_while_traffic_goes_on(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    one, two = two_boxes(hosts)
    before = [*spis(*hosts), *spis(*reversed(hosts))]
    pings = one.start("busybox", "ping", "-i", "0.05", "-c", str(int((REKEY + TTL) / 0.05)), two.address)
    with Wire(cluster) as wire:
        said = pings.communicate(timeout=patiently(80))[0]
    assert " 0% packet loss" in said
    assert not wire.tunnels
    used = {struct.unpack_from("!I", f, 20)[0] for f in wire.of(ESP)}
    assert used > set(before), "others came into use"
    wait_until(lambda: len(spis(*hosts)) == 1 == len(spis(*reversed(hosts))), "the former ones to go")
    assert not {*spis(*hosts), *spis(*reversed(hosts))} & set(before)


@pytest.mark.patient(90)
def test_a_daemon_is_killed_and_comes_back(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    one, two = two_boxes(hosts)
    other = hosts[1]
    before = spis(*reversed(hosts))
    pings = one.start("busybox", "ping", "-i", "0.05", two.address)
    with Wire(cluster) as wire:
        other.end(signal.SIGKILL)
        other.start()
        wait_until(lambda: spis(*reversed(hosts)) not in ([], before), "a new association", timeout=40)
        time.sleep(patiently(1))
        pings.send_signal(signal.SIGINT)
        said = pings.communicate(timeout=patiently(5))[0]
    assert " 0% packet loss" in said, said
    assert not wire.tunnels
    wait_until(lambda: len(spis(*hosts)) == 1 == len(spis(*reversed(hosts))), "the former ones to go")
    assert two.reaches(one)


@pytest.mark.patient(120)
def test_another_program_flushes_ipsec(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    one, two = two_boxes(hosts)
    host = hosts[0]
    for kinds in (["policy"], ["state"], ["policy", "state"]):
        pings = one.start("busybox", "ping", "-i", "0.005", two.address)
        with Wire(cluster) as wire:
            for kind in kinds:
                ip(host.where, "xfrm", kind, "flush")
            wait_until(lambda: one.reaches(two) and two.reaches(one), f"traffic again after {kinds}")
            pings.terminate()
            pings.communicate()
        assert wire.of(ESP) and not wire.tunnels
        assert ipsec_of(host).count("dir ") == 4
        wait_until(lambda: len(spis(*hosts)) == 1 == len(spis(*reversed(hosts))), "the former ones to go")


@pytest.mark.patient(90)
def test_a_cut_wire_heals(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts)
    one, two = two_boxes(hosts)
    with cluster.switch.cut(hosts[1].name):
        wait_until(lambda: not spis(*hosts), "the lease to end", timeout=30)
    wait_until(lambda: one.reaches(two) and two.reaches(one), "traffic", timeout=40)


def test_networks_come_and_go(cluster: Cluster, hosts: list[Host]) -> None:
    sealed(hosts, "aa")
    sealed(hosts, "bb", "10.51.0.0/24")
    assert hosts[0].api("DELETE", "/networks/aa").status == 204
    for host in hosts:
        wait_until(lambda h=host: "aa" not in h.networks(), "the others to hear")  # type: ignore[misc]
        assert ipsec_of(host).count("dir ") == 4 and "sealed_out" in rules(host)
    assert hosts[1].api("DELETE", "/networks/bb").status == 204
    for host in hosts:
        wait_until(lambda h=host: not ipsec_of(h), f"{host.name} to remove all of it")  # type: ignore[misc]
    sealed(hosts)
    two_boxes(hosts)
