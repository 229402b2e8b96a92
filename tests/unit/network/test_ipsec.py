"""How hosts agree on keys, against kernels that are objects of this process."""

from __future__ import annotations

import base64
import errno
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ipsec_fakes import Kernel, Socket, Watch
from msgspec.structs import replace

from wherry.errors import Unavailable
from wherry.linux import xfrm
from wherry.linux.xfrm import Association, XfrmPolicy
from wherry.network.cluster import ipsec
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.records import Host, Offer
from wherry.network.types import Instance

PORT = ipsec.PORT


class Side:
    """A host: its kernel, its half of the agreement, and what the store says of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, rekey: int = 3600) -> None:
        self.kernel, self.monkeypatch, self.offers = Kernel(), monkeypatch, dict[str, Offer]()
        self.id, self.address = f"h{number}", f"192.0.2.{number}"
        self.ipsec = Ipsec(Instance("default"), self.id, self.address, rekey=rekey, changed=self._changed)
        self.told = 0

    def _changed(self) -> None:
        self.told += 1

    def __enter__(self) -> Ipsec:
        self.monkeypatch.setattr(ipsec, "XfrmSocket", lambda: Socket(self.kernel))
        self.monkeypatch.setattr(ipsec, "XfrmWatch", Watch)
        return self.ipsec

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def host(self) -> Host:
        return Host(id=self.id, address=self.address, key=self.ipsec.public)

    def sends_by(self, other: Side) -> int:
        """The SPI by which the kernel sends to another host, 0 where nothing may leave."""
        rules = [p for p in self.kernel.rules.values() if p.direction == "out"]
        to = [p for p in rules if p.flow.destination in (None, ip_address(other.address))]
        chosen = min(to, key=lambda p: p.priority)
        return 0 if chosen.block else chosen.spi


def exchange(*sides: Side, rounds: int = 3) -> None:
    """What the store does: every host hears of the others and their offers."""
    for _ in range(rounds):
        for side in sides:
            others = [s for s in sides if s is not side]
            offers = {s.id: s.offers[side.id] for s in others if side.id in s.offers}
            with side as it:
                side.offers = {o.to: o for o in it.settle([s.host for s in others], offers)}


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[Side]:
    monkeypatch.setattr(ipsec, "_PAUSE", 0)
    made = [Side(monkeypatch, number) for number in (1, 2, 3)]
    for side in made:
        with side as it:
            it.require("n")
    return made


def agree(one: Side, other: Side) -> bytes:
    """The key by which one host sends to the other, which both must have."""
    spi = one.sends_by(other)
    at = (ip_address(other.address), spi)
    assert spi and one.kernel.keys[at] == other.kernel.keys[at]
    assert at in one.kernel.associations and at in other.kernel.associations
    return one.kernel.keys[at]


def test_each_direction_has_a_key_of_its_own(sides: list[Side]) -> None:
    assert all(a.sends_by(b) == 0 for a in sides for b in sides), "nothing leaves before there is one"
    exchange(*sides)
    keys = [agree(a, b) for a in sides for b in sides if a is not b]
    assert len(set(keys)) == 6


def test_a_new_key_is_used_once_its_receiver_has_it(sides: list[Side]) -> None:
    one, two, _ = sides
    exchange(one, two)
    before = agree(one, two)
    with one as it:
        it.start_over()
    with two as it:
        two.offers = {o.to: o for o in it.settle([one.host], {"h1": one.offers["h2"]})}
    assert agree(one, two) == before, "the receiver is ready, the sender has not heard of it"
    exchange(one, two)
    assert agree(one, two) != before
    inbound = [a for a in two.kernel.associations.values() if a.destination == ip_address(two.address)]
    assert len(inbound) == 2, "the former stays for what is under way"
    assert [o.spi for o in two.offers.values()] == [inbound[-1].spi]
    two.kernel.used(inbound[-1])
    exchange(one, two, rounds=1)
    inbound = [a for a in two.kernel.associations.values() if a.destination == ip_address(two.address)]
    assert len(inbound) == 1


def test_who_starts_over_makes_new_offers(sides: list[Side]) -> None:
    one, two, _ = sides
    exchange(one, two)
    before, key = two.offers["h1"], two.ipsec.public
    with two as it:
        it.start_over()
        (offer,) = it.settle([one.host], {})
    assert offer.spi != before.spi and two.ipsec.public != key


def test_no_key_is_ever_given_twice(sides: list[Side]) -> None:
    for turn in range(4):
        exchange(*sides)
        with sides[turn % 3] as it:
            it.start_over()
    exchange(*sides)
    for side in sides:
        assert len(set(side.kernel.given)) == len(side.kernel.given)


def test_an_offer_is_made_use_of_once(sides: list[Side]) -> None:
    """Where a host vanishes and is back with the same offer, its sequence numbers would begin again."""
    one, two, _ = sides
    exchange(one, two)
    before = agree(one, two)
    with one as it:
        it.settle([], {})
    assert one.sends_by(two) == 0
    told = one.told
    with one as it:
        it.settle([two.host], {"h2": two.offers["h1"]})
        assert one.sends_by(two) == 0
        it.check()
    assert one.sends_by(two) == 0 and one.told == told + 1, "it asks for another"
    exchange(one, two)
    assert agree(one, two) != before


def test_a_daemon_that_comes_back_goes_on_with_what_there_is(
    sides: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = sides
    exchange(one, two)
    there, back = agree(one, two), agree(two, one)
    again = Side(monkeypatch, 1)
    again.kernel = one.kernel
    with again as it:
        it.require("n")
        it.check()
    assert agree(again, two) == there and agree(two, again) == back
    exchange(again, two)
    assert agree(again, two) != there and agree(two, again) != back


def test_associations_that_were_removed_are_made_anew(sides: list[Side]) -> None:
    one, two, _ = sides
    exchange(one, two)
    before = agree(one, two)
    one.kernel.associations.clear()
    told = one.told
    with one as it:
        it.check()
    assert one.told == told + 1
    exchange(one, two)
    assert agree(one, two) != before and agree(two, one)


def test_policies_that_were_removed_are_put_back(sides: list[Side]) -> None:
    one, two, _ = sides
    exchange(one, two)
    before = dict(one.kernel.rules)
    one.kernel.rules.clear()
    told = one.told
    with one as it:
        it.check()
    assert one.kernel.rules == before and one.told == told


def test_a_key_gets_old(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side(monkeypatch, 1, rekey=60)
    now = 1000.0
    monkeypatch.setattr(ipsec.time, "monotonic", lambda: now)
    with side as it:
        it.require("n")
        before, told = it.public, side.told
        now += 59
        it.check()
        assert it.public == before and side.told == told
        now += 1
        it.check()
        assert it.public != before and side.told == told + 1


def test_the_last_network_takes_all_of_it_along(sides: list[Side]) -> None:
    one, two, three = sides
    exchange(one, two, three)
    with one as it:
        it.require("m")
        it.release("n")
        assert one.kernel.rules and it.public
        told = one.told
        it.release("m")
        assert it.public == "" and one.told == told + 1, "the others are told"
    assert not one.kernel.rules and not one.kernel.associations
    exchange(one, two, three)
    assert not one.kernel.rules and not one.kernel.associations
    assert two.sends_by(one) == 0 and agree(two, three)
    with one as it:
        it.require("n")
    exchange(one, two, three)
    assert agree(one, two) and agree(two, one)


def test_what_others_have_in_the_kernel_is_left_alone(sides: list[Side]) -> None:
    one, two, _ = sides
    theirs = Association(ip_address(one.address), ip_address(two.address), 0x4242, 1)
    rule = XfrmPolicy("out", xfrm.Flow(None, None, 500), 1000, 1)
    Socket(one.kernel).add(theirs, bytes(20), PORT)
    Socket(one.kernel).put_policy(rule)
    exchange(one, two)
    assert agree(one, two)
    with one as it:
        it.release("n")
    assert [a.spi for a in one.kernel.associations.values()] == [0x4242]
    assert list(one.kernel.rules.values()) == [rule]


@pytest.mark.parametrize("key", ["", "x", "AAAA", base64.b64encode(bytes(32)).decode(), "\udc80"])
def test_keys_that_are_none(sides: list[Side], key: str) -> None:
    one, two, three = sides
    exchange(one, two)
    with one as it:
        offers = it.settle([replace(two.host, key=key), three.host], {})
        assert {o.to for o in offers} >= {"h3"}, "the other host is served all the same"
        bad = Offer(host="h3", to="h1", spi=0x5000, public=key, answers=it.public)
        it.settle([two.host, three.host], {"h3": bad})
    assert one.sends_by(three) == 0
    exchange(one, two)
    with one as it:
        it.check()
    exchange(one, two)
    assert agree(one, two) and agree(two, one)


def test_hosts_that_cannot_be_peers(sides: list[Side]) -> None:
    one, two, _ = sides
    with one as it:
        strange = [replace(two.host, address="fd00::1"), replace(two.host, address=one.address), one.host]
        assert it.settle(strange, {}) == []
        same = [two.host, replace(two.host, id="h9")]
        assert [o.to for o in it.settle(same, {})] == ["h2"], "an address is one host's"
        many = [
            Host(id=f"m{n}", address=f"198.18.{n >> 8}.{n & 255}", key=two.ipsec.public) for n in range(1200)
        ]
        assert len(it.settle(many, {})) == 1000


def test_a_host_has_another_address(sides: list[Side]) -> None:
    one, two, _ = sides
    exchange(one, two)
    before = agree(one, two)
    two.kernel, two.address = Kernel(), "192.0.2.22"
    two.ipsec = Ipsec(Instance("default"), two.id, two.address, rekey=3600, changed=lambda: None)
    with two as it:
        it.require("n")
    two.offers = {}
    exchange(one, two)
    assert agree(one, two) != before and agree(two, one)
    old = ip_address("192.0.2.2")
    assert not [a for a in one.kernel.associations.values() if old in (a.source, a.destination)]
    assert not [p for p in one.kernel.rules.values() if old in (p.flow.source, p.flow.destination)]


def test_a_record_moves_a_host_to_another_address(sides: list[Side]) -> None:
    """As only a stranger writes it: a host that moves has another key as well."""
    one, two, _ = sides
    exchange(one, two)
    moved = replace(two.host, address="192.0.2.99")
    with one as it:
        it.settle([moved], {"h2": two.offers["h1"]})
    there = {ip_address(one.address): a for a in one.kernel.associations.values()}
    assert there[ip_address(one.address)].source == ip_address(moved.address)
    assert one.sends_by(two) == 0, "by no association that was another address's"


def test_this_host_has_another_address(sides: list[Side], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = sides
    exchange(one, two)
    again = Side(monkeypatch, 1)
    again.kernel, again.address = one.kernel, "192.0.2.11"
    again.ipsec = Ipsec(Instance("default"), again.id, again.address, rekey=3600, changed=lambda: None)
    with again as it:
        it.require("n")
    exchange(again, two)
    assert agree(again, two) and agree(two, again)
    old = ip_address(one.address)
    assert not [a for a in one.kernel.associations.values() if old in (a.source, a.destination)]
    assert not [p for p in one.kernel.rules.values() if old in (p.flow.source, p.flow.destination)]


def test_what_the_kernel_refuses_is_tried_again(sides: list[Side]) -> None:
    one, two, three = sides
    one.kernel.lacks = errno.ENOMEM
    with one as it:
        assert it.settle([two.host, three.host], {}) == []
        told = one.told
        it.check()
        assert one.told == told + 1
        one.kernel.lacks = 0
    exchange(one, two, three)
    assert agree(one, two) and agree(two, one) and agree(one, three)
    with one as it:
        told = one.told
        it.check()
        assert one.told == told


def test_two_daemons_of_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share what blocks, and leave each other what else is theirs."""
    one, other = Side(monkeypatch, 1), Side(monkeypatch, 2)
    other.kernel = one.kernel
    other.ipsec = Ipsec(Instance("0123abcd"), other.id, other.address, rekey=3600, changed=lambda: None)
    with one as it:
        it.require("n")
    before = dict(one.kernel.rules)
    with other as it:
        it.sweep()
        assert one.kernel.rules == before
        it.require("n")
        it.release("n")
    with one as it:
        it.check()
    assert one.kernel.rules == before


@pytest.mark.parametrize("what", ["spi", "public", "sender", "receiver", "sender key", "receiver key"])
def test_all_that_is_agreed_is_in_the_key(what: str) -> None:
    mine, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = base64.b64encode(theirs.public_key().public_bytes_raw()).decode()
    other = base64.b64encode(mine.public_key().public_bytes_raw()).decode()
    plain: dict[str, Any] = {"spi": 0x1000, "public": public, "sender": ("a", "A"), "receiver": ("b", "B")}
    changed = {
        "spi": {"spi": 0x1001},
        "public": {"public": other},
        "sender": {"sender": ("c", "A")},
        "receiver": {"receiver": ("c", "B")},
        "sender key": {"sender": ("a", "C")},
        "receiver key": {"receiver": ("b", "C")},
    }[what]
    assert ipsec.derive(mine, **plain) == ipsec.derive(mine, **plain)
    assert ipsec.derive(mine, **plain) != ipsec.derive(mine, **{**plain, **changed})


@pytest.mark.parametrize("lacks", [errno.EPROTONOSUPPORT, errno.ENOSYS])
def test_a_kernel_without_esp(monkeypatch: pytest.MonkeyPatch, lacks: int) -> None:
    side = Side(monkeypatch, 1)
    side.kernel.lacks = lacks
    with side as it, pytest.raises(Unavailable, match="this kernel has no IPsec ESP"):
        it.require("n")
    assert not side.kernel.rules and it.public == ""
