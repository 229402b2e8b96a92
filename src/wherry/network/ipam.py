"""Subnets for networks and addresses for endpoints, of both families.

Addresses are assigned in turn: the search starts after the last assigned one, so that a released address
stays unused as long as possible.
"""

from __future__ import annotations

import ipaddress
import secrets
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from wherry.errors import Conflict, Forbidden, InvalidArgument
from wherry.network.types import Family, IPNetwork, Network, Subnet
from wherry.state.database import Database
from wherry.state.meta import Meta
from wherry.state.networks import Networks

_LONGEST = {4: 30, 6: 126}
_BITS = {4: 32, 6: 128}


def pick_subnet(pools: Sequence[tuple[str, int]], used: Collection[IPNetwork], family: Family = 4) -> Subnet:
    """The first subnet of the family's pools that overlaps nothing in ``used``; the gateway is its first
    address.

    :raises InvalidArgument: a pool is not a subnet, or is smaller than the subnets to be cut from it.
    :raises Forbidden: no free subnet, with Docker's message.
    """
    taken = _spans(n for n in used if n.version == family)
    starts = [first for first, _ in taken]
    for base, size in pools:
        pool = _pool(base, size)
        if pool.version != family:
            continue
        step = 1 << (_BITS[family] - size)
        candidate, end = int(pool.network_address), int(pool.network_address) + pool.num_addresses
        while candidate < end:
            # of the subnets that begin before the candidate's end, only the last one can overlap it
            position = bisect_right(starts, candidate + step - 1) - 1
            if position < 0 or taken[position][1] < candidate:
                subnet = ip_network((candidate, size))
                return Subnet(cidr=str(subnet), gateway=str(subnet.network_address + 1))
            beyond = taken[position][1] + 1
            candidate += -(-(beyond - candidate) // step) * step
    raise Forbidden("all predefined address pools have been fully subnetted")


def _spans(networks: Iterable[IPNetwork]) -> list[tuple[int, int]]:
    """First and last addresses, in order; overlapping ranges are merged."""
    merged: list[tuple[int, int]] = []
    spans = ((int(n.network_address), int(n.broadcast_address)) for n in networks)
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _pool(base: str, size: int) -> IPNetwork:
    try:
        network = ip_network(base)
    except ValueError as e:
        raise InvalidArgument(f"cannot use address pool {base[:64]!r}: {e}") from e
    if not network.prefixlen <= size <= _LONGEST[network.version]:
        raise InvalidArgument(f"cannot use address pool {base}: subnets of /{size} do not fit in it")
    return network


def parse_bip(bip: str) -> Subnet:
    """The subnet for ``--bip`` or ``--bip6`` (``192.168.5.1/24``: the gateway's address and the prefix).

    :raises InvalidArgument: not an address with a prefix, or not usable as a host address.
    """
    try:
        interface = ip_interface(bip)
    except ValueError as e:
        raise InvalidArgument(f"invalid bip: {e}") from e
    subnet = interface.network
    ends = (subnet.network_address, subnet.broadcast_address if subnet.version == 4 else None)
    if "/" not in bip or subnet.prefixlen > _LONGEST[subnet.version] or interface.ip in ends:
        raise InvalidArgument(f"invalid bip {bip[:64]!r}: it must be a host address with its prefix length")
    return Subnet(cidr=str(subnet), gateway=str(interface.ip))


def allocate(
    repository: Networks,
    network: Network,
    wanted: str = "",
    *,
    family: Family = 4,
    busy: Collection[str] = (),
) -> tuple[str, Subnet]:
    """A free address of the network, and its subnet; the caller's transaction keeps it free.

    :param wanted: take exactly this address. :param busy: taken addresses, besides those of endpoints with
        rows.
    :raises InvalidArgument: ``wanted`` is in none of the subnets.
    :raises Conflict: it is taken or reserved, or all are taken.
    """
    subnets = network.subnets_of(family)
    if wanted:
        return _take(repository, network, subnets, wanted, family)
    for subnet in subnets:
        found = _next(repository, network, subnet, busy)
        if found:
            return found, subnet
    raise Conflict(f"no available IPv{family} addresses on this network's address pools: {network.name}")


def _next(repository: Networks, network: Network, subnet: Subnet, busy: Collection[str]) -> str:
    span = ip_network(subnet.ip_range or subnet.cidr)
    first, size, bits = int(span.network_address), span.num_addresses, _BITS[span.version]
    taken = {int(ip_address(a)) for a in repository.addresses_in_use(network.id, span.version)}
    taken |= _reserved(subnet)
    taken |= {int(ip) for a in busy if (ip := ip_address(a)).version == span.version}
    cursor = repository.cursor(network.id, subnet.cidr)
    start = (int(ip_address(cursor)) + 1 - first) % size if cursor else 0
    for step in range(min(size, len(taken) + 1)):
        candidate = first + (start + step) % size
        if candidate not in taken:
            address = str(ip_address(candidate.to_bytes(bits // 8, "big")))
            repository.set_cursor(network.id, subnet.cidr, address)
            return address
    return ""


def _take(
    repository: Networks, network: Network, subnets: Sequence[Subnet], wanted: str, family: Family
) -> tuple[str, Subnet]:
    try:
        address = ip_address(wanted)
    except ValueError as e:
        raise InvalidArgument(f"invalid IPv{family} address: {wanted[:64]}") from e
    if address.version != family:
        raise InvalidArgument(f"invalid IPv{family} address: {wanted[:64]}")
    subnet = next((s for s in subnets if address in s.network), None)
    if subnet is None:
        raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {address}")
    if int(address) in _reserved(subnet):
        raise Conflict("Address already in use")
    if repository.address_taken(network.id, str(address)):
        raise Conflict("Address already in use")
    return str(address), subnet


def _reserved(subnet: Subnet) -> set[int]:
    """The subnet's own address (IPv6: the routers' anycast address), its last one, and the reserved ones."""
    whole = subnet.network
    named = {int(ip_address(a)) for a in (subnet.gateway, *subnet.aux.values()) if a}
    if whole.prefixlen > _LONGEST[whole.version]:
        return named
    ends = {int(whole.network_address)}
    if isinstance(whole, IPv4Network):
        ends.add(int(whole.broadcast_address))
    return ends | named


def status(repository: Networks, network: Network, subnet: Subnet) -> tuple[int, int]:
    """How many addresses of the subnet are used or reserved, and how many of its range are free."""
    span = ip_network(subnet.ip_range or subnet.cidr)
    taken = {int(ip_address(a)) for a in repository.addresses_in_use(network.id, subnet.family)}
    taken = {a for a in taken if ip_address(_packed(a, subnet.family)) in subnet.network} | _reserved(subnet)
    inside = sum(1 for a in taken if int(span.network_address) <= a <= int(span.broadcast_address))
    most = (1 << 64) - 1
    return min(len(taken), most), min(span.num_addresses - inside, most)


def _packed(number: int, family: Family) -> bytes:
    return number.to_bytes(_BITS[family] // 8, "big")


def local_prefix(seed: bytes) -> IPv6Network:
    """A unique local /48 (RFC 4193), derived from the 5 bytes of ``seed``."""
    return IPv6Network((b"\xfd" + seed[:5] + bytes(10), 48))


def local_pool(db: Database) -> IPv6Network:
    """The pool for IPv6 subnets that are not given; it does not change during a root's life."""
    return local_prefix(bytes.fromhex(Meta(db).set_default("ipv6_prefix", secrets.token_hex(5))))


def mac_for(address: str) -> str:
    """A locally administered MAC address, derived from the IP address, as Docker did for long. The next
    endpoint with the IP address also gets the same MAC, so that the neighbours' caches stay valid."""
    return "02:42:" + ipaddress.ip_address(address).packed[-4:].hex(":")


def check_mac(text: str) -> str:
    """Check a MAC address from a user; returns it in lower case with colons.

    :raises InvalidArgument: not six pairs of hex digits, or a multicast or all-zero address.
    """
    parts = text.replace("-", ":").lower().split(":")
    digits = set("0123456789abcdef")
    if len(parts) != 6 or any(len(p) != 2 or not set(p) <= digits for p in parts):
        raise InvalidArgument(f"invalid MAC address {text[:64]}")
    if int(parts[0], 16) & 1 or not any(int(p, 16) for p in parts):
        raise InvalidArgument(f"invalid MAC address {text[:64]!r}: not the address of one interface")
    return ":".join(parts)
