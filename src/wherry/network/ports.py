"""Host ports: what is asked for, which ones are free, and keeping them.

No process listens for a published port, as nftables leads its packets away before any socket is looked up.
So that no host program takes the port meanwhile (and would never hear a thing), the daemon holds a socket on
it. A filter on that socket drops whatever reaches it: if the table is away for a moment, clients retry
instead of talking to nobody.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from wherry.errors import Internal, InvalidArgument, NotImplemented_
from wherry.linux import sysctl
from wherry.linux.packetfilter import drop_everything
from wherry.network.types import PROTOCOLS, PortMapping, PublishedPort

ANY = "0.0.0.0"

_NO_SCTP = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def check_mapping(mapping: PortMapping) -> None:
    """:raises InvalidArgument: a port, range, protocol or address that is none.
    :raises NotImplemented_: an IPv6 address.
    """
    low = mapping.host_port if mapping.host_port is not None else 1
    high = mapping.host_port_end if mapping.host_port_end is not None else low
    numbers = (mapping.container_port, low, high)
    if not all(0 < n < 65536 for n in numbers) or high < low or mapping.proto not in PROTOCOLS:
        raise InvalidArgument(
            f"invalid port specification: {low}-{high}:{mapping.container_port}/{mapping.proto}"
        )
    if not mapping.host_ip:
        return
    try:
        address = ip_address(mapping.host_ip)
    except ValueError as e:
        raise InvalidArgument(f"invalid IP address {mapping.host_ip[:64]!r}") from e
    if address.version == 6:
        raise NotImplemented_(f"publishing on IPv6 address {address} is not implemented yet")


@dataclass(frozen=True)
class _Held:
    port: PublishedPort
    socket: socket.socket | None


class HostPorts:
    """The ports this daemon holds, by container. Safe to use from any thread of the host's namespace."""

    def __init__(self, default_ip: str = ANY) -> None:
        self._default_ip = default_ip
        self._lock = threading.Lock()
        self._by_port: dict[tuple[str, int], dict[str, str]] = {}
        self._by_container: dict[str, list[_Held]] = {}
        self._next: dict[str, int] = {}

    def reserve(self, container_id: str, mappings: Sequence[PortMapping]) -> tuple[PublishedPort, ...]:
        """Choose and hold a host port for every mapping, besides what the container has; all or none.

        :returns: the ports of these mappings.
        :raises Internal: a port is taken or cannot be bound, in Docker's words.
        :raises InvalidArgument, NotImplemented_: as :func:`check_mapping`.
        """
        for mapping in mappings:
            check_mapping(mapping)
        with self._lock:
            before = len(self._by_container.get(container_id, ()))
            try:
                for mapping in mappings:
                    self._reserve_one(container_id, mapping)
            except BaseException:
                self._release(container_id, self._by_container.get(container_id, [])[before:])
                raise
            return tuple(h.port for h in self._by_container.get(container_id, ())[before:])

    def adopt(self, container_id: str, ports: Sequence[PublishedPort]) -> list[str]:
        """Hold ports again that were published before a restart. They are kept even where a host program has
        taken one meanwhile, as the packets still go to the container.

        :returns: a line for every port that could not be bound.
        """
        lines = []
        with self._lock:
            mine = {held.port for held in self._by_container.get(container_id, ())}
            for port in ports:
                if port in mine:
                    continue
                held = None
                try:
                    held = _bind(port.proto, port.host_ip, port.host_port)
                except OSError as e:
                    reason = (e.strerror or str(e)).lower()
                    lines.append(f"port {port.host_ip}:{port.host_port}/{port.proto} is not held: {reason}")
                self._keep(container_id, _Held(port, held))
        return lines

    def release(self, container_id: str, ports: Sequence[PublishedPort] | None = None) -> None:
        """Let go of a container's ports, or of these; that it has none is fine."""
        with self._lock:
            held = self._by_container.get(container_id, [])
            self._release(container_id, [h for h in held if ports is None or h.port in ports])

    def close(self) -> None:
        with self._lock:
            for container_id in list(self._by_container):
                self._release(container_id, list(self._by_container[container_id]))

    def _release(self, container_id: str, which: Sequence[_Held]) -> None:
        going = {id(held) for held in which}
        kept = [held for held in self._by_container.pop(container_id, ()) if id(held) not in going]
        if kept:
            self._by_container[container_id] = kept
        for held in which:
            key = (held.port.proto, held.port.host_port)
            holders = self._by_port[key]
            holders.pop(held.port.host_ip, None)
            if not holders:
                del self._by_port[key]
            if held.socket is not None:
                held.socket.close()

    def _keep(self, container_id: str, held: _Held) -> None:
        port = held.port
        self._by_port.setdefault((port.proto, port.host_port), {})[port.host_ip] = container_id
        self._by_container.setdefault(container_id, []).append(held)

    def _reserve_one(self, container_id: str, mapping: PortMapping) -> None:
        ip = mapping.host_ip or self._default_ip
        exact = mapping.host_port is not None and mapping.host_port_end is None
        for number in self._candidates(mapping):
            if self._taken(mapping.proto, ip, number):
                if exact:
                    raise Internal(f"Bind for {ip}:{number} failed: port is already allocated")
                continue
            try:
                held = _bind(mapping.proto, ip, number)
            except OSError as e:
                if e.errno == errno.EADDRINUSE and not exact:
                    continue
                reason = (e.strerror or str(e)).lower()
                raise Internal(f"failed to bind host port for {ip}:{number}: {reason}") from e
            port = PublishedPort(
                container_port=mapping.container_port, proto=mapping.proto, host_ip=ip, host_port=number
            )
            self._keep(container_id, _Held(port, held))
            return
        where = f"{mapping.host_port}-{mapping.host_port_end}" if mapping.host_port else "any"
        raise Internal(f"Bind for {ip}:{where} failed: all ports are allocated")

    def _taken(self, proto: str, ip: str, number: int) -> bool:
        holders = self._by_port.get((proto, number), {})
        return bool(holders) and (ip == ANY or ip in holders or ANY in holders)

    def _candidates(self, mapping: PortMapping) -> Iterator[int]:
        if mapping.host_port is not None:
            yield from range(mapping.host_port, (mapping.host_port_end or mapping.host_port) + 1)
            return
        low, high = ephemeral_range()
        start = self._next.get(mapping.proto, low)
        for step in range(high - low + 1):
            number = low + (start - low + step) % (high - low + 1)
            self._next[mapping.proto] = number + 1
            yield number


def ephemeral_range() -> tuple[int, int]:
    """The host's range for ports nobody chose (ip(7), ``ip_local_port_range``), both ends included."""
    try:
        low, high = sysctl.read("net", "ipv4", "ip_local_port_range").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 49153, 65535


def _bind(proto: str, ip: str, number: int) -> socket.socket | None:
    """Hold a port. None for sctp where the kernel has no such sockets, so that no host program can either.

    :raises OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES …
    """
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
    try:
        held = socket.socket(socket.AF_INET, kind, socket.IPPROTO_SCTP if proto == "sctp" else 0)
    except OSError as e:
        if proto == "sctp" and e.errno in _NO_SCTP:
            return None
        raise
    try:
        drop_everything(held)
        if proto != "udp":
            # a connection of an earlier server that still lingers is no reason to refuse; a listener is
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((ip, number))
        if proto != "udp":
            # only a listener keeps out programs that set SO_REUSEADDR, as most servers do
            held.listen(0)
    except BaseException:
        held.close()
        raise
    return held
