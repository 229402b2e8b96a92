"""The default bridge's subnets: the configured ones, else the previous ones, else the first free ones.

While containers use a subnet it does not change. Otherwise it changes by itself only if another program of
the host has taken it meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_network

import msgspec

from wherry.errors import Forbidden, InvalidArgument, Unavailable
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.network import ipam
from wherry.network.create import bridge_pools
from wherry.network.types import (
    NO_BRIDGE,
    ROUTER_NAMES,
    Family,
    IPNetwork,
    Network,
    NetworkConfig,
    Subnet,
)

Interface = IPv4Interface | IPv6Interface
Chosen = tuple[list[Subnet], list[str]]


@dataclass(frozen=True)
class HostBridge:
    """An existing bridge of the host that is used as the default bridge. It is used as it is: its addresses
    are neither changed nor removed."""

    name: str
    index: int
    addresses: tuple[Interface, ...]

    def subnet(self, family: Family) -> Subnet | None:
        found = next((a for a in self.addresses if a.version == family and not a.ip.is_link_local), None)
        return Subnet(cidr=str(found.network), gateway=str(found.ip)) if found is not None else None


def host_bridge(name: str) -> HostBridge | None:
    """The interface that ``--bridge`` names; None if it names none.

    :raises Unavailable: the host has no bridge of that name.
    """
    if name in ("", NO_BRIDGE):
        return None
    with NetlinkSocket() as sock:
        link = rt.link(sock, name)
    if link is None or link.kind != "bridge":
        reason = "it does not exist" if link is None else "it is not a bridge"
        raise Unavailable(f"bridge device with non default name {name} must be created manually: {reason}")
    addresses = sorted(rt.addresses_on(link.index), key=lambda a: (a.version, a.ip.packed))
    return HostBridge(name, link.index, tuple(addresses))


@dataclass(frozen=True)
class Surrounding:
    """:ivar in_use: whether containers are on the bridge. :ivar others: subnets that the host reaches by
    interfaces that are not ours. :ivar taken: subnets of existing networks.
    :ivar local: the pool for IPv6 subnets."""

    in_use: bool
    others: Collection[IPNetwork]
    taken: Collection[IPNetwork]
    local: IPNetwork


def subnets(network: Network, config: NetworkConfig, host: HostBridge | None, around: Surrounding) -> Chosen:
    """The subnets of the default bridge from now on, and lines that say what could not be done.

    :raises InvalidArgument, Unavailable: the configuration is not possible.
    """
    families: Sequence[Family] = (4, 6) if config.ipv6 else (4,)
    kept = {family: next(iter(network.subnets_of(family)), None) for family in (4, 6)}
    found: list[Subnet] = []
    lines: list[str] = []
    for family in families:
        wanted = _said(config, host, family)
        was = kept[family]
        if wanted is not None:
            if was is not None and was != wanted and around.in_use:
                lines.append(
                    f"network bridge keeps {was.cidr}: containers use it; {_how(config, family)} waits"
                )
                wanted = was
            found.append(wanted)
            continue
        subnet, line = _own(was, config, around, family)
        lines += line
        found.append(subnet)
    if not config.ipv6 and kept[6] is not None and around.in_use:
        found.append(kept[6])
        lines.append(f"network bridge keeps {kept[6].cidr}: containers use it")
    return found, lines


def _how(config: NetworkConfig, family: Family) -> str:
    bip, fixed = (config.bip, config.fixed_cidr) if family == 4 else (config.bip6, config.fixed_cidr6)
    six = "6" if family == 6 else ""
    if bip:
        return f"bip{six} {bip}"
    return f"bridge {config.bridge}" if config.bridge else f"fixed-cidr{'-v6' if six else ''} {fixed}"


def _said(config: NetworkConfig, host: HostBridge | None, family: Family) -> Subnet | None:
    """The subnet, if the configuration or the host's bridge determines it."""
    bip, fixed = (config.bip, config.fixed_cidr) if family == 4 else (config.bip6, config.fixed_cidr6)
    if host is not None:
        subnet = host.subnet(family)
        if subnet is None:
            raise Unavailable(f"cannot use bridge {host.name}: it has no IPv{family} address")
    elif bip:
        subnet = ipam.parse_bip(bip)
    elif fixed:
        whole = ip_network(fixed)
        subnet = Subnet(cidr=fixed, gateway=str(whole.network_address + 1))
    else:
        return None
    if fixed:
        if not ip_network(fixed).subnet_of(subnet.network):  # type: ignore[arg-type]
            raise InvalidArgument(f"invalid fixed-cidr {fixed}: it is not within {subnet.cidr}")
        subnet = msgspec.structs.replace(subnet, ip_range=fixed if fixed != subnet.cidr else "")
    router = config.gateway if family == 4 else config.gateway6
    return msgspec.structs.replace(subnet, aux={ROUTER_NAMES[family]: router}) if router else subnet


def _own(
    kept: Subnet | None, config: NetworkConfig, around: Surrounding, family: Family
) -> tuple[Subnet, list[str]]:
    """A subnet that we choose."""
    pools: Sequence[tuple[str, int]] = bridge_pools(config)
    if family == 6:
        pools = [p for p in config.default_address_pools if ":" in p[0]] or ((str(around.local), 64),)
    used = [*around.others, *around.taken]
    if kept is not None and kept.aux:
        kept = msgspec.structs.replace(kept, aux={})  # from an earlier configuration
    if kept is None:
        return ipam.pick_subnet(pools, used, family), []
    rival = next((n for n in around.others if _takes(n, kept.network)), None)
    if rival is None or around.in_use:
        return kept, []  # a collision that stays is reported with those of the other networks
    try:
        moved = ipam.pick_subnet(pools, used, family)
    except Forbidden as e:
        return kept, [f"network bridge cannot move from {kept.cidr}, which is in use by others: {e.message}"]
    line = f"moved network bridge from {kept.cidr} to {moved.cidr}: this host has another route to {rival}"
    return moved, [line]


def _takes(other: IPNetwork, subnet: IPNetwork) -> bool:
    """Whether another interface's route may get packets for the subnet; a less specific route does not."""
    return other.version == subnet.version and other.overlaps(subnet) and other.prefixlen >= subnet.prefixlen
