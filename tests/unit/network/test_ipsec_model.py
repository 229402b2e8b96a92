"""Three hosts that agree on keys while everything goes wrong: what must be so at any moment, and in the end.

The store is a log that each host reads at its own pace. Save the keys, chance is what the seed says.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from random import Random
from typing import Any, TypeVar

import pytest
from ipsec_fakes import Kernel, Killed, Socket, Watch

from wherry.network.cluster import ipsec
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.records import Host, Offer
from wherry.network.types import Instance

T = TypeVar("T")
Key = tuple[str, ...]
"""``host, id`` or ``offer, of, to``."""
STEPS, SEEDS, FORMER = 120, 12, 8


class Store:
    def __init__(self) -> None:
        self.log: list[tuple[Key, Any]] = []
        self.data: dict[Key, Any] = {}
        self.leases: set[str] = set()
        self.away = False
        self._under: dict[Key, str] = {}

    def put(self, key: Key, value: Any, lease: str) -> None:
        self.data[key], self._under[key] = value, lease
        self.log.append((key, value))

    def delete(self, key: Key) -> None:
        if self.data.pop(key, None) is not None:
            self.log.append((key, None))

    def end(self, lease: str) -> None:
        self.leases.discard(lease)
        for key in [k for k in self.data if self._under[k] == lease]:
            self.delete(key)


class Node:
    """A host: what its kernel holds outlives its daemon."""

    def __init__(self, number: int, store: Store, random: Random) -> None:
        self.id, self.address = f"h{number}", f"192.0.2.{number}"
        self.store, self.random, self.kernel = store, random, Kernel(random)
        self.encrypts = True
        self.unguarded = False
        """Another program has flushed the policies, and nobody has looked since."""
        self.boot()

    def boot(self) -> None:
        self.up, self.again, self.lease = True, True, ""
        self.position, self.view, self.offered = 0, dict[Key, Any](), dict[Key, Offer]()
        self.ipsec = Ipsec(Instance("default"), self.id, self.address, rekey=1 << 30, changed=self._changed)
        if self.encrypts:
            self.surely(lambda: self.ipsec.require("n"))
        else:
            self.surely(self.ipsec.sweep)

    def _changed(self) -> None:
        self.again = True

    def call(self, function: Callable[[], T]) -> T | None:
        """In this host's kernel. None if the daemon was killed by it."""
        ipsec.XfrmSocket = lambda: Socket(self.kernel)  # type: ignore[misc, assignment]
        ipsec.XfrmWatch = Watch  # type: ignore[misc, assignment]
        try:
            return function()
        except Killed:
            self.up = self.kernel.kills = False
            return None

    def surely(self, function: Callable[[], object]) -> None:
        failing, self.kernel.failing = self.kernel.failing, 0
        self.call(function)
        self.kernel.failing = failing

    # -- what ``Member`` does --------------------------------------------------------------------------

    def read_all(self) -> None:
        self.again = False
        if not self.lease:
            self.lease = f"{self.id}-{len(self.store.log)}-{self.random.random()}"
            self.store.leases.add(self.lease)
            self.ipsec.start_over()
        if self.lease not in self.store.leases:
            self.again = True
            return
        host = Host(id=self.id, address=self.address, key=self.ipsec.public)
        self.store.put(("host", self.id), host, self.lease)
        self.view, self.position = dict(self.store.data), len(self.store.log)
        self.offered = {k: v for k, v in self.view.items() if k[:2] == ("offer", self.id)}
        self.settle()

    def settle(self) -> None:
        if not self.lease:
            return
        hosts = [h for k, h in self.view.items() if k[0] == "host" and h.id != self.id]
        offers = {o.host: o for k, o in self.view.items() if k[0] == "offer" and k[2] == self.id}
        found = self.call(lambda: self.ipsec.settle(hosts, offers))
        if found is None:
            return
        mine = {("offer", o.host, o.to): o for o in found}
        for key, offer in mine.items():
            if self.offered.get(key) != offer:
                self.store.put(key, offer, self.lease)
        for key in self.offered.keys() - mine.keys():
            self.store.delete(key)
        self.offered = dict(mine)

    def follow(self, *, whole: bool = False) -> bool:
        """Hear some of what is new, or all. :returns: whether there was something."""
        if not self.up or self.store.away:
            return False
        if self.again:
            self.read_all()
            return True
        news = self.store.log[self.position :]
        if not whole and self.random.random() < 0.7:
            news = news[:1]
        self.position += len(news)
        for key, value in news:
            mine = self.offered if key[:2] == ("offer", self.id) else self.view
            if value is None:
                mine.pop(key, None)
            else:
                mine[key] = value
        if any(key[:2] != ("offer", self.id) for key, _ in news):
            self.settle()
        return bool(news)

    def notice(self) -> bool:
        """What the thread does that watches the kernel."""
        taken, self.kernel.taken = self.kernel.taken, False
        if self.up and taken:
            self.call(self.ipsec.check)
            self.unguarded = self.unguarded and self.sends_by(self) is None
        return self.up and taken

    def tick(self) -> None:
        """What the thread of the lease does."""
        if not self.up:
            return
        if self.lease and self.lease not in self.store.leases and not self.store.away:
            self.lease, self.again = "", True
        self.call(self.ipsec.check)

    # -- what a packet meets ---------------------------------------------------------------------------

    def sends_by(self, other: Node) -> int | None:
        """The SPI; 0 where it is blocked, None where nothing keeps it from leaving as it is."""
        mine, to = ip_address(self.address), ip_address(other.address)
        rules = [
            p
            for p in self.kernel.rules.values()
            if p.direction == "out" and p.flow.source in (None, mine) and p.flow.destination in (None, to)
        ]
        if not rules:
            return None
        first = min(rules, key=lambda p: p.priority)
        return 0 if first.block else first.spi

    def send(self, other: Node) -> str:
        """What becomes of a packet; ``""`` if it arrives."""
        spi = self.sends_by(other)
        if spi is None:
            return "" if self.unguarded or not self.encrypts else "it goes in the clear"
        at = (ip_address(other.address), spi)
        if not spi or at not in self.kernel.associations:
            return "it is not sent"
        if at not in other.kernel.associations:
            return "the receiver has no such association"
        if self.kernel.keys[at] != other.kernel.keys[at]:
            return "the receiver has another key"
        for kernel in (self.kernel, other.kernel):
            kernel.used(kernel.associations[at])
        return ""


class World:
    def __init__(self, seed: int, goes_wrong: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.random, self.goes_wrong, self.store = Random(seed), goes_wrong, Store()
        for name, value in (("_PAUSE", 0), ("XfrmSocket", None), ("XfrmWatch", None)):
            monkeypatch.setattr(ipsec, name, value)  # so that they are what they were in the end
        self.nodes = [Node(number, self.store, self.random) for number in (1, 2, 3)]
        if "one second" in goes_wrong:
            for node in self.nodes:
                node.kernel.second = 50

    def run(self) -> None:
        self.come_to_rest()
        self.check_agreement(former=0)
        for _ in range(STEPS):
            self.step()
            for node in self.nodes:
                assert len(set(node.kernel.given)) == len(node.kernel.given), "a key was given twice"
                if node.encrypts and node.up and not node.unguarded:
                    assert node.sends_by(node) is not None, "nothing keeps packets from leaving as they are"
        self.come_to_rest()
        self.check_agreement(former=FORMER)
        for node in self.nodes:
            self.use(node, False)
        self.come_to_rest()
        assert not any(node.kernel.associations or node.kernel.rules for node in self.nodes)
        assert not [key for key in self.store.data if key[0] == "offer"]

    def step(self) -> None:
        node, other = self.random.sample(self.nodes, 2)
        deeds: dict[str, tuple[int, Callable[[], object]]] = {
            "": (45, node.follow),
            "notice": (15, node.notice),
            "tick": (6, node.tick),
            "send": (12, lambda: self.send(node, other)),
            "rekey": (6, lambda: self.rekey(node)),
            "restart": (4, lambda: self.restart(node)),
            "lapse": (4, self.lapse),
            "loss": (2, lambda: self.lose(node)),
            "flush": (1, lambda: self.flush(node)),
            "away": (2, self.go_away),
            "failure": (1, lambda: self.fail(node)),
            "networks": (2, lambda: node.up and self.use(node, not node.encrypts)),
        }
        always = ("", "notice", "tick", "send", "rekey")
        able = {name: deed for name, deed in deeds.items() if name in always or name in self.goes_wrong}
        weights = [weight for weight, _ in able.values()]
        _, deed = self.random.choices(list(able.values()), weights)[0]
        deed()

    def send(self, node: Node, other: Node) -> None:
        if not (node.encrypts and other.encrypts):
            return
        trouble = node.send(other)
        assert trouble not in ("it goes in the clear", "the receiver has another key")
        if not self.goes_wrong & {"lapse", "loss", "flush", "failure", "networks"}:
            assert not trouble, "what runs is disturbed"

    def rekey(self, node: Node) -> None:
        if node.up and node.encrypts:
            node.ipsec._renewed = -1e18
            node.call(node.ipsec.check)

    def restart(self, node: Node) -> None:
        if node.up and "kill" in self.goes_wrong:
            node.kernel.kills = True
            node.tick()
            node.again = True
            node.follow()
            node.kernel.kills = False
        if node.up and self.random.random() < 0.3:
            node.up = False
        else:
            node.boot()

    def lapse(self) -> None:
        if self.store.leases:
            self.store.end(self.random.choice(sorted(self.store.leases)))

    def lose(self, node: Node) -> None:
        if node.kernel.associations:
            del node.kernel.associations[self.random.choice(sorted(node.kernel.associations, key=str))]
            node.kernel.taken = True

    def flush(self, node: Node) -> None:
        node.kernel.rules.clear()
        node.kernel.taken = node.unguarded = True
        node.notice()

    def go_away(self) -> None:
        self.store.away = not self.store.away

    def fail(self, node: Node) -> None:
        node.kernel.failing = 0 if node.kernel.failing else 0.3

    def use(self, node: Node, encrypts: bool) -> None:
        node.encrypts, node.unguarded = encrypts, False
        if encrypts:
            node.surely(lambda: node.ipsec.require("n"))
        else:
            node.surely(lambda: node.ipsec.release("n"))

    def come_to_rest(self) -> None:
        """Nothing goes wrong any more, and everybody hears and does what there is to hear and do."""
        self.store.away = False
        for node in self.nodes:
            node.kernel.failing, node.kernel.kills = 0, False
            if not node.up:
                node.boot()
        for lease in self.store.leases - {node.lease for node in self.nodes}:
            self.store.end(lease)
        quiet = 0
        for turn in range(2000):
            busy = False
            for node in self.nodes:
                busy |= node.follow(whole=True)
                busy |= node.notice()
            quiet += not busy
            if quiet == 4:
                return
            if not busy or turn % 25 == 24:
                for node in self.nodes:
                    node.tick()
                    node.unguarded = False
        raise AssertionError("the hosts never come to rest")

    def check_agreement(self, former: int) -> None:
        using = [node for node in self.nodes if node.encrypts]
        for node in self.nodes:
            there = list(node.kernel.associations.values())
            if not node.encrypts:
                assert not there and not node.kernel.rules
                continue
            peers = [other for other in using if other is not node]
            assert len(node.kernel.rules) == 3 + len(peers)
            addresses = {ip_address(peer.address): peer for peer in peers}
            assert all(a.source in addresses or a.destination in addresses for a in there)
            for address, peer in addresses.items():
                assert node.send(peer) == ""
                assert sum(a.destination == address for a in there) == 1
                assert 1 <= sum(a.source == address for a in there) <= 1 + former


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize(
    "goes_wrong",
    [
        "",
        "one second",
        "restart",
        "away",
        "restart lapse",
        "restart kill lapse loss flush away",
        "restart lapse loss flush failure",
        "restart kill lapse loss flush away networks",
        "one second restart kill lapse loss flush away networks failure",
    ],
)
def test_hosts_agree(goes_wrong: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = frozenset(goes_wrong.replace("one second", "").split())
    World(seed, words | ({"one second"} if "one second" in goes_wrong else set()), monkeypatch).run()
