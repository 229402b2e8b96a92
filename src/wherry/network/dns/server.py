"""The DNS server for containers on networks that resolve names: 127.0.0.11 inside each of them.

    a name of a container on one of the client's networks    answered from the table
    host.docker.internal                                     the gateway's address
    an address of one of its networks, backwards             the name there, or "no such name"
    everything else                                          forwarded, as configured for the container

If all networks of a container are internal, its queries are not forwarded: otherwise it could send data to
the outside by way of the host.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wherry.errors import Internal, WherryError
from wherry.network.dns import message
from wherry.network.dns.forward import Forwarder, HostServers, Way
from wherry.network.dns.listen import ADDRESS, Listeners, open_inside
from wherry.network.dns.loop import Loop
from wherry.network.dns.message import MalformedQuery, Query
from wherry.network.dns.zone import Zone
from wherry.network.types import Endpoint, Network, Owner, Resolving

_BATCH = 64
"""Queries read from one container before the others get their turn."""
_RECEIVE = 4096
_WINDOW, _MOST = 0.25, 5000
"""Seconds, and the queries that one container may send in that time. Beyond that it must wait, so that the
daemon has time for other work."""
_CONNECTIONS = 64
_IDLE = 10.0
"""Seconds that a connection may be idle."""


@dataclass
class _Client:
    """A container as a client of the server."""

    container_id: str
    path: Path
    resolving: Resolving
    listeners: Listeners
    connections: dict[int, socket.socket] = field(default_factory=dict)
    buffers: dict[int, bytearray] = field(default_factory=dict)
    since: float = 0.0
    asked: int = 0


class DnsServer:
    """:meth:`join`, :meth:`leave`, :meth:`adopt`, :meth:`close` may be called from any thread, but for each
    container only one call at a time."""

    def __init__(
        self,
        networks: Callable[[], Mapping[str, Network]],
        host_gateway: str = "",
        host_servers: HostServers | None = None,
    ) -> None:
        self._networks = networks
        self._zone = Zone(networks, host_gateway)
        self._host_servers = host_servers or HostServers()
        self._clients: dict[str, _Client] = {}
        self._known: set[str] = set()
        """Containers that others can find, and that have no sockets yet."""
        self._loop: Loop | None = None
        self._forwarder: Forwarder | None = None

    # -- from other threads ----------------------------------------------------------------------------

    def start(self) -> None:
        """Idempotent."""
        self._started()

    def join(self, container_id: str, path: Path, owner: Owner, endpoints: Sequence[Endpoint]) -> None:
        """Set the networks that a container is on; they replace the former ones.

        :raises Internal: its sockets cannot be opened.
        """
        named = any(self._has_names(e) for e in endpoints)
        if not named and container_id not in self._clients:
            return
        opened = None
        if named and container_id not in self._clients:
            try:
                opened = open_inside(path)
            except (OSError, WherryError) as e:
                reason = e.message if isinstance(e, WherryError) else e.strerror or str(e)
                raise Internal(
                    f"cannot open the DNS sockets of container {container_id[:12]}: {reason}"
                ) from e
            client = _Client(container_id, path, owner.resolving, opened)
            self._clients[container_id] = client
            self._known.discard(container_id)
        loop = self._started()

        def update() -> None:
            self._zone.put(container_id, endpoints)
            if opened is not None:
                self._serve(self._clients[container_id])

        loop.run_in(update)

    def know(self, container_id: str, endpoints: Sequence[Endpoint]) -> None:
        """Let others find the names of a container that ran before this process; its own sockets are opened
        later, by :meth:`adopt`."""
        if any(self._has_names(e) for e in endpoints):
            self._known.add(container_id)

            def put() -> None:
                self._zone.put(container_id, endpoints)

            self._started().run_in(put)

    def adopt(self, container_id: str, path: Path, owner: Owner, endpoints: Sequence[Endpoint]) -> list[str]:
        """As :meth:`join`, for a container that ran before this process. :returns: failures, as text."""
        try:
            self.join(container_id, path, owner, endpoints)
        except Internal as e:
            return [e.message]
        return []

    def leave(self, container_id: str) -> None:
        """A container is gone. If it never joined, nothing happens."""
        client = self._clients.pop(container_id, None)
        if self._loop is None or (client is None and container_id not in self._known):
            return
        self._known.discard(container_id)

        def forget() -> None:
            self._zone.drop(container_id)
            if self._forwarder is not None:
                self._forwarder.forget(container_id)
            if client is not None:
                self._shut(client)

        self._loop.run_in(forget)

    def remote(self, added: Sequence[Endpoint], removed: Sequence[Endpoint]) -> None:
        """The containers on other hosts have changed."""
        loop = self._started()

        def update() -> None:
            for endpoint in removed:
                self._zone.remove(endpoint)
            for endpoint in added:
                self._zone.add(endpoint)

        loop.run_in(update)

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return

        def stop() -> None:
            for client in self._clients.values():
                self._shut(client)
            self._clients.clear()
            if self._forwarder is not None:
                self._forwarder.close()

        loop.run_in(stop)
        loop.close()

    def _started(self) -> Loop:
        if self._loop is None:
            self._loop = Loop("dns")
            self._forwarder = Forwarder(self._loop)
        return self._loop

    def _has_names(self, endpoint: Endpoint) -> bool:
        network = self._networks().get(endpoint.network_id)
        return network is not None and network.has_names

    # -- on the loop's thread --------------------------------------------------------------------------

    def _serve(self, client: _Client) -> None:
        assert self._loop is not None
        self._loop.watch(client.listeners.udp.fileno(), partial(self._datagrams, client))
        self._loop.watch(client.listeners.tcp.fileno(), partial(self._accept, client))

    def _shut(self, client: _Client) -> None:
        for sock in list(client.connections.values()):
            self._hang_up(client, sock)
        if self._loop is not None:
            self._loop.forget(client.listeners.udp.fileno())
            self._loop.forget(client.listeners.tcp.fileno())
        client.listeners.close()

    def _datagrams(self, client: _Client) -> None:
        udp = client.listeners.udp
        now = time.monotonic()
        if now - client.since >= _WINDOW:
            client.since, client.asked = now, 0
        for _ in range(_BATCH):
            if client.asked >= _MOST:
                self._pause(client, client.since + _WINDOW - now)
                return
            try:
                data, asker = udp.recvfrom(_RECEIVE)
            except OSError:
                return
            client.asked += 1
            self._one_datagram(client, udp, data, asker)

    def _pause(self, client: _Client, seconds: float) -> None:
        """Stop reading a container's queries for a moment;
        those that overflow its socket's buffer are lost."""
        loop, udp = self._loop, client.listeners.udp
        if loop is None:
            return
        loop.forget(udp.fileno())

        def go_on() -> None:
            if self._clients.get(client.container_id) is client and udp.fileno() >= 0:
                loop.watch(udp.fileno(), partial(self._datagrams, client))

        loop.later(max(0.0, seconds), go_on)

    def _one_datagram(self, client: _Client, udp: socket.socket, data: bytes, asker: tuple[str, int]) -> None:
        try:
            query = message.parse(data)
        except MalformedQuery:
            reply = message.malformed(data)
            if reply is not None:
                _send(udp, reply, asker)
            return
        own = self._own_answer(client, query)
        if own is not None:
            _send(udp, message.fitting(query, own), asker)
            return
        self._pass_on(client, query, data, lambda r: _send(udp, message.fitting(query, r), asker), tcp=False)

    def _own_answer(self, client: _Client, query: Query) -> bytes | None:
        """None for a query that must be forwarded."""
        if query.klass != message.IN:
            return message.answer(query, message.REFUSED)
        if query.kind == message.PTR:
            return self._backwards(client, query)
        family = {message.A: 4, message.AAAA: 6}.get(query.kind, 0)
        found = self._zone.addresses(client.container_id, query.name, family or 4)
        if found is None:
            return None
        if query.kind == message.ANY:
            found += self._zone.addresses(client.container_id, query.name, 6) or []
        elif not family:
            found = []
        return message.answer(query, message.NOERROR, [message.address_record(ip) for ip in found])

    def _backwards(self, client: _Client, query: Query) -> bytes | None:
        address = message.reversed_address(query.name)
        name = self._zone.name(client.container_id, address) if address else None
        if name is None:
            return None
        if not name:
            return message.answer(query, message.NXDOMAIN)
        return message.answer(query, message.NOERROR, [message.name_record(name)])

    def _pass_on(
        self, client: _Client, query: Query, data: bytes, reply: Callable[[bytes], None], *, tcp: bool
    ) -> None:
        assert self._forwarder is not None
        self._forwarder.ask(self._way(client), query, data, reply, tcp=tcp)

    def _way(self, client: _Client) -> Way:
        resolving = client.resolving
        if resolving.inside:
            others = tuple(s for s in resolving.servers if s != ADDRESS)
            return Way(client.container_id, others, client.path)
        view = self._zone.view(client.container_id)
        if view is None or not view.has_way_out:
            return Way(client.container_id, (), None)
        return Way(client.container_id, resolving.servers or self._host_servers.current(), None)

    # -- over TCP --------------------------------------------------------------------------------------

    def _accept(self, client: _Client) -> None:
        assert self._loop is not None
        try:
            sock, _ = client.listeners.tcp.accept()
        except OSError:
            return
        if len(client.connections) >= _CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        fd = sock.fileno()
        client.connections[fd] = sock
        client.buffers[fd] = bytearray()
        self._loop.watch(fd, partial(self._stream, client, sock))
        self._loop.later(_IDLE, partial(self._hang_up, client, sock))

    def _hang_up(self, client: _Client, sock: socket.socket) -> None:
        fd = sock.fileno()
        if client.connections.get(fd) is sock:
            del client.connections[fd], client.buffers[fd]
            if self._loop is not None:
                self._loop.forget(fd)
            sock.close()

    def _stream(self, client: _Client, sock: socket.socket) -> None:
        try:
            data = sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        buffer = client.buffers.get(sock.fileno())
        if not data or buffer is None:
            self._hang_up(client, sock)
            return
        buffer += data
        while len(buffer) >= 2 and len(buffer) >= 2 + (length := int.from_bytes(buffer[:2], "big")):
            asked = bytes(buffer[2 : 2 + length])
            del buffer[: 2 + length]
            self._one_of_stream(client, sock, asked)

    def _one_of_stream(self, client: _Client, sock: socket.socket, data: bytes) -> None:
        reply = partial(self._write, client, sock)
        try:
            query = message.parse(data)
        except MalformedQuery:
            answer = message.malformed(data)
            if answer is None:
                self._hang_up(client, sock)
            else:
                reply(answer)
            return
        own = self._own_answer(client, query)
        if own is not None:
            reply(own)
        else:
            self._pass_on(client, query, data, reply, tcp=True)

    def _write(self, client: _Client, sock: socket.socket, reply: bytes) -> None:
        """Close the connection of a client that does not read its answers."""
        if client.connections.get(sock.fileno()) is not sock:
            return
        whole = struct.pack("!H", len(reply)) + reply
        try:
            sent = sock.send(whole)
        except OSError:
            sent = -1
        if sent != len(whole):
            self._hang_up(client, sock)


def _send(udp: socket.socket, reply: bytes, asker: tuple[str, int]) -> None:
    try:
        udp.sendto(reply, asker)
    except OSError:
        pass  # it is gone, or accepts no more; it will ask again
