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
from ipaddress import ip_address, ip_network

from wherry.errors import Internal, InvalidArgument
from wherry.linux import portholders, sysctl
from wherry.linux.packetfilter import drop_all_but_loopback6, drop_everything
from wherry.network.relay import LOOPBACK6, Relay
from wherry.network.ruleset import ANY4, ANY6
from wherry.network.types import PROTOCOLS, PortMapping, PublishedPort

_ANYWHERE = (ANY4, ANY6)
_NO_SCTP = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def check_mapping(mapping: PortMapping) -> None:
    """:raises InvalidArgument: a port, range, protocol, address or subnet that is none."""
    low = mapping.host_port if mapping.host_port is not None else 1
    high = mapping.host_port_end if mapping.host_port_end is not None else low
    numbers = (mapping.container_port, low, high)
    if not all(0 < n < 65536 for n in numbers) or high < low or mapping.proto not in PROTOCOLS:
        raise InvalidArgument(
            f"invalid port specification: {low}-{high}:{mapping.container_port}/{mapping.proto}"
        )
    for source in mapping.sources:
        try:
            ip_network(source)
        except ValueError as e:
            raise InvalidArgument(f"invalid subnet {source[:64]!r} to publish a port to: {e}") from e
    if not mapping.host_ip:
        return
    try:
        address = ip_address(mapping.host_ip)
    except ValueError as e:
        raise InvalidArgument(f"invalid IP address {mapping.host_ip[:64]!r}") from e
    if str(address) != mapping.host_ip or "%" in mapping.host_ip:
        raise InvalidArgument(f"invalid IP address {mapping.host_ip[:64]!r}: it should be {address}")


@dataclass(frozen=True)
class Target:
    """Where a container's published ports lead: its address of each family, ``""`` for none.

    ``binding`` is where ports are published that name no address. A ``routed`` family has no host ports:
    the container's own are opened.
    """

    ip4: str = ""
    ip6: str = ""
    binding: str = ANY4
    routed4: bool = False
    routed6: bool = False

    def ip(self, family: int) -> str:
        return self.ip6 if family == 6 else self.ip4

    def routed(self, family: int) -> bool:
        return self.routed6 if family == 6 else self.routed4

    def to(self, place: str) -> str:
        """The container's address that a port of one of the host's addresses leads to."""
        if place == LOOPBACK6:
            return self.ip6 or self.ip4  # carried, not translated
        return self.ip(ip_address(place).version)

    def places(self, mapping: PortMapping) -> list[str]:
        """The host's addresses to publish on.

        :raises InvalidArgument: of a family of which the container has no address.
        """
        if mapping.host_ip:
            places = [mapping.host_ip]
        else:
            places = [self.binding] if self.ip(ip_address(self.binding).version) else []
            if self.ip6 and self.binding == ANY4:
                places.append(ANY6)
        for place in places:
            if place == LOOPBACK6 and mapping.proto != "tcp":
                raise InvalidArgument(
                    f"cannot publish on {place}: for {mapping.proto} that is not implemented"
                )
            if not self.to(place):
                raise InvalidArgument(
                    f"cannot publish on {place}: the container has no IPv{ip_address(place).version} address"
                )
        return [p if p == LOOPBACK6 else self._opened(p) for p in places]

    def _opened(self, place: str) -> str:
        """The container's own address instead of the host's, where that is routed."""
        family = ip_address(place).version
        return self.ip(family) if self.routed(family) else place


@dataclass(frozen=True)
class _Held:
    port: PublishedPort
    socket: socket.socket | None


class HostPorts:
    """The ports this daemon holds, by container. Safe to use from any thread of the host's namespace."""

    def __init__(self, relay: Relay | None = None) -> None:
        """:param relay: for those that the host's own programs reach by ``::1``."""
        self._relay = relay
        self._lock = threading.Lock()
        self._by_port: dict[tuple[str, int], dict[str, str]] = {}
        self._by_container: dict[str, list[_Held]] = {}
        self._next: dict[str, int] = {}

    def reserve(
        self, container_id: str, mappings: Sequence[PortMapping], target: Target
    ) -> tuple[PublishedPort, ...]:
        """Choose and hold a host port for every mapping, besides what the container has; all or none.

        :returns: the ports of these mappings.
        :raises Internal: a port is taken or cannot be bound, in Docker's words.
        :raises InvalidArgument: as :func:`check_mapping` and :meth:`Target.places`.
        """
        for mapping in mappings:
            check_mapping(mapping)
        with self._lock:
            before = len(self._by_container.get(container_id, ()))
            try:
                for mapping in mappings:
                    self._reserve_one(container_id, mapping, target)
            except BaseException:
                self._release(container_id, self._by_container.get(container_id, [])[before:])
                raise
            return tuple(h.port for h in self._by_container.get(container_id, ())[before:])

    def adopt(self, container_id: str, ports: Sequence[PublishedPort], own: Sequence[str] = ()) -> list[str]:
        """Hold ports again that were published before a restart. They are kept even where a host program has
        taken one meanwhile, as the packets still go to the container.

        :param own: the container's own addresses.
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
                    # a port opened in mode ``routed`` is the container's own
                    held = None if port.host_ip in own else _bind(port.proto, port.host_ip, port.host_port)
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
                if self._relay is not None:
                    self._relay.drop(held.socket)
                held.socket.close()

    def _keep(self, container_id: str, held: _Held) -> None:
        port = held.port
        self._by_port.setdefault((port.proto, port.host_port), {})[port.host_ip] = container_id
        self._by_container.setdefault(container_id, []).append(held)
        if self._relay is not None and held.socket is not None and _is_relayed(port.proto, port.host_ip):
            self._relay.serve(held.socket)

    def _reserve_one(self, container_id: str, mapping: PortMapping, target: Target) -> None:
        places = target.places(mapping)
        mine = [p for p in places if p in (target.ip4, target.ip6)]
        for place in mine:
            self._keep(container_id, _Held(_port(mapping, place, mapping.container_port), None))
        places = [p for p in places if p not in mine]
        if not places:
            return
        exact = mapping.host_port is not None and mapping.host_port_end is None
        for number in self._candidates(mapping):
            taken = next((ip for ip in places if self._taken(mapping.proto, ip, number)), None)
            if taken is not None:
                if exact:
                    raise Internal(f"Bind for {_shown(taken, number)} failed: port is already allocated")
                continue
            held = self._bind_all(mapping, places, number, exact=exact)
            if held is not None:
                for one in held:
                    self._keep(container_id, one)
                return
        where = f"{mapping.host_port}-{mapping.host_port_end}" if mapping.host_port else "any"
        raise Internal(f"Bind for {places[0]}:{where} failed: all ports are allocated")

    @staticmethod
    def _bind_all(
        mapping: PortMapping, places: Sequence[str], number: int, *, exact: bool
    ) -> list[_Held] | None:
        """The port on every address, or None if one of them has it taken and another port will do as well."""
        held: list[_Held] = []
        try:
            for ip in places:
                held.append(_Held(_port(mapping, ip, number), _bind(mapping.proto, ip, number)))
        except OSError as e:
            for one in held:
                if one.socket is not None:
                    one.socket.close()
            if e.errno == errno.EADDRINUSE and not exact:
                return None
            reason = (e.strerror or str(e)).lower()
            if e.errno == errno.EADDRINUSE:
                reason += portholders.named(mapping.proto, number)
            raise Internal(f"failed to bind host port for {_shown(ip, number)}: {reason}") from e
        return held

    def _taken(self, proto: str, ip: str, number: int) -> bool:
        holders = self._by_port.get((proto, number), {})
        family = ip_address(ip).version
        for other in holders:
            if ip_address(other).version == family and (ip == other or ip in _ANYWHERE or other in _ANYWHERE):
                return True
        return False

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


def _port(mapping: PortMapping, ip: str, number: int) -> PublishedPort:
    return PublishedPort(
        container_port=mapping.container_port,
        proto=mapping.proto,
        host_ip=ip,
        host_port=number,
        sources=mapping.sources,
    )


def _shown(ip: str, number: int) -> str:
    return f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"


def _is_relayed(proto: str, ip: str) -> bool:
    return proto == "tcp" and ip in (ANY6, LOOPBACK6)


def _bind(proto: str, ip: str, number: int) -> socket.socket | None:
    """Hold a port. None for sctp where the kernel has no such sockets, so that no host program can either.

    :raises OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES …
    """
    kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        held = socket.socket(family, kind, socket.IPPROTO_SCTP if proto == "sctp" else 0)
    except OSError as e:
        if proto == "sctp" and e.errno in _NO_SCTP:
            return None
        raise
    try:
        relayed = _is_relayed(proto, ip)
        if relayed:
            drop_all_but_loopback6(held)
        else:
            drop_everything(held)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if proto != "udp":
            # a connection of an earlier server that still lingers is no reason to refuse; a listener is
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((ip, number))
        if proto != "udp":
            # only a listener keeps out programs that set SO_REUSEADDR, as most servers do
            # with sctp 0 says the opposite, and is refused by a socket that does not listen yet
            held.listen(socket.SOMAXCONN if relayed else int(proto == "sctp"))
    except BaseException:
        held.close()
        raise
    return held
