from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from wherry.errors import Internal, InvalidArgument, NotImplemented_
from wherry.model.container import PortBinding
from wherry.network.ports import HostPorts, parse_mappings
from wherry.network.types import PortMapping

HERE = "127.0.0.1"


def mappings(key: str, *bindings: tuple[str, str]) -> list[PortMapping]:
    return parse_mappings({key: [PortBinding(host_ip=ip, host_port=port) for ip, port in bindings]})


def test_forms_of_bindings() -> None:
    assert mappings("80/tcp", ("", "8080")) == [PortMapping(container_port=80, host_port=8080)]
    assert mappings("53/udp", ("127.0.0.1", "")) == [
        PortMapping(container_port=53, proto="udp", host_ip="127.0.0.1")
    ]
    assert mappings("80", ("", "8000-8010")) == [
        PortMapping(container_port=80, host_port=8000, host_port_end=8010)
    ]
    assert mappings("9/SCTP", ("", "0")) == [PortMapping(container_port=9, proto="sctp")]
    assert mappings("80/tcp") == [PortMapping(container_port=80)]
    assert parse_mappings({"80/tcp": None}) == [PortMapping(container_port=80)]
    assert len(mappings("80/tcp", ("", "1"), ("", "2"))) == 2


def test_publish_all_adds_what_is_exposed() -> None:
    got = parse_mappings(
        {"80/tcp": [PortBinding(host_port="8080")]}, ["443/tcp", "80/tcp", "53/udp"], publish_all=True
    )
    assert got == [
        PortMapping(container_port=80, host_port=8080),
        PortMapping(container_port=53, proto="udp"),
        PortMapping(container_port=443),
    ]
    assert parse_mappings(None, ["80/tcp"]) == []


@pytest.mark.parametrize("key", ["", "0", "65536", "-1", "80/icmp", "80/", "x", "8 0", "٨٠", "80-90/tcp"])
def test_bad_container_ports(key: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid port"):
        mappings(key, ("", "1"))


@pytest.mark.parametrize("port", ["x", "65536", "10-9", "1-2-3", "-5", "5-", "0-5", "+1", "1e3"])
def test_bad_host_ports(port: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid port specification"):
        mappings("80", ("", port))


def test_bad_host_addresses() -> None:
    with pytest.raises(InvalidArgument, match="invalid IP address"):
        mappings("80", ("localhost", "80"))
    with pytest.raises(NotImplemented_, match="IPv6 address ::1"):
        mappings("80", ("::1", "80"))


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    held = HostPorts(HERE)
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
    (got,) = ports.reserve("c", [PortMapping(container_port=80, host_port=wanted)])
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
                "c", [PortMapping(container_port=n, host_port=n_) for n, n_ in ((1, first), (2, taken))]
            )
    assert bindable(first)
    assert ports.reserve("d", []) == ()


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
    assert ports.reserve("c", [PortMapping(container_port=80, host_port=number)])


def test_what_reaches_the_holder_gets_no_answer(ports: HostPorts) -> None:
    (got,) = ports.reserve("c", [PortMapping(container_port=80, host_port=free_port())])
    with socket.socket() as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.connect((HERE, got.host_port))


def test_the_wildcard_overlaps_every_address(ports: HostPorts) -> None:
    number = free_port()
    ports.reserve("a", [PortMapping(container_port=1, host_ip="127.0.0.2", host_port=number)])
    ports.reserve("b", [PortMapping(container_port=1, host_ip="127.0.0.3", host_port=number)])
    with pytest.raises(Internal, match="port is already allocated"):
        ports.reserve("c", [PortMapping(container_port=1, host_ip="0.0.0.0", host_port=number)])


def test_adopt_reports_and_may_be_repeated(ports: HostPorts) -> None:
    number = free_port()
    (got,) = ports.reserve("c", [PortMapping(container_port=1, host_port=number)])
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
        ports.reserve("d", [PortMapping(container_port=1, host_port=number)])
