"""What connects to ::1 is carried whole, in both directions, to its end."""

from __future__ import annotations

import hashlib
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from patience import patiently, until

from wherry.network import relay as module
from wherry.network.relay import Relay

DATA = random.Random(1).randbytes(5 << 20)


class Lab:
    """A relay with one listener, which leads to one server."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.target: tuple[str, int] | None = self.server.getsockname()
        self.asked: list[int] = []
        self.relay = Relay(self._lead, asked_for=lambda _: 8080)
        self.place = ("::1", self.relay.listen())
        self.open: list[socket.socket] = []

    def _lead(self, port: int) -> tuple[str, int] | None:
        self.asked.append(port)
        return self.target

    def client(self) -> socket.socket:
        return self.kept(socket.create_connection(self.place, timeout=patiently(10)))

    def kept(self, made: socket.socket) -> socket.socket:
        """Closed with the lab."""
        made.settimeout(patiently(10))
        self.open.append(made)
        return made

    def pair(self) -> tuple[socket.socket, socket.socket]:
        client = self.client()
        return client, self.kept(self.server.accept()[0])

    def close(self) -> None:
        self.relay.close()
        for sock in (*self.open, self.server):
            sock.close()


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


def everything(sock: socket.socket) -> bytes:
    got = bytearray()
    while part := sock.recv(1 << 16):
        got += part
    return bytes(got)


def at_once(*functions: Callable[[], object]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_both_directions_at_once(lab: Lab) -> None:
    client, served = lab.pair()
    got: dict[str, bytes] = {}

    def say(sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    def hear(name: str, sock: socket.socket) -> None:
        got[name] = everything(sock)

    at_once(
        lambda: say(client, DATA),
        lambda: say(served, DATA[::-1]),
        lambda: hear("client", client),
        lambda: hear("served", served),
    )
    assert got == {"client": DATA[::-1], "served": DATA}
    assert lab.asked == [8080]
    until_none(lab)


def until_none(lab: Lab) -> None:
    until(lambda: not lab.relay._legs, "every connection to be gone")


def test_one_side_ends_and_still_hears(lab: Lab) -> None:
    client, served = lab.pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert everything(served) == b"question"
    served.sendall(b"answer")
    served.close()
    assert everything(client) == b"answer"
    until_none(lab)


def test_who_does_not_read_is_waited_for(lab: Lab) -> None:
    client, served = lab.pair()
    sent = 0
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while sent < 1 << 30:
            sent += client.send(DATA[: 1 << 16])
    held = max(len(leg.pending) for leg in lab.relay._legs.values())
    assert held < 2 * module._BUFFER, "what is under way has a bound"
    cpu = time.thread_time(), time.process_time()
    time.sleep(0.3)  # it must not work meanwhile
    assert time.process_time() - cpu[1] - (time.thread_time() - cpu[0]) < 0.1, "and costs nothing"
    client.shutdown(socket.SHUT_WR)
    digest, size = hashlib.sha256(), 0
    while part := served.recv(1 << 16):
        digest.update(part)
        size += len(part)
    assert size == sent
    served.close()
    until_none(lab)


def test_a_side_that_is_gone_takes_the_other_along(lab: Lab) -> None:
    client, served = lab.pair()
    module._reset(client)
    with pytest.raises(ConnectionResetError):
        everything(served)
    until_none(lab)
    client, served = lab.pair()
    served.sendall(b"last words")
    assert client.recv(100) == b"last words"
    module._reset(served)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until_none(lab)


def test_who_closes_while_the_other_speaks(lab: Lab) -> None:
    client, served = lab.pair()
    client.close()
    with pytest.raises(OSError):
        for _ in range(1000):
            served.sendall(DATA[: 1 << 16])
    until_none(lab)


def test_nobody_there(lab: Lab) -> None:
    lab.server.close()
    with pytest.raises(ConnectionResetError):
        lab.client().recv(1)
    lab.target = None
    with pytest.raises(ConnectionResetError):
        lab.client().recv(1)
    lab.target = ("256.0.0.1", 1)
    with pytest.raises(OSError):
        lab.client().recv(1)
    until_none(lab)


def test_who_comes_by_itself_is_led_nowhere() -> None:
    asked = []
    relay = Relay(asked.append)
    port = relay.listen()
    assert relay.listen() == relay.port == port
    with pytest.raises(ConnectionResetError), socket.create_connection(("::1", port)) as sock:
        sock.recv(1)
    assert asked[0] in (0, port), "its own port, or none where nothing is tracked"
    relay.close()


def test_many_at_once_and_too_many(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 50)
    pairs = [lab.pair() for _ in range(50)]
    with pytest.raises(ConnectionResetError):
        lab.client().recv(1)
    for number, (client, served) in enumerate(pairs):
        client.sendall(bytes([number]))
        assert served.recv(1) == bytes([number])
    pairs[0][0].close()
    assert pairs[0][1].recv(1) == b""
    pairs[0][1].close()
    until(lambda: len(lab.relay._legs) < 100, "the end of one to be noticed")
    client, served = lab.pair()
    client.sendall(b"x")
    assert served.recv(1) == b"x"


def test_no_descriptors_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, accept = threading.Event(), lab.relay._accept

    def noted(listener: socket.socket) -> None:
        accept(listener)
        tried.set()

    monkeypatch.setattr(lab.relay, "_accept", noted)
    lab.pair()
    tried.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bound = patiently(10)  # this opens a file
    client = lab.kept(socket.socket(socket.AF_INET6))
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
    try:
        client.connect(lab.place)
        assert tried.wait(bound), "the relay tries to accept, and cannot"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.sendall(b"later")
    served = lab.kept(lab.server.accept()[0])
    assert served.recv(9) == b"later"


def test_closing_ends_all() -> None:
    lab = Lab()
    client, served = lab.pair()
    lab.relay.close()
    assert client.recv(1) == b"" and served.recv(1) == b""
    for sock in (client, served, lab.server):
        sock.close()
    assert not [t for t in threading.enumerate() if t.name == "loopback"]
