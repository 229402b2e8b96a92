"""The administrator's settings for the default bridge, and default options for other networks.

The names are dockerd's: ``bridge``, ``bip``, ``bip6``, ``ipv6``, ``fixed-cidr``, ``fixed-cidr-v6``,
``default-gateway``,
``default-gateway-v6`` and ``default-network-opts``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.daemon import values
from wherry.errors import InvalidArgument
from wherry.network import ipam, options
from wherry.network.types import NO_BRIDGE

_READERS = {
    "bridge": options.bridge,
    "macvlan": options.macvlan,
    "ipvlan": options.ipvlan,
    "overlay": options.overlay,
}


@dataclass(frozen=True)
class DefaultBridge:
    """``name``: empty for a bridge that the daemon makes, ``none``, or an existing interface of the host.
    ``bip`` and ``bip6``: its address with a prefix. ``fixed`` and ``fixed6``: the part of the subnet to
    assign addresses from. ``gateway`` and ``gateway6``: the containers' router, if that is not the bridge.
    ``host``: the bridge's own address if a router is given; then the host is not the containers' gateway."""

    name: str = ""
    bip: str = ""
    bip6: str = ""
    ipv6: bool = False
    fixed: str = ""
    fixed6: str = ""
    gateway: str = ""
    gateway6: str = ""
    host: str = ""


def configured(m: Mapping[str, Any]) -> DefaultBridge:
    """:raises InvalidArgument: an invalid value, or two that exclude each other,
    with Docker's message."""
    said: dict[str, str] = {key: m[key] or "" for key in _PARSERS}
    for key, text in said.items():
        if text:
            values.parsed(_PARSERS[key], text, key.replace("_", "-"))
    for text in (said["bip"], said["bip6"]):
        if text:
            ipam.parse_bip(text)
    name, ipv6 = m["bridge"] or "", bool(m["ipv6"])
    if name and (said["bip"] or said["bip6"]):
        raise InvalidArgument("You specified -b & --bip, mutually exclusive options. Please specify only one")
    if name == NO_BRIDGE and (ipv6 or any(said.values())):
        given = "ipv6" if ipv6 else next(key for key, text in said.items() if text).replace("_", "-")
        raise InvalidArgument(f"cannot use {given}: there is no default bridge (bridge=none)")
    if name and name != NO_BRIDGE:
        options.ifname("bridge", name)
    for key in ("bip6", "fixed_cidr_v6", "default_gateway_v6"):
        if said[key] and not ipv6:
            raise InvalidArgument(f"cannot use {key.replace('_', '-')} without ipv6")
    for gateway, subnets in (
        ("default_gateway", ("bip", "fixed_cidr")),
        ("default_gateway_v6", ("bip6", "fixed_cidr_v6")),
    ):
        _check_gateway(said, gateway, subnets, chosen=bool(name))
    host = said["bip"].partition("/")[0] if said["default_gateway"] else ""
    return DefaultBridge(
        name=name,
        ipv6=ipv6,
        bip=said["bip"],
        bip6=said["bip6"],
        fixed=said["fixed_cidr"],
        fixed6=said["fixed_cidr_v6"],
        gateway=said["default_gateway"],
        gateway6=said["default_gateway_v6"],
        host=host,
    )


_PARSERS: Mapping[str, Any] = {
    "bip": ipaddress.IPv4Interface,
    "bip6": ipaddress.IPv6Interface,
    "fixed_cidr": ipaddress.IPv4Network,
    "fixed_cidr_v6": ipaddress.IPv6Network,
    "default_gateway": ipaddress.IPv4Address,
    "default_gateway_v6": ipaddress.IPv6Address,
}


def _check_gateway(said: Mapping[str, str], key: str, subnets: Sequence[str], *, chosen: bool) -> None:
    """A router must be in the bridge's subnet, so the subnet must be given too."""
    if not said[key]:
        return
    cidr = next((said[name] for name in subnets if said[name]), "")
    shown = key.replace("_", "-")
    if not cidr:
        if not chosen:
            raise InvalidArgument(f"cannot use {shown} without {subnets[0]}: it is an address of its subnet")
        return
    whole = ipaddress.ip_interface(cidr).network
    if ipaddress.ip_address(said[key]) not in whole:
        raise InvalidArgument(f"default gateway {said[key]} must be part of the network: {whole}")


def said(given: Sequence[str]) -> dict[str, dict[str, str]]:
    """``bridge=com.docker.network.driver.mtu=1400`` and more, by driver. :raises InvalidArgument: another
    form."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        driver, _, rest = text.partition("=")
        name, equals, value = rest.partition("=")
        if not (driver and name and equals):
            raise InvalidArgument(f"invalid default network option {text[:80]!r}: expected DRIVER=KEY=VALUE")
        found.setdefault(driver, {})[name] = value
    return found


def network_options(given: Mapping[str, Mapping[str, str]] | None) -> dict[str, dict[str, str]]:
    """:raises InvalidArgument: an option that the built-in driver does not have.
    Plugins check their own options."""
    for driver, pairs in (given or {}).items():
        if driver in _READERS:
            try:
                _READERS[driver](pairs)
            except InvalidArgument as e:
                raise InvalidArgument(f"invalid default-network-opts: {e.message}") from e
    return {driver: dict(pairs) for driver, pairs in (given or {}).items()}
