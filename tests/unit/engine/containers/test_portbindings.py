"""Port bindings that change: what is added, what goes, and which binding was responsible for a port."""

from __future__ import annotations

import pytest

from wherry.engine.containers import portbindings
from wherry.errors import InvalidArgument
from wherry.model.container import PortBinding
from wherry.network.types import PublishedPort


def b(port: str = "", ip: str = "") -> PortBinding:
    return PortBinding(host_ip=ip, host_port=port)


def p(host_port: int, container_port: int = 80, ip: str = "0.0.0.0") -> PublishedPort:
    return PublishedPort(container_port=container_port, proto="tcp", host_ip=ip, host_port=host_port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("", 8080, "tcp")),
        ("53/udp", ("", 53, "udp")),
        ("127.0.0.1:80", ("127.0.0.1", 80, "tcp")),
        ("[::1]:80/sctp", ("::1", 80, "sctp")),
    ],
)
def test_published_ports_are_named_by_their_host_side(text: str, expected: object) -> None:
    assert portbindings.parse_published(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "80/icmp", "-1", "8080:", "1" * 500, "\u0668\u0660"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid published port"):
        portbindings.parse_published(text)


def test_adding_keeps_what_is_there_and_adds_nothing_twice() -> None:
    before = {"80/tcp": [b("8080")]}
    assert portbindings.added(before, {"80": [b("8080"), b("9090")], "53/udp": None}) == {
        "80/tcp": [b("8080"), b("9090")],
        "53/udp": [b()],
    }
    assert portbindings.added(None, {}) == {}


def test_the_binding_that_names_a_port_goes_before_one_that_takes_any() -> None:
    bindings = {"80/tcp": [b(), b("8000-8010"), b("8005")]}
    assert portbindings.removed(bindings, [p(8005)]) == {"80/tcp": [b(), b("8000-8010")]}
    assert portbindings.removed(bindings, [p(8001)]) == {"80/tcp": [b(), b("8005")]}
    assert portbindings.removed(bindings, [p(32768)]) == {"80/tcp": [b("8000-8010"), b("8005")]}
    assert portbindings.removed({"80": [b("1")]}, [p(1)]) == {}


def test_a_port_of_publish_all_cannot_be_taken_from_the_bindings() -> None:
    with pytest.raises(InvalidArgument, match="with all exposed ports"):
        portbindings.removed({"81/tcp": [b()]}, [p(32768)])


def test_a_port_of_both_families_is_one_binding() -> None:
    six = PublishedPort(container_port=80, proto="tcp", host_ip="::", host_port=8080)
    assert portbindings.removed({"80/tcp": [b("8080")]}, [six, p(8080)]) == {}


def test_ranges_lose_one_port() -> None:
    left = portbindings.removed({"80-81": [b()]}, [p(32768, 81)])
    assert left == {"80/tcp": [b()]}


def test_a_stopped_container_loses_what_names_the_port() -> None:
    bindings = {"80/tcp": [b("8080"), b("8080", "127.0.0.1"), b()], "80/udp": [b("8080")]}
    assert portbindings.drop(bindings, ("127.0.0.1", 8080, "tcp")) == {
        "80/tcp": [b("8080"), b()],
        "80/udp": [b("8080")],
    }
    assert portbindings.drop(bindings, ("", 8080, "udp")) == {"80/tcp": bindings["80/tcp"]}
    assert portbindings.drop(bindings, ("", 32768, "tcp")) is None
    assert portbindings.drop(None, ("", 1, "tcp")) is None


def test_select_narrows_by_address() -> None:
    ports = [p(80), p(80, ip="127.0.0.1"), p(81)]
    assert portbindings.select(("", 80, "tcp"), ports) == ports[:2]
    assert portbindings.select(("127.0.0.1", 80, "tcp"), ports) == [ports[1]]
