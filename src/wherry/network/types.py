"""The nouns of networking, all frozen. Addresses are text in their canonical form, ``""`` for none.

Times are nanoseconds since the epoch, MTUs bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

import msgspec

from wherry.errors import Internal, InvalidArgument

Proto = Literal["tcp", "udp", "sctp"]
PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp", "sctp")

DEFAULT_INSTANCE = "default"
_INSTANCE = re.compile(r"[0-9a-f]{8}")

DEFAULT_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{n}.0.0/16", 16) for n in range(17, 32)),
    ("192.168.0.0/16", 20),
)
"""Base and prefix length of the subnets cut from it; the order and the values are Docker's."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Subnet(_Record, frozen=True, kw_only=True):
    """``cidr`` is the subnet, ``gateway`` an address in it, ``ip_range`` the part to hand out from
    (``""``: all of it), ``aux`` addresses that are never handed out, by name."""

    cidr: str
    gateway: str
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)


class Network(_Record, frozen=True, kw_only=True):
    """``bridge_name`` is the host's interface, ``""`` for drivers without one."""

    id: str
    name: str
    driver: str
    created: int
    subnets: tuple[Subnet, ...] = ()
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    scope: str = "local"
    bridge_name: str = ""


class PortMapping(_Record, frozen=True, kw_only=True):
    """A publication as asked for. ``host_port`` None is any free port; with ``host_port_end`` it is any
    free one of the range, both ends included. ``host_ip`` ``""`` is the daemon's default address."""

    container_port: int
    proto: Proto = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class PublishedPort(_Record, frozen=True, kw_only=True):
    """A publication as bound; ``host_ip`` 0.0.0.0 is every address of the host."""

    container_port: int
    proto: Proto
    host_ip: str
    host_port: int


class Endpoint(_Record, frozen=True, kw_only=True):
    """A container's place on one network. ``ifname`` is inside, ``host_ifname`` the veth's other end."""

    id: str
    network_id: str
    network_name: str
    container_id: str
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    ifname: str = ""
    host_ifname: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sandbox:
    """A network namespace with its endpoints; ``path`` is its pin below ``<run>/netns``."""

    container_id: str
    path: Path
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PublishedPort, ...]


@dataclass(frozen=True)
class NetworkConfig:
    """What an administrator may say (keys of daemon.json in brackets).

    :ivar bip: address and prefix of the default bridge (``bip``). :ivar fixed_cidr: the part of its subnet
        to hand out from. :ivar default_address_pools: base and prefix length of the subnets to cut.
    :ivar icc: whether containers of the default bridge reach each other. :ivar host_ip: where ports are
        published that name no address (``ip``).
    """

    bip: str = ""
    fixed_cidr: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = DEFAULT_ADDRESS_POOLS
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    host_ip: str = "0.0.0.0"

    def __post_init__(self) -> None:
        """:raises InvalidArgument: a value no network can have."""
        try:
            IPv4Address(self.host_ip)
        except ValueError as e:
            raise InvalidArgument(f"invalid address to publish ports on: {e}") from e
        if not 68 <= self.mtu <= 65535:
            raise InvalidArgument(f"invalid mtu {self.mtu}: it must be 68 to 65535 bytes")


@dataclass(frozen=True)
class Instance:
    """The names one daemon uses in the host's one namespace, so that several can live side by side.

    :param key: ``default``, or eight hex digits that are the same at every start of the same root.
    """

    key: str

    def __post_init__(self) -> None:
        if self.key != DEFAULT_INSTANCE and not _INSTANCE.fullmatch(self.key):
            raise Internal(f"cannot name networks: instance {self.key!r} is not eight hex digits")

    @property
    def bridge(self) -> str:
        return "wherry0" if self.key == DEFAULT_INSTANCE else f"wh-{self.key}"

    @property
    def table(self) -> str:
        return "wherry" if self.key == DEFAULT_INSTANCE else f"wherry_{self.key}"

    @property
    def alias_prefix(self) -> str:
        """What the alias of every interface of this instance begins with (ip-link(8), ``alias``)."""
        return f"wherry:{self.key}:"

    def alias(self, container_id: str) -> str:
        return self.alias_prefix + container_id
