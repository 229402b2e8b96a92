"""The drivers' options (``--opt``), parsed once into typed values. The names are those of Docker's drivers.

An unknown option is an error: otherwise a misspelled option could leave a network open that should be closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

from wherry.errors import InvalidArgument

_BRIDGE = "com.docker.network.bridge."
_NETWORK = "com.docker.network."

NAME_OPTION = f"{_BRIDGE}name"
ICC_OPTION = f"{_BRIDGE}enable_icc"
MASQUERADE_OPTION = f"{_BRIDGE}enable_ip_masquerade"
HOST_BINDING_OPTION = f"{_BRIDGE}host_binding_ipv4"
DEFAULT_BRIDGE_OPTION = f"{_BRIDGE}default_bridge"
MTU_OPTION = f"{_NETWORK}driver.mtu"
VNI_OPTION = f"{_NETWORK}driver.overlay.vxlanid_list"
PREFIX_OPTION = f"{_NETWORK}container_iface_prefix"
ENABLE_OPTIONS = {4: f"{_NETWORK}enable_ipv4", 6: f"{_NETWORK}enable_ipv6"}

GatewayMode = Literal["nat", "nat-unprotected", "routed", "isolated"]
GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_IFNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,10}")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True)
class Common:
    """Options of every driver that makes interfaces. ``mtu`` in bytes, 0: the driver's own choice."""

    mtu: int = 0
    prefix: str = "eth"


@dataclass(frozen=True)
class BridgeOptions(Common):
    """``host_binding``: the host address for published ports without an address; ``snat4`` and ``snat6``: the
    source address that containers have outside, ``""``: that of the outgoing interface."""

    name: str = ""
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    mode4: GatewayMode = "nat"
    mode6: GatewayMode = "nat"
    inhibit_ipv4: bool = False
    trusted: tuple[str, ...] = ()
    snat4: str = ""
    snat6: str = ""

    def mode(self, family: int) -> GatewayMode:
        return self.mode4 if family == 4 else self.mode6


MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]


@dataclass(frozen=True)
class MacvlanOptions(Common):
    """``parent`` may be ``<interface>.<vlan>``. ``shim``: the address of an interface that the host gets on
    the network; without it the kernel blocks traffic between the host and its macvlan containers."""

    parent: str = ""
    mode: MacvlanMode = "bridge"
    shim: str = ""


@dataclass(frozen=True)
class IpvlanOptions(Common):
    parent: str = ""
    mode: Literal["l2", "l3", "l3s"] = "l2"
    flag: Literal["bridge", "private", "vepa"] = "bridge"


@dataclass(frozen=True)
class OverlayOptions(Common):
    vni: int = 0
    encrypted: bool = False


def boolean(name: str, text: str) -> bool:
    """:raises InvalidArgument: not a boolean."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(
        f"failed to parse {name} value: {text[:64]} "
        f'(strconv.ParseBool: parsing "{text[:64]}": invalid syntax)'
    )


def ifname(name: str, text: str) -> str:
    """:raises InvalidArgument: not a valid interface name."""
    if not _IFNAME.fullmatch(text) or text in (".", ".."):
        raise InvalidArgument(f"invalid value for {name}: {text[:64]!r} is not a valid interface name")
    return text


def _mtu(name: str, text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]+", text):
        raise InvalidArgument(
            f'failed to parse {name} value: {text[:64]} (strconv.Atoi: parsing "{text[:64]}": invalid syntax)'
        )
    if text.startswith("-"):
        raise InvalidArgument(f"invalid MTU number: {text[:64]}")
    if not (text.isascii() and text.isdigit() and (text == "0" or 68 <= int(text) <= 65535)):
        raise InvalidArgument(f"invalid value for {name}: {text[:64]!r} is not 68 to 65535 bytes")
    return int(text)


def _prefix(name: str, text: str) -> str:
    if not _PREFIX.fullmatch(text) or text == "lo":
        raise InvalidArgument(
            f"invalid value for {name}: {text[:64]!r} is not a valid prefix of interface names"
        )
    return text


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in allowed:
            raise InvalidArgument(
                f"invalid value for {name}: {text[:64]!r} is not one of {', '.join(allowed)}"
            )
        return text

    return read


def _address(kind: type[IPv4Address] | type[IPv6Address]) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        try:
            return str(kind(text))
        except ValueError as e:
            raise InvalidArgument(f"failed to parse {name} value: {text[:64]} ({e})") from e

    return read


def _binding(name: str, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as e:
        raise InvalidArgument(f"failed to parse {name} value: {text[:64]} ({e})") from e


def _interfaces(name: str, text: str) -> tuple[str, ...]:
    return tuple(ifname(name, part) for part in text.split(":") if part)


def _vni(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 24):
        raise InvalidArgument(f"invalid value for {name}: {text[:64]!r} is not one number from 1 to 16777215")
    return int(text)


def _flag(name: str, text: str) -> bool:
    """``--opt encrypted`` without a value means true."""
    return text == "" or boolean(name, text)


Reader = Callable[[str, str], Any]
COMMON: dict[str, tuple[str, Reader]] = {MTU_OPTION: ("mtu", _mtu), PREFIX_OPTION: ("prefix", _prefix)}
_BRIDGE_OPTIONS: dict[str, tuple[str, Reader]] = {
    **COMMON,
    NAME_OPTION: ("name", ifname),
    ICC_OPTION: ("icc", boolean),
    MASQUERADE_OPTION: ("masquerade", boolean),
    HOST_BINDING_OPTION: ("host_binding", _binding),
    f"{_BRIDGE}gateway_mode_ipv4": ("mode4", _one_of(*GATEWAY_MODES)),
    f"{_BRIDGE}gateway_mode_ipv6": ("mode6", _one_of(*GATEWAY_MODES)),
    f"{_BRIDGE}inhibit_ipv4": ("inhibit_ipv4", boolean),
    f"{_BRIDGE}trusted_host_interfaces": ("trusted", _interfaces),
    f"{_NETWORK}host_ipv4": ("snat4", _address(IPv4Address)),
    f"{_NETWORK}host_ipv6": ("snat6", _address(IPv6Address)),
}
_MACVLAN_OPTIONS: dict[str, tuple[str, Reader]] = {
    **COMMON,
    "parent": ("parent", ifname),
    "macvlan_mode": ("mode", _one_of("bridge", "private", "vepa", "passthru")),
    "host_shim": ("shim", _binding),
}
_IPVLAN_OPTIONS: dict[str, tuple[str, Reader]] = {
    **COMMON,
    "parent": ("parent", ifname),
    "ipvlan_mode": ("mode", _one_of("l2", "l3", "l3s")),
    "ipvlan_flag": ("flag", _one_of("bridge", "private", "vepa")),
}
_OVERLAY_OPTIONS: dict[str, tuple[str, Reader]] = {
    **COMMON,
    VNI_OPTION: ("vni", _vni),
    "encrypted": ("encrypted", _flag),
}
_IGNORED = {DEFAULT_BRIDGE_OPTION, *ENABLE_OPTIONS.values()}
"""Parsed elsewhere: by ``create``, or written by ourselves."""


def read(driver: str, options: Mapping[str, str], known: Mapping[str, tuple[str, Reader]]) -> dict[str, Any]:
    """The options that were given, as members. A driver's own options are combined with :data:`COMMON`.

    :param known: member and parser by the option's name.
    :raises InvalidArgument: an unknown option, or an invalid value.
    """
    found: dict[str, Any] = {}
    for name, text in options.items():
        if name in _IGNORED:
            continue
        if name not in known:
            raise InvalidArgument(f"invalid option {name[:80]!r}: network driver {driver} does not have it")
        member, reader = known[name]
        found[member] = reader(name, text)
    return found


def bridge(options: Mapping[str, str]) -> BridgeOptions:
    """:raises InvalidArgument: an unknown option, or an invalid value."""
    return BridgeOptions(**read("bridge", options, _BRIDGE_OPTIONS))


def macvlan(options: Mapping[str, str]) -> MacvlanOptions:
    """:raises InvalidArgument: as :func:`bridge`."""
    return MacvlanOptions(**read("macvlan", options, _MACVLAN_OPTIONS))


def ipvlan(options: Mapping[str, str]) -> IpvlanOptions:
    """:raises InvalidArgument: as :func:`bridge`."""
    return IpvlanOptions(**read("ipvlan", options, _IPVLAN_OPTIONS))


def overlay(options: Mapping[str, str]) -> OverlayOptions:
    """:raises InvalidArgument: as :func:`bridge`."""
    return OverlayOptions(**read("overlay", options, _OVERLAY_OPTIONS))


def common(options: Mapping[str, str]) -> Common:
    """Only the options that every driver has; the others are left to the driver."""
    members = {f.name for f in fields(Common)}
    return Common(
        **{
            member: reader(n, options[n])
            for n, (member, reader) in COMMON.items()
            if n in options and member in members
        }
    )
