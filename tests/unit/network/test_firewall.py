"""The text of transactions, and that no value breaks out of it. What the rules do: test_network_kernel.py."""

from __future__ import annotations

import pytest

from wherry.errors import Internal
from wherry.linux.nft import Nft, NftError
from wherry.network.firewall import Bridged, Firewall
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


def row(host_port: int, host_ip: str = "0.0.0.0", proto: str = "tcp", ip: str = "172.17.0.2") -> PublishedRow:
    return PublishedRow(proto, host_ip, host_port, "c", ip, 80)


def firewall(nft: Nft) -> Firewall:
    return Firewall(Instance("default"), nft)


def test_publishing_adds_elements_and_no_rule() -> None:
    nft = RecordingNft()
    firewall(nft).publish([row(1), row(2, proto="udp"), row(3, "192.0.2.1")])
    assert nft.commands == [
        "add element inet wherry published { 192.0.2.1 . tcp . 3 : 172.17.0.2 . 80 }\n"
        "add element inet wherry published_any { tcp . 1 : 172.17.0.2 . 80, udp . 2 : 172.17.0.2 . 80 }\n"
    ]


def test_rules_do_not_grow_with_ports() -> None:
    few, many = RecordingNft(), RecordingNft()
    bridged = [Bridged("wherry0", "172.17.0.0/16", True)]
    firewall(few).rebuild(bridged, [row(1)])
    firewall(many).rebuild(bridged, [row(n) for n in range(1, 1000)])
    assert few.commands[0].count("\n") == many.commands[0].count("\n")


def test_nothing_to_publish_is_no_transaction() -> None:
    nft = RecordingNft()
    firewall(nft).publish([])
    firewall(nft).unpublish([])
    assert nft.commands == []


def test_unpublish_removes_what_is_there() -> None:
    nft = RecordingNft("tcp . 2 ")
    firewall(nft).unpublish([row(1), row(2), row(3)])
    assert [c.count("tcp") for c in nft.commands] == [3, 1, 1, 1]


def test_other_refusals_are_told() -> None:
    class Refusing(RecordingNft):
        def run(self, commands: str, *, json: bool = False) -> str:
            raise NftError("Error: Operation not permitted")

    with pytest.raises(Internal, match="Operation not permitted"):
        firewall(Refusing()).unpublish([row(1)])


@pytest.mark.parametrize(
    "bad",
    [
        row(0),
        row(65536),
        row(1, proto="tcp }; flush ruleset; add element x {"),
        row(1, host_ip="1.2.3.4 } ; flush ruleset"),
        row(1, ip="::1"),
        row(1, ip="172.17.0.2\nflush ruleset"),
    ],
)
def test_values_do_not_break_out(bad: PublishedRow) -> None:
    nft = RecordingNft()
    with pytest.raises((Internal, ValueError)):
        firewall(nft).publish([bad])
    assert nft.commands == []


@pytest.mark.parametrize("bridge", ["", 'a" drop', "a b", "x" * 16, "a\n"])
def test_odd_interface_names_are_refused(bridge: str) -> None:
    with pytest.raises(Internal, match="odd characters"):
        firewall(RecordingNft()).rebuild([Bridged(bridge, "10.0.0.0/8", True)], [])


def test_instances_do_not_share_names() -> None:
    one, two = Instance("default"), Instance("0123abcd")
    assert (one.bridge, one.table) == ("wherry0", "wherry")
    assert (two.bridge, two.table) == ("wh-0123abcd", "wherry_0123abcd")
    assert not two.alias("x").startswith(one.alias_prefix)
    for bad in ("", "wherry0", "0123ABCD", "0123abcde", "a}; flush"):
        with pytest.raises(Internal, match="instance"):
            Instance(bad)
