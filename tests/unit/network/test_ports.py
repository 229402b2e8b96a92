from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from wherry.errors import Internal, InvalidArgument
from wherry.network.ports import HostPorts, PortTarget
from wherry.network.types import PortMapping

HERE = "127.0.0.1"
HERE_TARGET = PortTarget(ip4="10.0.0.2", binding=HERE)


@pytest.mark.parametrize(
    "bad",
    [
        {"container_port": 0},
        {"container_port": 65536},
        {"container_port": 80, "host_port": 0},
        {"container_port": 80, "host_port": 65536},
        {"container_port": 80, "host_port": 10, "host_port_end": 9},
        {"container_port": 80, "host_port": 1, "host_port_end": 70000},
        {"container_port": 80, "proto": "icmp"},
        {"container_port": 80, "host_ip": "localhost"},
        {"container_port": 80, "sources": ("10.0.0.1/8",)},
        {"container_port": 80, "sources": ("10.0.0.0/8, flush ruleset",)},
        {"container_port": 80, "host_ip": "fe80::1%eth0"},
        {"container_port": 80, "host_ip": "1.2.3.4 . tcp"},
    ],
)
def test_bad_mappings(bad: dict[str, Any]) -> None:
    held = HostPorts()
    with pytest.raises(InvalidArgument, match="invalid"):
        held.reserve("c", [PortMapping(container_port=80), PortMapping(**bad)], HERE_TARGET)
    held.close()


def test_a_family_that_the_container_lacks_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot publish on ::: the container has no IPv6 address"):
        HostPorts().reserve("c", [PortMapping(container_port=80, host_ip="::")], HERE_TARGET)
    with pytest.raises(InvalidArgument, match="cannot publish on ::1: for sctp that is not implemented"):
        HostPorts().reserve("c", [PortMapping(container_port=80, host_ip="::1", proto="sctp")], HERE_TARGET)


def test_the_ipv6_loopback_leads_to_whatever_the_container_has() -> None:
    port = PortMapping(container_port=80, host_ip="::1")
    for target, ip in (
        (PortTarget(ip4="10.0.0.2"), "10.0.0.2"),
        (PortTarget(ip4="10.0.0.2", ip6="fd00::2"), "fd00::2"),
    ):
        assert target.places(port) == ["::1"] and target.to("::1") == ip
    assert PortTarget(ip6="fd00::2", routed6=True).places(port) == ["::1"], "not the container's own address"


def test_no_address_is_every_address_of_both_families(ports: HostPorts) -> None:
    both = PortTarget(ip4="10.0.0.2", ip6="fd00::2")
    got = ports.reserve("c", [PortMapping(container_port=80)], both)
    assert [p.host_ip for p in got] == ["0.0.0.0", "::"]
    assert len({p.host_port for p in got}) == 1
    with pytest.raises(Internal, match=f"Bind for \\[::1\\]:{got[0].host_port} failed"):
        number = got[0].host_port
        ports.reserve("d", [PortMapping(container_port=80, host_ip="::1", host_port=number)], both)


def test_a_routed_network_has_no_host_ports(ports: HostPorts) -> None:
    for owner, ip in (("a", "10.0.0.2"), ("b", "10.0.0.3")):
        target = PortTarget(ip4=ip, routed4=True)
        (got,) = ports.reserve(owner, [PortMapping(container_port=80, host_port=8080)], target)
        assert (got.host_ip, got.host_port) == (ip, 80)


def test_who_holds_a_port_is_named(ports: HostPorts) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket; s = socket.create_server(('127.0.0.1', 0)); "
            "print(s.getsockname()[1], flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdin is not None
        number = int(holder.stdout.readline())
        with pytest.raises(Internal, match=rf"held by python\S*, pid {holder.pid}"):
            ports.reserve("c", [PortMapping(container_port=80, host_port=number)], HERE_TARGET)
        holder.stdin.close()


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    held = HostPorts()
    yield held
    held.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def bindable(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind((HERE, port))
        except OSError:
            return False
    return True


def test_held_until_released(ports: HostPorts) -> None:
    wanted = free_port()
    (got,) = ports.reserve("c", [PortMapping(container_port=80, host_port=wanted)], HERE_TARGET)
    assert (got.host_ip, got.host_port, got.container_port, got.proto) == (HERE, wanted, 80, "tcp")
    assert not bindable(wanted)
    assert bindable(wanted, socket.SOCK_DGRAM), "another protocol is another port"
    ports.release("c")
    ports.release("c")
    assert bindable(wanted)


def test_all_or_none(ports: HostPorts) -> None:
    first, taken = free_port(), free_port()
    with socket.socket() as holder:
        holder.bind((HERE, taken))
        holder.listen()
        with pytest.raises(
            Internal, match=f"failed to bind host port for {HERE}:{taken}: address already in use"
        ):
            ports.reserve(
                "c",
                [PortMapping(container_port=n, host_port=n_) for n, n_ in ((1, first), (2, taken))],
                HERE_TARGET,
            )
    assert bindable(first)
    assert ports.reserve("d", [], HERE_TARGET) == ()


def test_a_connection_that_lingers_is_no_obstacle(ports: HostPorts) -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HERE, 0))
        server.listen()
        number = server.getsockname()[1]
        client = socket.create_connection((HERE, number))
        connection, _ = server.accept()
        connection.close()
        client.recv(1)
        client.close()
    assert not bindable(number), "the closed connection keeps its port for a while"
    assert ports.reserve("c", [PortMapping(container_port=80, host_port=number)], HERE_TARGET)


def test_what_reaches_the_holder_gets_no_answer(ports: HostPorts) -> None:
    (got,) = ports.reserve("c", [PortMapping(container_port=80, host_port=free_port())], HERE_TARGET)
    with socket.socket() as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.connect((HERE, got.host_port))


def test_the_wildcard_overlaps_every_address(ports: HostPorts) -> None:
    number = free_port()
    ports.reserve("a", [PortMapping(container_port=1, host_ip="127.0.0.2", host_port=number)], HERE_TARGET)
    ports.reserve("b", [PortMapping(container_port=1, host_ip="127.0.0.3", host_port=number)], HERE_TARGET)
    with pytest.raises(Internal, match="port is already allocated"):
        ports.reserve("c", [PortMapping(container_port=1, host_ip="0.0.0.0", host_port=number)], HERE_TARGET)


def test_adopt_reports_and_may_be_repeated(ports: HostPorts) -> None:
    number = free_port()
    (got,) = ports.reserve("c", [PortMapping(container_port=1, host_port=number)], HERE_TARGET)
    ports.close()
    assert ports.adopt("c", [got]) == []
    assert ports.adopt("c", [got]) == []
    ports.close()
    with socket.socket() as thief:
        thief.bind((HERE, number))
        thief.listen()
        (line,) = ports.adopt("c", [got])
        assert line == f"port {HERE}:{number}/tcp is not held: address already in use"
    with pytest.raises(Internal, match="port is already allocated"):
        ports.reserve("d", [PortMapping(container_port=1, host_port=number)], HERE_TARGET)


def test_a_range_takes_one_descriptor_and_is_given_back_in_parts(ports: HostPorts) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    numbers = range(21000, 21300)
    got = ports.reserve("c", [PortMapping(container_port=n, host_port=n) for n in numbers], HERE_TARGET)
    assert descriptors() == before + 1
    assert not any(bindable(n) for n in numbers)
    ports.release("c", got[100:200])
    assert [bindable(n) for n in numbers] == [False] * 100 + [True] * 100 + [False] * 100
    again = PortMapping(container_port=1, host_port=21150)
    assert ports.reserve("d", [again], HERE_TARGET)
    with pytest.raises(Internal, match="port is already allocated"):
        ports.reserve("d", [PortMapping(container_port=1, host_port=21050)], HERE_TARGET)
    ports.release("c")
    ports.release("d")
    assert descriptors() == before
    assert all(bindable(n) for n in numbers)


def test_who_can_take_one_number_only_comes_first(ports: HostPorts) -> None:
    low = free_port()
    mappings = [
        PortMapping(container_port=80),
        PortMapping(container_port=81, host_port=low, host_port_end=low + 2),
        PortMapping(container_port=82, host_port=low),
    ]
    got = ports.reserve("c", mappings, HERE_TARGET)
    assert [p.container_port for p in got] == [82, 81, 80]
    assert [p.host_port for p in got[:2]] == [low, low + 1]


def test_a_number_that_is_left_open_is_one_for_all_addresses(ports: HostPorts) -> None:
    here, there = "127.0.0.2", "127.0.0.3"
    with socket.socket() as obstacle:
        obstacle.bind((there, 0))
        obstacle.listen()
        low = obstacle.getsockname()[1]
        for end in (None, low + 3):
            mappings = [
                PortMapping(container_port=80, host_ip=ip, host_port=low if end else None, host_port_end=end)
                for ip in (here, there)
            ]
            got = ports.reserve("c", mappings, HERE_TARGET)
            assert [p.host_ip for p in got] == [here, there]
            assert len({p.host_port for p in got}) == 1
        assert got[0].host_port == low + 1
    overlapping = [PortMapping(container_port=90), PortMapping(container_port=90, host_ip="0.0.0.0")]
    got = ports.reserve("d", overlapping, HERE_TARGET)
    assert len({p.host_port for p in got}) == 2
