"""DNS: messages, names, and the server against askers and upstreams that are sockets of this process."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import patiently

from wherry.network.dns import forward, message
from wherry.network.dns import server as dns_server
from wherry.network.dns.forward import HostServers
from wherry.network.dns.listen import Listeners
from wherry.network.dns.message import MalformedQuery
from wherry.network.dns.server import DnsServer
from wherry.network.dns.zone import Zone
from wherry.network.types import Endpoint, Network, Owner, Resolving, Subnet

FRONT = Network(id="f" * 64, name="front", driver="bridge", created=1, subnets=(Subnet(cidr="10.1.0.0/24"),))
BACK = Network(id="b" * 64, name="back", driver="bridge", created=1, subnets=(Subnet(cidr="10.2.0.0/24"),))
NETWORKS = {n.id: n for n in (FRONT, BACK)}


def question(name: str, kind: int = message.A, *, ident: int = 7, edns: int = 0) -> bytes:
    labels = b"".join(bytes((len(p),)) + p.encode() for p in name.split(".")) + b"\0"
    head = message.HEADER.pack(ident, 0x0100, 1, 0, 0, int(bool(edns)))
    tail = b"\0" + struct.pack("!HHIH", message.OPT, edns, 0, 0) if edns else b""
    return head + labels + struct.pack("!HH", kind, message.IN) + tail


def code_of(reply: bytes) -> int:
    return reply[3] & 0x0F


def addresses_of(reply: bytes, name: str) -> list[str]:
    count = struct.unpack_from("!H", reply, 6)[0]
    offset, found = 12 + len(name) + 2 + 4, []
    for _ in range(count):
        kind, _klass, _ttl, length = struct.unpack_from("!HHIH", reply, offset + 2)
        data = reply[offset + 12 : offset + 12 + length]
        found.append(socket.inet_ntop(socket.AF_INET if kind == message.A else socket.AF_INET6, data))
        offset += 12 + length
    return found


def place(network: Network, number: int, *names: str, gateway: bool = True, **more: object) -> Endpoint:
    third = {"front": 1, "back": 2}[network.name]
    return Endpoint(
        id=f"{network.name}{number}",
        network_id=network.id,
        network_name=network.name,
        container_id=f"{number:064x}",
        ip=f"10.{third}.0.{number}",
        gateway=f"10.{third}.0.1" if gateway else "",
        dns_names=names,
        **more,  # type: ignore[arg-type]
    )


# ---- messages ------------------------------------------------------------------------------------------


def test_a_question_is_read() -> None:
    query = message.parse(question("Web.Front", edns=4096))
    assert (query.name, query.kind, query.edns, query.limit) == ("web.front", message.A, True, 4096)
    assert message.parse(question("a")).limit == 512
    assert message.parse(question("WEB")).key == message.parse(question("web")).key


@given(st.binary(max_size=300))
def test_noise_is_refused_or_read(data: bytes) -> None:
    try:
        query = message.parse(data)
    except MalformedQuery:
        said = message.malformed(data)
        assert said is None or len(said) == message.HEADER.size
    else:
        assert len(query.name) <= 255
        message.read_reply(data, query, query.id)


@given(st.binary(max_size=200))
def test_noise_behind_a_header_of_an_answer(data: bytes) -> None:
    query = message.parse(question("a"))
    head = message.HEADER.pack(7, 0x8180, 1, 0, 9, 0) + query.question
    found = message.read_reply(head + data, query, 7)
    assert found is not None and found.negative_ttl >= 0


def test_an_answer_too_long_says_so() -> None:
    query = message.parse(question("a"))
    long = message.answer(query, 0, [message.address_record(f"10.0.0.{n}") for n in range(100)])
    short = message.fitting(query, long)
    assert len(short) <= 512 and short[2] & 0x02


def test_only_the_true_answer_is_taken() -> None:
    query = message.parse(question("a"))
    good = message.answer(query, 0)
    assert message.read_reply(good, query, 7) is not None
    assert message.read_reply(good, query, 8) is None
    assert message.read_reply(question("a"), query, 7) is None
    assert message.read_reply(message.answer(message.parse(question("b")), 0), query, 7) is None


# ---- names ---------------------------------------------------------------------------------------------


@pytest.fixture
def zone() -> Zone:
    zone = Zone(lambda: NETWORKS)
    zone.put("web", [place(FRONT, 2, "web", "www"), place(BACK, 2, "web")])
    zone.put(
        "db",
        [
            place(BACK, 3, "db", "store"),
        ],
    )
    zone.put("db2", [place(BACK, 4, "db2", "store")])
    zone.put("only", [place(FRONT, 5, "only", gateway=False)])
    return zone


def test_a_name_is_known_on_its_networks_only(zone: Zone) -> None:
    assert zone.addresses("web", "db", 4) == ["10.2.0.3"]
    assert zone.addresses("web", "db.back", 4) == ["10.2.0.3"]
    assert zone.addresses("only", "db", 4) is None
    assert zone.addresses("db", "www", 4) is None
    assert zone.addresses("stranger", "db", 4) is None
    assert zone.addresses("web", "db", 6) == []


def test_several_take_turns(zone: Zone) -> None:
    found = [tuple(zone.addresses("web", "store", 4) or ()) for _ in range(4)]
    assert {first for first, _ in found} == {"10.2.0.3", "10.2.0.4"}
    assert all(set(f) == {"10.2.0.3", "10.2.0.4"} for f in found)


def test_links_are_the_askers_own(zone: Zone) -> None:
    zone.put("linked", [place(BACK, 6, "linked", links={"Postgres": "db"})])
    assert zone.addresses("linked", "postgres", 4) == ["10.2.0.3"]
    assert zone.addresses("web", "postgres", 4) is None


def test_addresses_have_names(zone: Zone) -> None:
    assert zone.name("web", "10.2.0.3") == "db.back"
    assert zone.name("only", "10.2.0.3") is None
    assert zone.name("only", "10.1.0.77") == "", "an address of its own network is nobody else's business"
    assert zone.name("only", "192.0.2.1") is None


def test_the_host_has_a_name(zone: Zone) -> None:
    assert zone.addresses("db", "host.docker.internal", 4) == ["10.2.0.1"]
    assert zone.addresses("only", "host.docker.internal", 4) is None
    assert Zone(lambda: NETWORKS, "192.0.2.7").addresses("x", "host.docker.internal", 4) is None


def test_who_is_gone_has_no_name(zone: Zone) -> None:
    zone.drop("db")
    assert zone.addresses("web", "db", 4) is None
    assert zone.addresses("web", "store", 4) == ["10.2.0.4"]
    zone.put("web", [place(FRONT, 2, "renamed")])
    assert zone.addresses("only", "web", 4) is None
    assert zone.addresses("only", "renamed", 4) == ["10.1.0.2"]


# ---- the server ----------------------------------------------------------------------------------------

Respond = Callable[[bytes], bytes | None]


class Upstream:
    """Answers what it is asked as the test says, over UDP and TCP, and counts."""

    def __init__(self, respond: Respond) -> None:
        self.respond, self.asked = respond, 0
        self.udp, self.tcp = _same_port()
        self.place = self.udp.getsockname()
        self._threads = [threading.Thread(target=work) for work in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def _datagrams(self) -> None:
        while True:
            try:
                data, asker = self.udp.recvfrom(4096)
                if not data:  # the test is over
                    return
                self.asked += 1
                reply = self.respond(data)
                if reply is not None:
                    self.udp.sendto(reply, asker)
            except OSError:
                continue  # the asker is gone

    def _streams(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(4096)
                reply = self.respond(data[2:]) or b""
                connection.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.place)
        for thread in self._threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


def _same_port() -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP. A port that is free for one may be taken for the other."""
    with contextlib.ExitStack() as taken:
        while True:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 0))
            try:
                return udp, socket.create_server(udp.getsockname())
            except OSError as e:
                taken.callback(udp.close)
                if e.errno != errno.EADDRINUSE:
                    raise


class Box:
    """A container's end of the server."""

    def __init__(self, listeners: Listeners) -> None:
        self.udp_place, self.tcp_place = listeners.udp.getsockname(), listeners.tcp.getsockname()

    def ask(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patiently(10))
            sock.sendto(data, self.udp_place)
            return sock.recv(65535)

    def ask_tcp(self, *many: bytes) -> list[bytes]:
        with socket.create_connection(self.tcp_place, patiently(10)) as sock, sock.makefile("rb") as stream:
            sock.sendall(b"".join(struct.pack("!H", len(data)) + data for data in many))
            return [stream.read(int.from_bytes(stream.read(2), "big")) for _ in many]


class Lab:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.server = DnsServer(lambda: NETWORKS, host_servers=HostServers(Path("/nonexistent")))
        self.upstreams: list[Upstream] = []
        self.listeners: list[Listeners] = []
        monkeypatch.setattr(dns_server, "open_inside", self._open)
        monkeypatch.setattr(forward, "_connect_all", self._connect)
        monkeypatch.setattr(forward, "ASK_AGAIN", 0.2)
        monkeypatch.setattr(forward, "GIVE_UP", 0.6)

    def _open(self, _path: Path) -> Listeners:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.bind(("127.0.0.1", 0))
        tcp = socket.create_server(("127.0.0.1", 0))
        tcp.setblocking(False)
        self.listeners.append(Listeners(udp, tcp))
        return self.listeners[-1]

    def _connect(self, servers: tuple[str, ...], tcp: bool) -> list[socket.socket]:
        opened = []
        for name in servers:
            kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
            sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
            sock.connect_ex(self.upstreams[int(name)].place)
            opened.append(sock)
        return opened

    def upstream(self, respond: Respond) -> Upstream:
        self.upstreams.append(Upstream(respond))
        return self.upstreams[-1]

    def join(self, container_id: str, *endpoints: Endpoint, asking: tuple[str, ...] = ("0",)) -> Box:
        owner = Owner(resolving=Resolving(servers=asking))
        self.server.join(container_id, Path("/nonexistent"), owner, endpoints)
        return Box(self.listeners[-1])


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    lab = Lab(monkeypatch)
    yield lab
    lab.server.close()
    for upstream in lab.upstreams:
        upstream.close()


def ok(data: bytes) -> bytes:
    query = message.parse(data)
    return message.answer(query, message.NOERROR, [message.address_record("192.0.2.80")])


def no_such_name(data: bytes) -> bytes:
    query = message.parse(data)
    soa = b"\0" + struct.pack("!HHIH", message.SOA, 1, 300, 22) + b"\0\0" + struct.pack("!5I", 1, 2, 3, 4, 60)
    return message.HEADER.pack(query.id, 0x8183, 1, 0, 1, 0) + query.question + soa


def test_own_names_are_answered_and_others_passed_on(lab: Lab) -> None:
    upstream = lab.upstream(ok)
    box = lab.join("web", place(FRONT, 2, "web"))
    assert addresses_of(box.ask(question("web")), "web") == ["10.1.0.2"]
    assert upstream.asked == 0
    reply = box.ask(question("example.org", ident=99))
    assert (reply[:2], addresses_of(reply, "example.org")) == (b"\0\x63", ["192.0.2.80"])
    assert code_of(box.ask(question("2.0.1.10.in-addr.arpa", message.PTR))) == 0
    assert code_of(box.ask(question("9.0.1.10.in-addr.arpa", message.PTR))) == message.NXDOMAIN
    assert code_of(box.ask(b"\0\x07\x08\0" + bytes(8))) == message.NOTIMP
    assert [addresses_of(r, "web") for r in box.ask_tcp(*[question("web")] * 2)] == [["10.1.0.2"]] * 2
    assert code_of(box.ask_tcp(question("example.org"))[0]) == 0


def test_the_first_good_answer_wins(lab: Lab) -> None:
    lab.upstream(lambda data: None)
    lab.upstream(lambda data: message.answer(message.parse(data), message.SERVFAIL))
    lab.upstream(ok)
    box = lab.join("web", place(FRONT, 2, "web"), asking=("0", "1", "2"))
    assert addresses_of(box.ask(question("example.org")), "example.org") == ["192.0.2.80"]


def test_when_nobody_answers_that_is_said(lab: Lab) -> None:
    silent = lab.upstream(lambda data: None)
    box = lab.join("web", place(FRONT, 2, "web"))
    assert code_of(box.ask(question("example.org"))) == message.SERVFAIL
    assert silent.asked == 2, "it is asked once more before it is given up"


def test_that_there_is_nothing_is_remembered(lab: Lab) -> None:
    upstream = lab.upstream(no_such_name)
    box = lab.join("web", place(FRONT, 2, "web"))
    for ident in (1, 2, 3):
        reply = box.ask(question("nothing.example", ident=ident))
        assert (reply[1], code_of(reply)) == (ident, message.NXDOMAIN)
    assert upstream.asked == 1
    shouted = box.ask(question("NOTHING.example"))
    assert shouted[12:].startswith(b"\x07NOTHING"), "as it was asked"


def test_a_loop_ends(lab: Lab) -> None:
    box: list[Box] = []

    def back(data: bytes) -> bytes | None:
        threading.Thread(target=lambda: box[0].ask(data), daemon=True).start()
        return None

    upstream = lab.upstream(back)
    box.append(lab.join("web", place(FRONT, 2, "web")))
    assert code_of(box[0].ask(question("example.org"))) == message.SERVFAIL
    assert upstream.asked == 2


def test_long_answers_come_over_tcp(lab: Lab) -> None:
    def long(data: bytes) -> bytes:
        records = [message.address_record(f"192.0.2.{n}") for n in range(200)]
        return message.answer(message.parse(data), 0, records)

    lab.upstream(long)
    box = lab.join("web", place(FRONT, 2, "web"))
    assert box.ask(question("example.org"))[2] & 0x02
    assert len(addresses_of(box.ask_tcp(question("example.org"))[0], "example.org")) == 200


def test_internal_networks_do_not_ask_the_world(lab: Lab) -> None:
    upstream = lab.upstream(ok)
    box = lab.join("web", place(FRONT, 2, "web", gateway=False))
    assert code_of(box.ask(question("example.org"))) == message.SERVFAIL
    assert addresses_of(box.ask(question("web")), "web") == ["10.1.0.2"]
    assert upstream.asked == 0


def test_who_asks_too_much_waits_and_others_do_not(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "_MOST", 3)
    monkeypatch.setattr(dns_server, "_WINDOW", 0.3)
    loud, quiet = lab.join("loud", place(FRONT, 2, "loud")), lab.join("quiet", place(FRONT, 3, "quiet"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patiently(10))
        for ident in range(8):
            sock.sendto(question("quiet", ident=ident), loud.udp_place)
        assert addresses_of(quiet.ask(question("loud")), "loud") == ["10.1.0.2"]
        assert [sock.recv(512)[1] for _ in range(8)] == list(range(8)), "all of it in the end"
    lab.server.leave("loud")


def test_who_left_is_not_answered_and_may_come_back(lab: Lab) -> None:
    first = lab.join("web", place(FRONT, 2, "web"))
    lab.server.leave("web")
    lab.server.leave("web")
    with pytest.raises(OSError):
        socket.create_connection(first.tcp_place, 1)
    again = lab.join("web", place(FRONT, 3, "web"))
    assert addresses_of(again.ask(question("web")), "web") == ["10.1.0.3"]


def test_the_hosts_servers_are_read_again_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nothing\nnameserver 192.0.2.1\nnameserver x\nnameserver fe80::1%eth0\n")
    servers = HostServers(path)
    assert servers.current() == ("192.0.2.1", "fe80::1%eth0")
    other = tmp_path / "new"
    other.write_text("nameserver 192.0.2.2\n")
    other.replace(path)
    assert servers.current() == ("192.0.2.2",)
    path.unlink()
    assert servers.current() == ()
