"""Host ports: which are requested, which are free, and reserving them.

No process listens on a published port: nftables redirects its packets before any socket is looked up. If a
host program bound the same port, it would never receive anything. To prevent that, the daemon binds a socket
to the port. A filter on that socket drops all packets that reach it: if the table is missing for a moment,
clients retry instead of connecting to nobody. All sockets of a container need only one descriptor
(``SocketBox``).
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from wherry.errors import Internal, InvalidArgument
from wherry.linux import portholders, sysctl
from wherry.linux.packetfilter import drop_everything
from wherry.linux.socketbox import SocketBox
from wherry.network.ruleset import ANY4, ANY6
from wherry.network.types import LOOPBACK6, PROTOCOLS, PortMapping, PublishedPort

_log = logging.getLogger(__name__)
_ANYWHERE = (ANY4, ANY6)
Place = tuple[PortMapping, str]
"""A mapping, and a host address to publish it on."""
_NO_SCTP = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def check_mapping(mapping: PortMapping) -> None:
    """:raises InvalidArgument: an invalid port, range, protocol, address or subnet."""
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
class PortTarget:
    """Where a container's published ports lead: its address of each family, ``""`` for none.

    ``binding``: the host address for ports that name no address. A ``routed`` family has no host ports:
    instead the container's own ports are opened.
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
        """The container's address for a port on the given host address."""
        if place == LOOPBACK6:
            return self.ip6 or self.ip4  # by the relay, without NAT
        return self.ip(ip_address(place).version)

    def places(self, mapping: PortMapping) -> list[str]:
        """The host addresses to publish on.

        :raises InvalidArgument: the container has no address of that family.
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
        """The container's own address instead of the host's, if that family is routed."""
        family = ip_address(place).version
        return self.ip(family) if self.routed(family) else place


@dataclass
class _Grant:
    """What one call reserved for a container: ports, and the sockets that hold them."""

    ports: list[PublishedPort]
    box: SocketBox[PublishedPort]


class HostPorts:
    """The ports that this daemon holds, by container. Safe to use from any thread in the host's namespace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_port: dict[tuple[str, int], dict[str, str]] = {}
        self._by_container: dict[str, list[_Grant]] = {}
        self._next: dict[str, int] = {}

    def reserve(
        self, container_id: str, mappings: Sequence[PortMapping], target: PortTarget
    ) -> tuple[PublishedPort, ...]:
        """Choose and hold a host port for every mapping, in addition to the container's present ones; all or
        none.

        :returns: the ports of these mappings, in the order in which they were chosen (:func:`in_order`).
        :raises Internal: a port is taken or cannot be bound, with Docker's message.
        :raises InvalidArgument: as :func:`check_mapping` and :meth:`PortTarget.places`.
        """
        for mapping in mappings:
            check_mapping(mapping)
        grant = _Grant([], SocketBox())
        with self._lock:
            try:
                for places in in_order(mappings, target):
                    self._reserve_group(container_id, places, target, grant)
                _seal(grant.box)
            except BaseException:
                self._forget(grant.ports)
                grant.box.close()
                raise
            if grant.ports:
                self._by_container.setdefault(container_id, []).append(grant)
        return tuple(grant.ports)

    def adopt(self, container_id: str, ports: Sequence[PublishedPort], own: Sequence[str] = ()) -> list[str]:
        """Hold ports again that were published before a restart. A port is kept even if a host program has
        bound it meanwhile, because its packets still go to the container.

        :param own: the container's own addresses.
        :returns: a line for every port that could not be bound.
        """
        with self._lock:
            return self._adopt(container_id, ports, own)

    def hand_over(
        self,
        giver: str,
        given: Sequence[PublishedPort],
        taker: str,
        taken: Sequence[PublishedPort],
    ) -> list[str]:
        """Let another container hold these ports. Nobody of this daemon can reserve one meanwhile.

        :returns: a line for every port that a host program has bound at that very moment; its packets go to
            the container all the same.
        """
        with self._lock:
            self._release_of(giver, set(given))
            return self._adopt(taker, taken, ())

    def _adopt(self, container_id: str, ports: Sequence[PublishedPort], own: Sequence[str]) -> list[str]:
        lines = []
        grant = _Grant([], SocketBox())
        mine = {port for g in self._by_container.get(container_id, ()) for port in g.ports}
        for port in ports:
            if port in mine:
                continue
            try:
                # a port opened in mode ``routed`` is the container's own
                if port.host_ip not in own:
                    _hold(port, grant.box)
            except OSError as e:
                reason = (e.strerror or str(e)).lower()
                lines.append(f"port {port.host_ip}:{port.host_port}/{port.proto} is not held: {reason}")
            self._keep(container_id, port, grant)
        _seal(grant.box)
        if grant.ports:
            self._by_container.setdefault(container_id, []).append(grant)
        return lines

    def release(self, container_id: str, ports: Sequence[PublishedPort] | None = None) -> None:
        """Release a container's ports, or only these; if it has none, nothing happens."""
        with self._lock:
            self._release_of(container_id, None if ports is None else set(ports))

    def _release_of(self, container_id: str, gone: Collection[PublishedPort] | None) -> None:
        left = [g for g in self._by_container.pop(container_id, ()) if not self._release(g, gone)]
        if left:
            self._by_container[container_id] = left

    def close(self) -> None:
        with self._lock:
            for grants in self._by_container.values():
                for grant in grants:
                    self._release(grant, None)
            self._by_container.clear()

    def _release(self, grant: _Grant, gone: Collection[PublishedPort] | None) -> bool:
        """:param gone: None for all. :returns: whether no port is left."""
        leaving = [port for port in grant.ports if gone is None or port in gone]
        self._forget(leaving)
        if len(leaving) == len(grant.ports):
            grant.box.close()
            return True
        if leaving:
            which = frozenset(leaving)
            grant.ports = [port for port in grant.ports if port not in which]
            try:
                grant.box.drop(which.__contains__)
            except OSError as e:
                _log.warning(
                    "ports that are not published any more stay held until their container ends: %s", e
                )
        return False

    def _forget(self, ports: Sequence[PublishedPort]) -> None:
        for port in ports:
            key = (port.proto, port.host_port)
            holders = self._by_port[key]
            holders.pop(port.host_ip, None)
            if not holders:
                del self._by_port[key]

    def _keep(self, container_id: str, port: PublishedPort, grant: _Grant) -> None:
        self._by_port.setdefault((port.proto, port.host_port), {})[port.host_ip] = container_id
        grant.ports.append(port)

    def _reserve_group(
        self, container_id: str, wanted: Sequence[Place], target: PortTarget, grant: _Grant
    ) -> None:
        """Reserve one port number on all of these addresses."""
        mapping = wanted[0][0]
        places = []
        for one, place in wanted:
            if place in (target.ip4, target.ip6):
                self._keep(container_id, _port(one, place, one.container_port), grant)
            else:
                places.append((one, place))
        if not places:
            return
        exact = mapping.host_port is not None and mapping.host_port_end is None
        for number in self._candidates(mapping):
            taken = next((ip for _, ip in places if self._taken(mapping.proto, ip, number)), None)
            if taken is not None:
                if exact:
                    text = f"Bind for {_shown(taken, number)} failed: port is already allocated"
                    raise Internal(text).as_expected()
                continue
            ports = [_port(one, ip, number) for one, ip in places]
            if _hold_all(ports, grant.box, exact=exact):
                for port in ports:
                    self._keep(container_id, port, grant)
                return
        where = f"{mapping.host_port}-{mapping.host_port_end}" if mapping.host_port else "any"
        text = f"Bind for {places[0][1]}:{where} failed: all ports are allocated"
        raise Internal(text).as_expected()

    def _taken(self, proto: str, ip: str, number: int) -> bool:
        holders = self._by_port.get((proto, number))
        return holders is not None and any(_overlap(ip, other) for other in holders)

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


def in_order(mappings: Sequence[PortMapping], target: PortTarget) -> list[list[Place]]:
    """The order in which ports are chosen, and groups that get the same number.

    First the ports with a fixed number, then those with a range, then the others. If one container port is
    published on several addresses without a number, it gets the same number on each, as with Docker.

    :raises InvalidArgument: as :meth:`PortTarget.places`.
    """
    groups: list[list[Place]] = []
    for mapping in sorted(mappings, key=_freedom):
        places = [(mapping, place) for place in target.places(mapping)]
        group = next((g for g in groups if _shares_number(g, mapping, places)), None)
        if group is None:
            groups.append(places)
        else:
            group.extend(places)
    return groups


def _freedom(mapping: PortMapping) -> int:
    return 2 if mapping.host_port is None else 0 if mapping.host_port_end is None else 1


def _shares_number(group: Sequence[Place], mapping: PortMapping, places: Sequence[Place]) -> bool:
    first = group[0][0]
    if _freedom(mapping) == 0 or _alike(first) != _alike(mapping):
        return False
    return not any(_overlap(ip, other) for _, ip in places for _, other in group)


def _alike(mapping: PortMapping) -> tuple[object, ...]:
    return (mapping.container_port, mapping.proto, mapping.host_port, mapping.host_port_end)


def _overlap(ip: str, other: str) -> bool:
    """Whether a port cannot be bound on both addresses."""
    return (":" in ip) == (":" in other) and (ip == other or ip in _ANYWHERE or other in _ANYWHERE)


def _seal(box: SocketBox[PublishedPort]) -> None:
    try:
        box.seal()
    except OSError as e:
        raise Internal(f"failed to hold host ports: {(e.strerror or str(e)).lower()}") from e


def _hold_all(ports: Sequence[PublishedPort], box: SocketBox[PublishedPort], *, exact: bool) -> bool:
    """Hold a number on every address.
    :returns: whether that worked; if not, the caller tries another number."""
    held: list[tuple[PublishedPort, socket.socket]] = []
    try:
        for port in ports:
            bound = _bind(port.proto, port.host_ip, port.host_port)
            if bound is not None:
                held.append((port, bound))
        while held:
            box.put(*held[-1])
            held.pop()
    except OSError as e:
        for _, bound in held:
            bound.close()
        if e.errno == errno.EADDRINUSE and not exact:
            return False
        reason = (e.strerror or str(e)).lower()
        if e.errno == errno.EADDRINUSE:
            reason += portholders.named(port.proto, port.host_port)
        raise Internal(
            f"failed to bind host port for {_shown(port.host_ip, port.host_port)}: {reason}"
        ) from e
    return True


def _hold(port: PublishedPort, box: SocketBox[PublishedPort]) -> None:
    """:raises OSError: it cannot be bound."""
    bound = _bind(port.proto, port.host_ip, port.host_port)
    if bound is None:
        return
    try:
        box.put(port, bound)
    except OSError:
        bound.close()
        raise


def ephemeral_range() -> tuple[int, int]:
    """The host's ephemeral port range (ip(7), ``ip_local_port_range``), both ends included."""
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


def _bind(proto: str, ip: str, number: int) -> socket.socket | None:
    """Bind a port. None for sctp if the kernel has no such sockets: then no host program can use it either.

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
        drop_everything(held)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if proto != "udp":
            # a lingering connection of an earlier server is no reason to refuse; a listener is
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((ip, number))
        if proto != "udp":
            # only a listener blocks programs that set SO_REUSEADDR, as most servers do
            # with sctp, a backlog of 0 means "stop listening", and fails on a socket that does not listen yet
            held.listen(int(proto == "sctp"))
    except BaseException:
        held.close()
        raise
    return held
