"""Which published ports go from one container to another."""

from __future__ import annotations

import pytest

from wherry.network.ports import PortTarget
from wherry.network.takeover import plan
from wherry.network.types import PortMapping, PublishedPort

DUAL = PortTarget(ip4="172.18.0.3", ip6="fd00::3")
ONLY4 = PortTarget(ip4="172.18.0.3")


def held(host_port: int, inside: int, host_ip: str = "0.0.0.0") -> PublishedPort:
    return PublishedPort(container_port=inside, proto="tcp", host_ip=host_ip, host_port=host_port)


def asked(inside: int, low: int | None = None, high: int | None = None, host_ip: str = "") -> PortMapping:
    return PortMapping(container_port=inside, host_port=low, host_port_end=high, host_ip=host_ip)


CASES = {
    "the same port": ([held(80, 8080)], [asked(8080, 80)], ["80->8080"], []),
    "another port inside": ([held(80, 8080)], [asked(9090, 80)], ["80->9090"], []),
    "a port nobody has": ([held(80, 8080)], [asked(8080, 80), asked(1, 81)], ["80->8080"], [asked(1, 81)]),
    "a port that is not asked for stays": ([held(80, 8080), held(81, 1)], [asked(1, 81)], ["81->1"], []),
    "any port: what leads to the same": ([held(32768, 7), held(32769, 8)], [asked(8)], ["32769->8"], []),
    "any port, and none leads there": ([held(32768, 7)], [asked(8)], [], [asked(8)]),
    "a range": ([held(8005, 80)], [asked(80, 8000, 8010)], ["8005->80"], []),
    "outside of the range": ([held(7999, 80)], [asked(80, 8000, 8010)], [], [asked(80, 8000, 8010)]),
    "another address": ([held(80, 8080, "127.0.0.1")], [asked(8080, 80)], [], [asked(8080, 80)]),
    "two that ask for one": ([held(8000, 80)], [asked(80, 8000, 8010), asked(81, 8000)], ["8000->81"],
                             [asked(80, 8000, 8010)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ports_that_move_and_ports_to_reserve(case: str) -> None:
    have, want, moved, rest = CASES[case]
    found = plan(have, want, ONLY4)
    assert [f"{p.host_port}->{p.container_port}" for p in found.taken] == moved
    assert [p.host_port for p in found.given] == [p.host_port for p in found.taken]
    assert set(found.given) <= set(have)
    assert list(found.rest) == rest


def test_both_families_have_one_number() -> None:
    both = [held(32768, 80), held(32768, 80, "::")]
    assert [(p.host_ip, p.host_port) for p in plan(both, [asked(80)], DUAL).taken] == [
        ("0.0.0.0", 32768),
        ("::", 32768),
    ]


def test_a_family_that_the_other_had_not_is_reserved_with_the_same_number() -> None:
    found = plan([held(32768, 80)], [asked(80)], DUAL)
    assert [p.host_port for p in found.taken] == [32768]
    assert list(found.rest) == [asked(80, 32768, host_ip="::")]


def test_allowed_callers_are_those_of_the_new_one() -> None:
    mapping = PortMapping(container_port=80, host_port=80, sources=("10.0.0.0/8",))
    assert plan([held(80, 80)], [mapping], ONLY4).taken[0].sources == ("10.0.0.0/8",)


def test_ports_of_a_routed_network_are_its_own() -> None:
    target = PortTarget(ip4="172.18.0.3", routed4=True)
    assert plan([held(80, 80)], [asked(80, 80)], target).rest == (asked(80, 80),)
