"""Forwards queries for other names to all upstream servers at the same time; the first good answer wins.

Equal queries share one request: a later one waits for the same answer. This also breaks a loop in which an
upstream asks us. A negative answer ("no such name") is cached for as long as its zone allows, at most a
minute.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from wherry.errors import WherryError
from wherry.linux import netns
from wherry.network.dns import message
from wherry.network.dns.loop import Loop
from wherry.network.dns.message import Query

Answer = Callable[[bytes], None]

ASK_AGAIN, GIVE_UP = 1.5, 4.0
"""Seconds; a resolver itself waits 5 (resolv.conf(5), ``timeout``)."""
SERVERS_MAX = 8
PENDING_MAX, PENDING_EACH = 4096, 512
"""The most queries under way: of all containers, of one."""
NEGATIVE_MAX, NEGATIVE_TTL = 4096, 60
_RECEIVE = 65535
_RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True)
class Way:
    """Where a container's queries go. ``path``: the namespace to ask from, None for the host's."""

    owner: str
    servers: tuple[str, ...]
    path: Path | None


@dataclass
class _Pending:
    query: Query
    way: Way
    ident: int
    wire: bytes
    tcp: bool
    waiting: list[tuple[Query, Answer]]
    sockets: list[socket.socket] = field(default_factory=list)
    failed: int = 0
    last: bytes = b""
    buffers: dict[int, bytearray] = field(default_factory=dict)


class Forwarder:
    """Used only on the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pending: dict[tuple[str, bytes, bool], _Pending] = {}
        self._each: dict[str, int] = {}
        self._negative: dict[tuple[tuple[str, ...], str, bytes], tuple[float, bytes]] = {}

    def ask(self, way: Way, query: Query, data: bytes, answer: Answer, *, tcp: bool) -> None:
        """Forward a query; ``answer`` is called once, possibly at once."""
        remembered = self._remembered(way, query)
        if remembered is not None:
            answer(message.addressed(remembered, query))
            return
        key = (way.owner, query.key, tcp)
        under_way = self._pending.get(key)
        if under_way is not None:
            if len(under_way.waiting) < PENDING_EACH:
                under_way.waiting.append((query, answer))
            return
        crowded = len(self._pending) >= PENDING_MAX or self._each.get(way.owner, 0) >= PENDING_EACH
        if not way.servers or crowded:
            answer(message.answer(query, message.SERVFAIL))
            return
        ident = secrets.randbelow(1 << 16)
        pending = _Pending(query, way, ident, message.with_id(data, ident), tcp, [(query, answer)])
        self._pending[key] = pending
        self._each[way.owner] = self._each.get(way.owner, 0) + 1
        self._send(key, pending)

    def _remembered(self, way: Way, query: Query) -> bytes | None:
        key = (way.servers, way.owner if way.path is not None else "", query.key)
        found = self._negative.get(key)
        if found is None:
            return None
        if found[0] <= time.monotonic():
            del self._negative[key]
            return None
        return found[1]

    def _send(self, key: tuple[str, bytes, bool], pending: _Pending) -> None:
        try:
            opened = _open(pending.way, tcp=pending.tcp)
        except (OSError, WherryError):
            opened = []
        pending.sockets = opened
        for sock in opened:
            if pending.tcp:
                self._loop.watch(sock.fileno(), partial(self._connected, key, pending, sock), write=True)
            else:
                self._loop.watch(sock.fileno(), partial(self._received, key, pending, sock))
                self._send_datagram(key, pending, sock)
        if not opened:
            self._finish(key, pending, b"")
            return
        if not pending.tcp:
            self._loop.later(ASK_AGAIN, partial(self._again, key, pending))
        self._loop.later(GIVE_UP, partial(self._give_up, key, pending))

    def _send_datagram(self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket) -> None:
        try:
            sock.send(pending.wire)
        except BlockingIOError:
            pass  # it will be sent again
        except OSError:
            self._failed(key, pending, sock, b"")

    def _again(self, key: tuple[str, bytes, bool], pending: _Pending) -> None:
        if self._pending.get(key) is pending:
            for sock in list(pending.sockets):
                self._send_datagram(key, pending, sock)

    def _give_up(self, key: tuple[str, bytes, bool], pending: _Pending) -> None:
        if self._pending.get(key) is pending:
            self._finish(key, pending, pending.last)

    # -- answers over UDP ------------------------------------------------------------------------------

    def _received(self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket) -> None:
        if self._pending.get(key) is not pending:
            return
        try:
            data = sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:  # nobody listens at that address
            self._failed(key, pending, sock, b"")
            return
        self._judge(key, pending, sock, data)

    def _judge(
        self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket, data: bytes
    ) -> None:
        reply = message.read_reply(data, pending.query, pending.ident)
        if reply is None:
            return  # a late or a forged answer: the real one may still arrive
        if reply.code not in (message.NOERROR, message.NXDOMAIN):
            self._failed(key, pending, sock, data)
            return
        if reply.negative_ttl:
            self._remember(pending, data, reply.negative_ttl)
        self._finish(key, pending, data)

    def _failed(
        self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket, data: bytes
    ) -> None:
        """One of the servers has failed. Only when all have failed, that is the answer."""
        pending.last = data or pending.last
        self._close(pending, sock)
        if not pending.sockets:
            self._finish(key, pending, pending.last)

    def _remember(self, pending: _Pending, data: bytes, ttl: int) -> None:
        way = pending.way
        key = (way.servers, way.owner if way.path is not None else "", pending.query.key)
        while len(self._negative) >= NEGATIVE_MAX:
            del self._negative[next(iter(self._negative))]
        self._negative[key] = (time.monotonic() + min(ttl, NEGATIVE_TTL), data)

    def _finish(self, key: tuple[str, bytes, bool], pending: _Pending, data: bytes) -> None:
        self._pending.pop(key, None)
        left = self._each.get(pending.way.owner, 1) - 1
        if left > 0:
            self._each[pending.way.owner] = left
        else:
            self._each.pop(pending.way.owner, None)
        for sock in list(pending.sockets):
            self._close(pending, sock)
        for query, answer in pending.waiting:
            answer(message.addressed(data, query) if data else message.answer(query, message.SERVFAIL))

    def _close(self, pending: _Pending, sock: socket.socket) -> None:
        if sock in pending.sockets:
            pending.sockets.remove(sock)
            self._loop.forget(sock.fileno())
            sock.close()

    # -- answers over TCP ------------------------------------------------------------------------------

    def _connected(self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(key, pending, sock, b"")
            return
        try:
            sock.send(struct.pack("!H", len(pending.wire)) + pending.wire)
        except OSError:
            self._failed(key, pending, sock, b"")
            return
        pending.buffers[sock.fileno()] = bytearray()
        self._loop.watch(sock.fileno(), partial(self._stream, key, pending, sock))

    def _stream(self, key: tuple[str, bytes, bool], pending: _Pending, sock: socket.socket) -> None:
        buffer = pending.buffers[sock.fileno()]
        try:
            data = sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._failed(key, pending, sock, b"")
            return
        buffer += data
        if len(buffer) >= 2:
            length = int.from_bytes(buffer[:2], "big")
            if len(buffer) >= 2 + length:
                self._judge(key, pending, sock, bytes(buffer[2 : 2 + length]))

    def forget(self, owner: str) -> None:
        """A container is gone."""
        for key, pending in list(self._pending.items()):
            if key[0] == owner:
                pending.waiting.clear()
                self._finish(key, pending, b"")

    def close(self) -> None:
        for key, pending in list(self._pending.items()):
            pending.waiting.clear()
            self._finish(key, pending, b"")


def _open(way: Way, *, tcp: bool) -> list[socket.socket]:
    """Each server and query gets its own connected socket:
    so the port is different each time, and only that server can answer."""
    make = partial(_connect_all, way.servers[:SERVERS_MAX], tcp)
    return make() if way.path is None else netns.inside(way.path, make)


def _connect_all(servers: Sequence[str], tcp: bool) -> list[socket.socket]:
    opened = []
    for server in servers:
        address, _, zone = server.partition("%")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        try:
            scope = socket.if_nametoindex(zone) if zone else 0
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        except OSError:
            continue
        try:
            place = (address, 53, 0, scope) if family == socket.AF_INET6 else (address, 53)
            sock.connect(place)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            continue
        opened.append(sock)
    return opened


class HostServers:
    """The servers in the host's own ``/etc/resolv.conf``, as it is now."""

    def __init__(self, path: Path = _RESOLV_CONF) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def current(self) -> tuple[str, ...]:
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._servers = _servers(self._path.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            self._servers, self._seen = (), None
        return self._servers


def _servers(text: str) -> tuple[str, ...]:
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == "nameserver":
            try:
                ip_address(fields[1].partition("%")[0])
            except ValueError:
                continue
            found.append(fields[1])
    return tuple(found[:SERVERS_MAX])
