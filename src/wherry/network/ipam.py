"""Subnets for networks, and addresses for endpoints.

Addresses go round: the next one is the first free one after the last that was handed out, so that one that
was just given back rests as long as it can.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from wherry.errors import Conflict, Forbidden, InvalidArgument
from wherry.network.types import Network, Subnet
from wherry.state.networks import Networks


def pick_subnet(pools: Sequence[tuple[str, int]], used: Collection[IPv4Network]) -> Subnet:
    """The first subnet of the pools that overlaps nothing in ``used``; its first address is the gateway.

    :raises InvalidArgument: a pool that is no subnet, or is smaller than what is to be cut from it.
    :raises Forbidden: none is left, in Docker's words.
    """
    for base, size in pools:
        for subnet in _cut(base, size):
            if not any(subnet.overlaps(other) for other in used):
                return Subnet(cidr=str(subnet), gateway=str(subnet.network_address + 1))
    raise Forbidden("all predefined address pools have been fully subnetted")


def _cut(base: str, size: int) -> Iterable[IPv4Network]:
    try:
        network = IPv4Network(base)
    except ValueError as e:
        raise InvalidArgument(f"cannot use address pool {base[:64]!r}: {e}") from e
    if not network.prefixlen <= size <= 30:
        raise InvalidArgument(f"cannot use address pool {base}: subnets of /{size} do not fit in it")
    return network.subnets(new_prefix=size)


def parse_bip(bip: str, fixed_cidr: str = "") -> Subnet:
    """The subnet of ``--bip`` (``192.168.5.1/24``: the gateway's address and the prefix).

    :raises InvalidArgument: not an IPv4 address with a prefix, or one that no host can have.
    """
    try:
        interface = IPv4Interface(bip)
        given = "/" in bip
        fixed = IPv4Network(fixed_cidr) if fixed_cidr else None
    except ValueError as e:
        raise InvalidArgument(f"invalid bip or fixed-cidr: {e}") from e
    subnet = interface.network
    if (
        not given
        or subnet.prefixlen > 30
        or interface.ip in (subnet.network_address, subnet.broadcast_address)
    ):
        raise InvalidArgument(f"invalid bip {bip[:64]!r}: it must be a host address with its prefix length")
    if fixed is not None and not fixed.subnet_of(subnet):
        raise InvalidArgument(f"invalid fixed-cidr {fixed}: it is not within {subnet}")
    return Subnet(cidr=str(subnet), gateway=str(interface.ip), ip_range=str(fixed) if fixed else "")


def allocate(repository: Networks, network: Network, wanted: str = "") -> str:
    """An address of the network's subnet that no endpoint has; the caller's transaction keeps it so.

    :param wanted: this one and no other.
    :raises InvalidArgument: ``wanted`` is not an address of the subnet.
    :raises Conflict: it is taken, or all are.
    """
    subnet = network.subnets[0]
    if wanted:
        return _take(repository, network, subnet, wanted)
    span = IPv4Network(subnet.ip_range or subnet.cidr)
    reserved = {a for a in _reserved(subnet) if a in span}
    exhausted = Conflict(f"no available IPv4 addresses on this network's address pools: {network.name}")
    if repository.addresses_in_use(network.id) >= span.num_addresses - len(reserved) and not subnet.ip_range:
        raise exhausted
    size, first = span.num_addresses, int(span.network_address)
    cursor = repository.cursor(network.id)
    start = int(IPv4Address(cursor)) + 1 - first if cursor else 0
    for step in range(size):
        candidate = IPv4Address(first + (start + step) % size)
        if candidate not in reserved and not repository.address_taken(network.id, str(candidate)):
            repository.set_cursor(network.id, str(candidate))
            return str(candidate)
    raise exhausted


def _take(repository: Networks, network: Network, subnet: Subnet, wanted: str) -> str:
    try:
        address = IPv4Address(wanted)
    except ValueError as e:
        raise InvalidArgument(f"invalid IPv4 address: {wanted[:64]}") from e
    if address not in IPv4Network(subnet.cidr) or address in _reserved(subnet):
        raise InvalidArgument(
            f"invalid address {address}: It does not belong to any of this network's subnets"
        )
    if repository.address_taken(network.id, str(address)):
        raise Conflict("Address already in use")
    return str(address)


def _reserved(subnet: Subnet) -> set[IPv4Address]:
    whole = IPv4Network(subnet.cidr)
    named = {IPv4Address(a) for a in (subnet.gateway, *subnet.aux.values()) if a}
    return {whole.network_address, whole.broadcast_address} | named


def mac_for(address: str) -> str:
    """A locally administered MAC address made from the IPv4 address, as Docker did for long: whoever gets
    the address next gets the MAC with it, so that the neighbours' caches stay true."""
    return "02:42:" + ipaddress.IPv4Address(address).packed.hex(":")


def check_mac(text: str) -> str:
    """A MAC address a user asks for, in lower case with colons.

    :raises InvalidArgument: not six pairs of hex digits, or a multicast or all-zero address.
    """
    parts = text.replace("-", ":").lower().split(":")
    digits = set("0123456789abcdef")
    if len(parts) != 6 or any(len(p) != 2 or not set(p) <= digits for p in parts):
        raise InvalidArgument(f"invalid MAC address {text[:64]!r}")
    if int(parts[0], 16) & 1 or not any(int(p, 16) for p in parts):
        raise InvalidArgument(f"invalid MAC address {text[:64]!r}: not the address of one interface")
    return ":".join(parts)
