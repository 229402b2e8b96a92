"""The cluster's store and its member, against a store that is an object of this process."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from patience import patiently, until

from wherry.daemon import clusters
from wherry.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.network.cluster import etcd, records
from wherry.network.cluster.etcd import Etcd, EtcdAddress, KeyChange, Pair
from wherry.network.cluster.member import Member, number_of
from wherry.network.cluster.records import Host, Offer, Remote
from wherry.network.types import ClusterConfig, Endpoint, Network, Subnet

NET = Network(
    id="ab" * 32,
    name="wide",
    driver="overlay",
    created=1,
    subnets=(Subnet(cidr="10.5.0.0/24"),),
    bridge_name="br-abababababab",
)


class Connection:
    """What a watch may be ended by."""

    def __init__(self, store: Store) -> None:
        self.sock, self.store, self.ended = self, store, False

    def shutdown(self, _how: int) -> None:
        self.ended = True


class Store(Etcd):
    """Keys in a dict, with etcd's rules for transactions; changes go to whoever watches."""

    def __init__(self) -> None:
        super().__init__([EtcdAddress("store", 1)])
        self.data: dict[str, tuple[str, int, str]] = {}
        self.revision = 0
        self.leases: set[str] = set()
        self.away = False
        self.changed = threading.Condition()
        self.log: list[tuple[int, KeyChange]] = []

    def _here(self) -> None:
        if self.away:
            raise Unavailable("cannot reach the cluster store etcd://store:1: away")

    def range(self, prefix: str) -> tuple[list[Pair], int]:
        self._here()
        return [Pair(k, v, m) for k, (v, m, _) in self.data.items() if k.startswith(prefix)], self.revision

    def transact(self, conditions: Sequence[Any], changes: Sequence[Any]) -> bool:
        self._here()
        with self.changed:
            if not all(self._holds(c) for c in conditions):
                return False
            self.revision += 1
            for change in changes:
                if put := change.get("request_put"):
                    key, value = _text(put["key"]), _text(put["value"])
                    self.data[key] = (value, self.revision, put["lease"])
                    self.log.append((self.revision, KeyChange(key, value)))
                else:
                    key = _text(change["request_delete_range"]["key"])
                    if self.data.pop(key, None) is not None:
                        self.log.append((self.revision, KeyChange(key, None)))
            self.changed.notify_all()
        return True

    def _holds(self, condition: dict[str, Any]) -> bool:
        key = _text(condition["key"])
        if "range_end" in condition:
            return not any(key <= k < _text(condition["range_end"]) for k in self.data)
        if condition["target"] == "CREATE":
            return key not in self.data
        return key in self.data and str(self.data[key][1]) == condition["mod_revision"]

    def grant(self, seconds: int) -> str:
        self._here()
        self.leases.add(lease := str(len(self.leases) + 1000))
        return lease

    def keep(self, lease: str) -> bool:
        self._here()
        return lease in self.leases

    def expire(self, lease: str) -> None:
        self.leases.discard(lease)
        gone = [etcd.delete(k) for k, (_, _, owner) in self.data.items() if owner == lease]
        self.transact([], gone)

    def watch(self, prefix: str, revision: int, opened: list[Any]) -> Iterator[list[KeyChange]]:
        connection = Connection(self)
        opened[:] = [connection]
        while True:
            if connection.ended:
                raise Unavailable("the watch is broken")
            with self.changed:
                found = [c for r, c in self.log if r >= revision and c.key.startswith(prefix)]
                revision = self.revision + 1
                if not found:
                    self.changed.wait(0.05)
            self._here()
            yield found


def _text(data: str) -> str:
    return base64.b64decode(data).decode()


class Ear:
    """What a host hears."""

    def __init__(self) -> None:
        self.networks: Mapping[str, Network] = {}
        self.remotes: dict[str, list[Remote]] = {}
        self.local: list[Endpoint] = []
        self.key = ""
        self.hosts: dict[str, Host] = {}
        self.offers: dict[str, Offer] = {}
        self.mine: list[Offer] = []
        self.overs = 0
        self.times_alone = 0

    def networks_are(self, networks: Mapping[str, Network]) -> None:
        self.networks = dict(networks)

    def endpoints_are(self, network_id: str, remotes: Sequence[Remote]) -> None:
        self.remotes[network_id] = list(remotes)

    def local_endpoints(self) -> list[Endpoint]:
        return self.local

    def public_key(self) -> str:
        return self.key

    def starts_over(self) -> None:
        self.overs += 1

    def hosts_are(self, hosts: Sequence[Host], offers: Mapping[str, Offer]) -> list[Offer]:
        self.hosts, self.offers = {h.id: h for h in hosts}, dict(offers)
        self.times_alone += not self.hosts
        return self.mine

    def look_after(self) -> None:
        pass


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, list[Member], list[Ear]]]:
    monkeypatch.setattr("wherry.network.cluster.member._RETRY", 0.02)
    store, ears = Store(), [Ear(), Ear()]
    members = [
        Member(store, Host(id=f"h{n}", address=f"192.0.2.{n}"), ear, ttl=1) for n, ear in enumerate(ears, 1)
    ]
    for member in members:
        member.start()
    until(lambda: all(len(m.hosts) == 2 for m in members))
    yield store, members, ears
    for member in members:
        member.close()


def place(number: int) -> Endpoint:
    return Endpoint(
        id=f"e{number}",
        network_id=NET.id,
        network_name=NET.name,
        container_id=f"{number:064x}",
        ip=f"10.5.0.{number}",
        mac=f"02:42:0a:05:00:{number:02x}",
    )


def test_networks_are_known_to_all_and_are_numbered(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    _store, (one, two), ears = pair
    made, number = one.create(NET, 0)
    assert number == number_of(made) == 4096
    until(lambda: ears[1].networks == {NET.id: made})
    with pytest.raises(Conflict, match="network with name wide already exists"):
        two.create(NET, 0)
    other = Network(
        id="cd" * 32, name="other", driver="overlay", created=2, subnets=(Subnet(cidr="10.5.0.128/25"),)
    )
    with pytest.raises(Forbidden, match="Pool overlaps"):
        two.create(other, 0)
    with pytest.raises(Conflict, match="VXLAN number 4096 is in use"):
        two.create(Network(id="ef" * 32, name="pp", driver="overlay", created=2), 4096)
    one.announce(place(2))
    with pytest.raises(Forbidden, match="active endpoints on another host"):
        two.remove(made)
    one.withdraw(place(2))
    two.remove(made)
    until(lambda: ears[0].networks == {})


def test_an_address_is_one_hosts(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    _store, (one, two), _ears = pair
    free = iter(("10.5.0.2", "10.5.0.2", "10.5.0.3"))
    assert one.claim(NET, lambda _taken: next(free)) == "10.5.0.2"
    assert two.claim(NET, lambda _taken: next(free)) == "10.5.0.3", (
        "what another has just taken is left alone"
    )
    with pytest.raises(Conflict, match="Address already in use"):
        two.claim(NET, lambda _taken: "10.5.0.2")
    one.unclaim(NET.id, ["10.5.0.2"])
    assert two.claim(NET, lambda _taken: "10.5.0.2") == "10.5.0.2"


def test_a_host_that_was_forgotten_tells_all_again(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, (one, _two), ears = pair
    one.create(NET, 0)
    ears[0].local = [place(2)]
    one.announce(place(2))
    until(lambda: [r.endpoint.id for r in ears[1].remotes.get(NET.id, ())] == ["e2"])
    store.expire(one._lease)
    until(lambda: ears[1].remotes[NET.id] == [])
    until(lambda: ears[1].remotes[NET.id])
    assert [r.endpoint.id for r in ears[1].remotes[NET.id]] == ["e2"]


def test_while_the_store_is_away(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, (one, two), ears = pair
    one.create(NET, 0)
    ears[1].local = [place(3)]
    two.announce(place(3))
    one.announce(place(2))
    until(lambda: ears[1].remotes.get(NET.id) and ears[0].remotes.get(NET.id))
    store.away = True
    with pytest.raises(Unavailable):
        one.announce(place(4))
    one.withdraw(place(2))
    assert [r.endpoint.id for r in ears[1].remotes[NET.id]] == ["e2"], "what was known goes on"
    store.away = False
    until(lambda: ears[1].remotes[NET.id] == [])
    assert f"{records.ADDRESSES}{NET.id}/10.5.0.2" not in store.data


def test_keys_and_offers_go_from_host_to_host(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, (one, _two), (first, second) = pair
    first.key = "K1"
    one.resync()
    until(lambda: second.hosts["h1"].key == "K1")
    offer = Offer(host="h2", to="h1", spi=0x1000, public="P", answers="K1")
    other = Offer(host="h2", to="h9", spi=0x1001, public="P", answers="K9")
    second.mine = [offer, other]
    first.key = "K1'"
    one.resync()
    until(lambda: first.offers == {"h2": offer})
    assert set(first.hosts) == {"h2"} and set(second.hosts) == {"h1"}
    second.mine = []
    first.key = "K2"
    one.resync()
    until(lambda: first.offers == {})
    assert not [k for k in store.data if k.startswith(records.OFFERS)]


def test_what_is_told_under_a_lease_that_ended_is_agreed_anew(
    pair: tuple[Store, list[Member], list[Ear]],
) -> None:
    store, (one, two), (first, second) = pair
    first.key, second.mine = "K1", [Offer(host="h2", to="h1", spi=0x1000, public="P", answers="K1")]
    one.resync()
    until(lambda: first.offers)
    overs, alone = second.overs, first.times_alone
    store.expire(two._lease)
    until(lambda: first.times_alone > alone)
    until(lambda: first.hosts and first.offers)
    assert second.overs == overs + 1


def test_offers_that_make_no_sense_are_not_heard(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, (one, _two), (first, _second) = pair
    good = Offer(host="h2", to="h1", spi=0x1000, public="P", answers="K")
    for key, text in (
        (f"{records.OFFERS}h2/h1", "{"),
        (f"{records.OFFERS}h3/h1", records.write(good)),
        (f"{records.OFFERS}h2/h1", records.write(good).replace("4096", "5")),
        (f"{records.OFFERS}h2/h1", records.write(good).replace("4096", "4294967296")),
        (f"{records.OFFERS}h2/h1", records.write(good).replace("4096", '"x"')),
    ):
        store.transact([], [etcd.put(key, text)])
    one.announce(place(2))
    store.transact([], [etcd.put(f"{records.OFFERS}h4/h1", records.write(replace(good, host="h4")))])
    until(lambda: "h4" in first.offers)
    assert set(first.offers) == {"h4"}


def test_a_record_that_another_program_removes_is_told_again(
    pair: tuple[Store, list[Member], list[Ear]],
) -> None:
    store, (one, _two), (first, second) = pair
    one.announce(place(2))
    overs, lease = first.overs, one._lease
    store.transact([], [etcd.delete(f"{records.HOSTS}h1")])
    until(lambda: first.overs == overs + 1 and "h1" in second.hosts)
    assert one._lease != lease


def test_hosts_that_are_none_are_not_heard(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, _members, (_first, second) = pair
    good = Host(id="h9", address="192.0.2.9", key="K")
    for key, host in (
        ("h8", good),
        ("x/h9", replace(good, id="x/h9")),
        ("h9", replace(good, address="0.0.0.0")),
        ("h9", replace(good, address="127.0.0.1")),
        ("h9", replace(good, address="255.255.255.255")),
        ("h9", replace(good, address="fe80::1%lo")),
        ("h9", replace(good, address="fe80::1")),
        ("h9", replace(good, address="::ffff:192.0.2.9")),
        ("h9", replace(good, address="ff02::1")),
    ):
        store.transact([], [etcd.put(f"{records.HOSTS}{key}", records.write(host))])
    store.transact([], [etcd.put(f"{records.HOSTS}h7", records.write(replace(good, id="h7")))])
    until(lambda: "h7" in second.hosts)
    assert set(second.hosts) == {"h1", "h7"}


class _Gateway(http.server.BaseHTTPRequestHandler):
    """etcd's gateway as far as a host needs it that is alone; its watches have no news."""

    protocol_version = "HTTP/1.1"
    watches = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        answers: dict[str, Any] = {
            "/v3/lease/grant": {"ID": "1"},
            "/v3/kv/txn": {"succeeded": True},
            "/v3/kv/range": {"header": {"revision": "1"}},
            "/v3/lease/keepalive": {"result": {"TTL": "9"}},
            "/v3/watch": {"result": {"created": True}},
        }
        line = json.dumps(answers[self.path]).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if self.path == "/v3/watch":
            type(self).watches += 1
            self.wfile.flush()
            self.connection.recv(1)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


def test_a_watch_that_is_about_to_begin_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever wants all of it read anew, or closes: whenever that is, nobody waits for news in vain."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = Etcd._request

    def slowly(self: Etcd, path: str, body: dict[str, Any]) -> Any:
        if path == "/v3/watch":
            time.sleep(0.1)
        return asked(self, path, body)

    monkeypatch.setattr(Etcd, "_request", slowly)
    store = Etcd([EtcdAddress("127.0.0.1", server.server_address[1])])
    member = Member(store, Host(id="h1", address="192.0.2.1"), Ear(), ttl=30)
    member.start()
    until(lambda: member._lease)
    for _ in range(3):
        before = _Gateway.watches
        member.resync()
        until(lambda n=before: _Gateway.watches > n)  # type: ignore[misc]
    member.resync()
    closing = threading.Thread(target=member.close)
    closing.start()
    closing.join(patiently(5))
    assert not closing.is_alive()
    server.shutdown()
    server.server_close()


def test_what_another_host_writes_is_not_trusted(pair: tuple[Store, list[Member], list[Ear]]) -> None:
    store, (one, _two), ears = pair
    one.create(NET, 0)
    bad = ("{", "{}", '{"host": "x", "address": "not one", "endpoint": {}}')
    for number, text in enumerate(bad):
        store.transact([], [etcd.put(f"{records.ENDPOINTS}{NET.id}/{number}", text)])
        store.transact([], [etcd.put(f"{records.NETWORKS}{number}", text)])
        store.transact([], [etcd.put(f"{records.HOSTS}{number}", text)])
    one.announce(place(2))
    until(lambda: [r.endpoint.id for r in ears[1].remotes.get(NET.id, ())] == ["e2"])
    assert set(ears[1].networks) == {NET.id}


def test_places() -> None:
    assert etcd.parse_places("etcd://a:1,[::1]:2/") == (EtcdAddress("a", 1), EtcdAddress("::1", 2))
    for bad in ("http://a:1", "etcd://a", "etcd://a:b", "etcd://a:70000", "etcd://:1"):
        with pytest.raises(InvalidArgument, match="invalid cluster store"):
            etcd.parse_places(bad)


def test_configuration() -> None:
    assert clusters.configured(None, None, None) is None
    found = clusters.configured("etcd://a:1", "192.0.2.1:2376", ["ttl=5", "kv.cacertfile=/ca"])
    assert found == ClusterConfig(store="etcd://a:1", advertise="192.0.2.1", ttl=5, ca_file="/ca")
    assert clusters.configured("etcd://a:1", "fd00::1", {"rekey": "60"}) == ClusterConfig(
        store="etcd://a:1", advertise="fd00::1", rekey=60
    )
    with NetlinkSocket() as sock:
        named = {link.index: link.name for link in rt.links(sock)}
        found = [(named[i], a.ip) for i, a in rt.addresses(sock) if a.ip.is_private and not a.ip.is_loopback]
    for name in {name for name, _ in found}:
        try:
            made = clusters.configured("etcd://a:1", name, {})
        except InvalidArgument:
            assert name not in dict(socket.if_nameindex()).values()  # another daemon's, which has gone
            continue
        assert made is not None and (name, ip_address(made.advertise)) in found
    for store, advertise, given, words in (
        (None, "192.0.2.1", None, "need cluster-store"),
        ("etcd://a:1", None, None, "needs cluster-advertise"),
        ("etcd://a:1", "nosuch0", None, "no address and no interface"),
        ("etcd://a:1", "lo", None, "no host's address"),
        ("etcd://a:1", "0.0.0.0", None, "no host's address"),
        ("etcd://a:1", "ff02::1", None, "no host's address"),
        ("etcd://a:1", "fe80::1%lo", None, "not the address of a host by itself"),
        ("etcd://a:1", "::ffff:192.0.2.1", None, "not the address of a host by itself"),
        ("etcd://a:1", "192.0.2.1", ["ttl=1"], "3 to 3600"),
        ("etcd://a:1", "192.0.2.1", ["rekey=9"], "10 to 604800"),
        ("etcd://a:1", "192.0.2.1", ["x=1"], "unknown cluster store option 'x'"),
        ("etcd://a:1", "192.0.2.1", ["x"], "expected KEY=VALUE"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            clusters.configured(store, advertise, given)
