"""A network request, checked and completed:
names, subnets, options, and the settings of a config-only network."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import msgspec

from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.network import ipam, options
from wherry.network.drivers import Traits
from wherry.network.types import (
    BRIDGE_POOLS,
    DEFAULT_ADDRESS_POOLS,
    PREDEFINED,
    Family,
    IPNetwork,
    Network,
    NetworkConfig,
    Subnet,
)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_RESERVED = (*PREDEFINED, "default", "container", "ingress")
_FAMILIES: tuple[Family, Family] = (4, 6)
OVERLAPS = "invalid pool request: Pool overlaps with other one on this address space"


@dataclass(frozen=True)
class NetworkRequest:
    """``POST /networks/create``, decoded. ``ipv4`` and ``ipv6``: None if not given."""

    name: str
    driver: str = ""
    scope: str = ""
    ipam_driver: str = ""
    ipam_options: dict[str, str] | None = None
    subnets: tuple[Subnet, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    ipv4: bool | None = None
    ipv6: bool | None = None
    config_only: bool = False
    config_from: str = ""


@dataclass(frozen=True)
class NetworkSurroundings:
    """What a new network must not conflict with. ``taken``: subnets of existing networks; ``routed``: subnets
    that the host has addresses in or routes to; ``local``: the default pool for IPv6 subnets."""

    networks: Mapping[str, Network]
    config: NetworkConfig
    taken: Collection[IPNetwork]
    routed: Callable[[], Collection[IPNetwork]]
    local: IPNetwork


def check_name(name: str) -> None:
    """:raises InvalidArgument: an invalid name. :raises Forbidden: a reserved name."""
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in _RESERVED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"invalid network name {name[:80]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )


def make(request: NetworkRequest, around: NetworkSurroundings, traits: Traits) -> tuple[Network, list[str]]:
    """The network, with subnets chosen if none were given, and warnings.

    :param traits: those of its driver.

    :raises InvalidArgument, Forbidden, NotFound, Conflict: it is not possible as requested, with Docker's
    message.
    """
    check_name(request.name)
    if any(n.name == request.name for n in around.networks.values()):
        raise Conflict(f"network with name {request.name} already exists")
    if request.scope not in ("", "local", "global"):
        raise InvalidArgument(f"invalid network scope {request.scope[:32]!r}: known are local and global")
    if request.scope and request.scope not in traits.scopes:
        raise InvalidArgument(
            f"network driver {request.driver or 'bridge'} has {traits.scopes[0]} networks only"
        )
    if request.config_only and request.driver not in ("", "bridge"):
        raise Forbidden("driver cannot be specified for a configuration-only network")
    if request.config_only and request.config_from:
        raise Forbidden("a configuration-only network cannot depend on another configuration network")
    request = _with_config(request, around)
    families = _families(request, traits)
    subnets = _checked(request.subnets, families)
    warnings = _overlaps(subnets, around) if not request.config_only else []
    if not request.config_only:
        subnets = _complete(subnets, families, request, around)
    network_id = secrets.token_hex(32)
    network = Network(
        id=network_id,
        name=request.name,
        driver="config-only" if request.config_only else request.driver or "bridge",
        created=time.time_ns(),
        subnets=tuple(subnets),
        options=dict(request.options),
        labels=dict(request.labels),
        internal=request.internal,
        attachable=request.attachable,
        enable_ipv4=4 in families,
        enable_ipv6=6 in families,
        scope="local",
        ipam_driver=request.ipam_driver or "default",
        ipam_options=request.ipam_options,
        config_only=request.config_only,
        config_from=request.config_from,
        has_names=traits.names,
    )
    return network, warnings


def _with_config(request: NetworkRequest, around: NetworkSurroundings) -> NetworkRequest:
    """Take the settings from a config-only network; the request itself must not contain them then."""
    if not request.config_from:
        return request
    source = next((n for n in around.networks.values() if n.name == request.config_from), None)
    if source is None:
        raise NotFound(f"configuration network {request.config_from[:80]!r} not found")
    if not source.config_only:
        raise Forbidden(f"network {request.config_from} is not a configuration network")
    if request.subnets or request.options or request.labels or request.ipam_options or request.ipv6:
        raise Forbidden(
            "user-specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    return NetworkRequest(
        name=request.name,
        driver=request.driver,
        scope=request.scope,
        ipam_driver=source.ipam_driver,
        ipam_options=source.ipam_options,
        subnets=source.subnets,
        options=source.options,
        labels=source.labels,
        internal=request.internal,
        attachable=request.attachable,
        ipv4=source.enable_ipv4,
        ipv6=source.enable_ipv6,
        config_from=request.config_from,
    )


def _families(request: NetworkRequest, traits: Traits) -> list[Family]:
    wanted: list[Family] = []
    for family, said in zip(_FAMILIES, (request.ipv4, request.ipv6), strict=True):
        text = request.options.get(options.ENABLE_OPTIONS[family])
        if text is not None and said is None:
            said = options.boolean(options.ENABLE_OPTIONS[family], text)
        if said if said is not None else family == 4:
            wanted.append(family)
    if not wanted and not traits.unaddressed:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    for subnet in request.subnets:
        if ":" in subnet.cidr and 6 not in wanted:
            # Docker silently turned IPv6 off here, which confused users.
            raise InvalidArgument(f"invalid network config:\nIPv6 subnet {subnet.cidr} without --ipv6")
        if subnet.cidr and ":" not in subnet.cidr and 4 not in wanted:
            raise InvalidArgument(f"invalid network config:\nIPv4 subnet {subnet.cidr} without IPv4")
    return wanted


def _checked(subnets: Sequence[Subnet], families: Sequence[Family]) -> list[Subnet]:
    """:raises InvalidArgument: with all mistakes, as Docker lists them."""
    mistakes: list[str] = []
    checked: list[Subnet] = []
    for subnet in subnets:
        if not subnet.cidr:
            continue  # an empty entry counts as none
        good = _check_one(subnet, mistakes)
        if good is not None:
            checked.append(good)
    if mistakes:
        raise InvalidArgument("invalid network config:\n" + "\n".join(mistakes))
    for i, one in enumerate(checked):
        for other in checked[:i]:
            if one.family == other.family and one.network.overlaps(other.network):
                raise Forbidden(OVERLAPS)
    return checked


def _check_one(subnet: Subnet, mistakes: list[str]) -> Subnet | None:
    before = len(mistakes)
    whole = _net(subnet.cidr, "subnet", mistakes)
    if whole is None:
        return None
    span = _net(subnet.ip_range, "ip-range", mistakes) if subnet.ip_range else None
    if span is not None and (span.version != whole.version or not span.subnet_of(whole)):  # type: ignore[arg-type]
        mistakes.append(f"invalid ip-range {span}: parent subnet {whole} doesn't contain ip-range")
    gateway = ""
    if subnet.gateway:
        gateway = _member(subnet.gateway, whole, f"gateway {subnet.gateway[:64]}", mistakes)
    aux = {n: _member(a, whole, f"auxiliary address {n[:64]}", mistakes) for n, a in subnet.aux.items()}
    if len(mistakes) > before:
        return None
    if gateway and whole.num_addresses > 2 and ip_address(gateway) in _ends(whole):
        raise Conflict(f"failed to allocate gateway ({gateway}): Address already in use")
    return Subnet(cidr=str(whole), gateway=gateway, ip_range=str(span) if span is not None else "", aux=aux)


def _ends(whole: IPNetwork) -> tuple[object, ...]:
    """The addresses of a subnet that no interface can have."""
    return (
        (whole.network_address, whole.broadcast_address) if whole.version == 4 else (whole.network_address,)
    )


def _net(text: str, what: str, mistakes: list[str]) -> IPNetwork | None:
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        mistakes.append(f"invalid {what} {text[:64]}: invalid CIDR block notation")
        return None
    if "/" not in text or str(found.network_address) != str(ip_address(text.partition("/")[0])):
        mistakes.append(f"invalid {what} {text[:64]}: it should be {found}")
        return None
    return found


def _member(text: str, whole: IPNetwork, what: str, mistakes: list[str]) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        mistakes.append(f"invalid {what}: invalid address")
        return ""
    if address not in whole:
        mistakes.append(f"invalid {what}: parent subnet {whole} doesn't contain this address")
    return str(address)


def _complete(
    subnets: list[Subnet], families: Sequence[Family], request: NetworkRequest, around: NetworkSurroundings
) -> list[Subnet]:
    """Add gateways to subnets without one, and a subnet for each family that has none."""
    if request.ipam_driver in ("null", "none"):
        return subnets
    out = [s if s.gateway else msgspec.structs.replace(s, gateway=_first(s)) for s in subnets]
    if request.ipam_driver not in ("", "default"):
        return out  # the IPAM driver knows its subnets
    for family in families:
        if not any(s.family == family for s in out):
            out.append(ipam.pick_subnet(_pools(around, family), [*around.taken, *around.routed()], family))
    return out


def _first(subnet: Subnet) -> str:
    whole = subnet.network
    return str(whole.network_address + (1 if whole.num_addresses > 2 else 0))


def _pools(around: NetworkSurroundings, family: Family) -> Sequence[tuple[str, int]]:
    configured = around.config.default_address_pools
    if any((":" in base) == (family == 6) for base, _ in configured):
        return configured
    if family == 6:
        return ((str(around.local), 64),)
    return DEFAULT_ADDRESS_POOLS


def bridge_pools(config: NetworkConfig) -> Sequence[tuple[str, int]]:
    """The pools for the default bridge's subnet."""
    return config.default_address_pools or (*BRIDGE_POOLS, *DEFAULT_ADDRESS_POOLS)


def _overlaps(subnets: Sequence[Subnet], around: NetworkSurroundings) -> list[str]:
    """:raises Forbidden: it overlaps another network.
    :returns: a warning for each overlap with a host route."""
    warnings = []
    routed = around.routed() if subnets else ()
    for subnet in subnets:
        whole = subnet.network
        if any(whole.version == t.version and whole.overlaps(t) for t in around.taken):
            raise Forbidden(OVERLAPS)
        for route in routed:
            if whole.version == route.version and whole.overlaps(route):
                warnings.append(f"subnet {whole} overlaps with {route}, which this host has a route to")
                break
    return warnings
