"""The text of transactions, and that no value breaks out of it. What the rules do: test_network_kernel.py."""

from __future__ import annotations

import pytest

from wherry.errors import Internal
from wherry.linux.nft import Nft, NftError
from wherry.network import ruleset
from wherry.network.firewall import Bridged, FamilyRules, Firewall
from wherry.network.types import Instance
from wherry.state.networks import PublishedRow


class RecordingNft(Nft):
    """Keeps what it is told; refuses what it is told to refuse."""

    def __init__(self, *missing: str) -> None:
        super().__init__()
        self.commands: list[str] = []
        self.missing = missing

    def run(self, commands: str, *, json: bool = False) -> str:
        self.commands.append(commands)
        if any(m in commands for m in self.missing):
            raise NftError("Error: Could not process rule: No such file or directory")
        return ""


BRIDGED = Bridged("wherry0", (FamilyRules("172.17.0.0/16"),))


def row(host_port: int, host_ip: str = "0.0.0.0", proto: str = "tcp", ip: str = "172.17.0.2") -> PublishedRow:
    return PublishedRow(proto, host_ip, host_port, "c", ip, 80)


def firewall(nft: Nft) -> Firewall:
    return Firewall(Instance("default"), nft)


def elements(*rows: PublishedRow) -> ruleset.Elements:
    return ruleset.of_ports(rows)


def test_publishing_adds_elements_and_no_rule() -> None:
    nft = RecordingNft()
    six = PublishedRow("tcp", "::", 4, "c", "fd00::2", 80)
    firewall(nft).change({}, elements(row(1), row(2, proto="udp"), row(3, "192.0.2.1"), six))
    assert nft.commands == [
        "add element inet wherry any4 { tcp . 1 : 172.17.0.2 . 80, udp . 2 : 172.17.0.2 . 80 }\n"
        "add element inet wherry any6 { tcp . 4 : fd00::2 . 80 }\n"
        "add element inet wherry held4 { tcp . 1, tcp . 3, udp . 2 }\n"
        "add element inet wherry held6 { tcp . 4 }\n"
        "add element inet wherry published4 { 192.0.2.1 . tcp . 3 : 172.17.0.2 . 80 }\n"
        "add element inet wherry relayed { 4 }\n"
    ]


def test_ports_in_a_row_are_one_element() -> None:
    rows = [PublishedRow("tcp", "0.0.0.0", n, "c", "172.17.0.2", n) for n in (*range(8000, 8100), 9000)]
    found = elements(*rows)
    assert found["ranges4"] == {"0.0.0.0/0 . tcp . 8000-8099 : 172.17.0.2"}
    assert found["any4"] == {"tcp . 9000 : 172.17.0.2 . 9000"}
    # without one in the middle it is two
    left = elements(*(r for r in rows if r.host_port != 8050))
    assert left["ranges4"] == {
        "0.0.0.0/0 . tcp . 8000-8049 : 172.17.0.2",
        "0.0.0.0/0 . tcp . 8051-8099 : 172.17.0.2",
    }


def test_lists_of_callers_do_not_overlap() -> None:
    listed = PublishedRow("tcp", "0.0.0.0", 8080, "c", "172.17.0.2", 80, "10.0.0.0/8,10.1.0.0/16,fd00::/8")
    found = elements(listed)
    assert found["guarded4"] == {"0.0.0.0/0 . tcp . 8080"}
    assert found["admitted4"] == {"10.0.0.0/8 . 0.0.0.0/0 . tcp . 8080"}


def test_a_routed_port_is_the_containers_own() -> None:
    assert elements(row(80, "172.17.0.2")) == {"open4": {"172.17.0.2 . tcp . 80"}}


def test_a_change_is_the_difference() -> None:
    nft = RecordingNft()
    firewall(nft).change(elements(row(1), row(2)), elements(row(2), row(3)))
    assert nft.commands == [
        "delete element inet wherry any4 { tcp . 1 : 172.17.0.2 . 80 }\n"
        "delete element inet wherry held4 { tcp . 1 }\n"
        "add element inet wherry any4 { tcp . 3 : 172.17.0.2 . 80 }\n"
        "add element inet wherry held4 { tcp . 3 }\n"
    ]


def test_rules_do_not_grow_with_ports_or_networks() -> None:
    few, many = RecordingNft(), RecordingNft()
    firewall(few).rebuild([BRIDGED], [[row(1)]])
    networks = [Bridged(f"br{n}", (FamilyRules(f"10.0.{n}.0/24"),)) for n in range(200)]
    firewall(many).rebuild(networks, [[row(n)] for n in range(1, 1000)])
    assert few.commands[0].count("\n") == many.commands[0].count("\n")


def test_isolation_comes_before_ports_when_there_is_no_table() -> None:
    nft = RecordingNft()
    firewall(nft).rebuild([BRIDGED], [[row(1)]], missing=True)
    isolation, ports = nft.commands
    assert "same_bridge { " in isolation and "any4 {" not in isolation.partition("into_bridge drop")[2]
    assert ports.startswith("add element inet wherry any4")


def test_nothing_to_change_is_no_transaction() -> None:
    nft = RecordingNft()
    firewall(nft).change(elements(row(1)), elements(row(1)))
    firewall(nft).remove_elements({})
    assert nft.commands == []


def test_removing_takes_what_is_there() -> None:
    nft = RecordingNft("tcp . 2 ")
    firewall(nft).remove_elements({"held4": frozenset(("tcp . 1 ", "tcp . 2 ", "tcp . 3 "))})
    assert [c.count("tcp") for c in nft.commands] == [3, 1, 1, 1]


def test_other_refusals_are_told() -> None:
    class Refusing(RecordingNft):
        def run(self, commands: str, *, json: bool = False) -> str:
            raise NftError("Error: Operation not permitted")

    with pytest.raises(Internal, match="Operation not permitted"):
        firewall(Refusing()).remove_elements(elements(row(1)))


def test_networks_are_elements() -> None:
    network = Bridged(
        "br0",
        (
            FamilyRules("10.0.0.0/24"),
            FamilyRules("fd00::/64", "routed"),
            FamilyRules("10.1.0.0/24", snat="192.0.2.7"),
        ),
        icc=False,
        trusted=("eth0",),
    )
    assert ruleset.of_network(network) == {
        "bridges": {'"br0"'},
        "trusted": {'"eth0" . "br0"'},
        "own4": {'"br0" . 10.0.0.0/24', '"br0" . 10.1.0.0/24'},
        "own6": {'"br0" . fd00::/64'},
        "routed6": {'"br0"'},
        "masqueraded4": {"10.0.0.0/24"},
        "snat4": {"10.1.0.0/24 : 192.0.2.7"},
    }


@pytest.mark.parametrize(
    "bad",
    [
        row(0),
        row(65536),
        row(1, proto="tcp }; flush ruleset; add element x {"),
        row(1, host_ip="1.2.3.4 } ; flush ruleset"),
        row(1, ip="::1"),
        row(1, ip="172.17.0.2\nflush ruleset"),
        PublishedRow("tcp", "0.0.0.0", 1, "c", "172.17.0.2", 80, "10.0.0.0/8 }; flush ruleset"),
    ],
)
def test_values_do_not_break_out(bad: PublishedRow) -> None:
    with pytest.raises((Internal, ValueError)):
        elements(bad)


@pytest.mark.parametrize("bridge", ["", 'a" drop', "a b", "x" * 16, "a\n"])
def test_odd_interface_names_are_refused(bridge: str) -> None:
    with pytest.raises(Internal, match="odd characters"):
        firewall(RecordingNft()).rebuild([Bridged(bridge)], [])


def test_instances_do_not_share_names() -> None:
    one, two = Instance("default"), Instance("0123abcd")
    assert (one.bridge, one.table) == ("wherry0", "wherry")
    assert (two.bridge, two.table) == ("wh-0123abcd", "wherry_0123abcd")
    assert not two.alias("x").startswith(one.alias_prefix)
    for bad in ("", "wherry0", "0123ABCD", "0123abcde", "a}; flush"):
        with pytest.raises(Internal, match="instance"):
            Instance(bad)
