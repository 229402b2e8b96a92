"""The nouns of networking, all frozen. Addresses are text in their canonical form, ``""`` for none.

Times are nanoseconds since the epoch, MTUs bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

import msgspec

from wherry.errors import Internal, InvalidArgument

Proto = Literal["tcp", "udp", "sctp"]
PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp", "sctp")

DEFAULT_INSTANCE = "default"
DHCP = "dhcp"
"""The IPAM driver that asks the network's own DHCP server."""
PREDEFINED = ("bridge", "host", "none")
_INSTANCE = re.compile(r"[0-9a-f]{8}")

BRIDGE_POOLS: tuple[tuple[str, int], ...] = tuple((f"172.{n}.0.0/16", 16) for n in range(17, 32))
"""Where the default bridge's subnet is cut from; the order and the values are Docker's."""

DEFAULT_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{n}.0.0/16", 24) for n in range(18, 32)),
    ("192.168.0.0/16", 24),
)
"""Base and prefix length of the subnets cut from it for networks that name none: Docker's pools in smaller
pieces, as 31 networks are few and 65534 addresses for each are many. What other engines use comes last."""

IPNetwork = IPv4Network | IPv6Network
Family = Literal[4, 6]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Subnet(_Record, frozen=True, kw_only=True):
    """``cidr`` is the subnet, ``gateway`` an address in it, ``ip_range`` the part to hand out from
    (``""``: all of it), ``aux`` addresses that are never handed out, by name."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def network(self) -> IPNetwork:
        return ip_network(self.cidr)

    @property
    def family(self) -> Family:
        return 6 if ":" in self.cidr else 4

    @property
    def prefix_len(self) -> int:
        return int(self.cidr.rpartition("/")[2])


class Network(_Record, frozen=True, kw_only=True):
    """``bridge_name`` is the host's interface, ``""`` for drivers without one. ``subnets`` are of both
    families. A ``config_only`` network holds settings for others, which name it in ``config_from``. ``pools``
    are the ids by which an IPAM plugin knows the subnets."""

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
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = msgspec.field(default_factory=dict)
    config_only: bool = False
    config_from: str = ""
    pools: dict[str, str] = msgspec.field(default_factory=dict)

    def subnets_of(self, family: Family) -> tuple[Subnet, ...]:
        return tuple(s for s in self.subnets if s.family == family)

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def has_names(self) -> bool:
        """Whether containers on it find each other by name; on the default networks they never did."""
        return self.driver not in ("host", "null") and not self.predefined


class PortMapping(_Record, frozen=True, kw_only=True):
    """A publication as asked for. ``host_port`` None is any free port; with ``host_port_end`` it is any
    free one of the range, both ends included. ``host_ip`` ``""`` is the daemon's default address, and every
    IPv6 address besides where the container has one. ``sources`` are the subnets that may connect, none for
    all."""

    container_port: int
    proto: Proto = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None
    sources: tuple[str, ...] = ()


class PublishedPort(_Record, frozen=True, kw_only=True):
    """A publication as bound; ``host_ip`` 0.0.0.0 (``::``) is every IPv4 (IPv6) address of the host."""

    container_port: int
    proto: Proto
    host_ip: str
    host_port: int
    sources: tuple[str, ...] = ()


class Endpoint(_Record, frozen=True, kw_only=True):
    """A container's place on one network. ``ifname`` is inside, ``host_ifname`` the veth's other end.

    ``dns_names`` are what others on the network call it; ``links`` names of its own for others, by alias.
    ``sysctls`` are of the interface, by their path below ``/proc/sys/net`` without the interface's name
    (``ipv4.conf.log_martians``).
    """

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
    dns_names: tuple[str, ...] = ()
    links: dict[str, str] = msgspec.field(default_factory=dict)
    link_local: tuple[str, ...] = ()
    gw_priority: int = 0
    sysctls: dict[str, str] = msgspec.field(default_factory=dict)

    def ip_of(self, family: Family) -> str:
        return self.ip if family == 4 else self.ip6

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of both families, as far as it has them."""
        return tuple(ip for ip in (self.ip, self.ip6) if ip)


class Resolving(_Record, frozen=True, kw_only=True):
    """Where a container's questions for other names go.

    ``servers`` in the order of preference; ``inside`` says that they were chosen for this container and are
    asked from its own network rather than from the host's.
    """

    servers: tuple[str, ...] = ()
    inside: bool = False


class Owner(_Record, frozen=True, kw_only=True):
    """The container of a sandbox, as far as its networks need to know it."""

    name: str = ""
    hostname: str = ""
    resolving: Resolving = Resolving()


@dataclass(frozen=True)
class Sandbox:
    """A network namespace with its endpoints; ``path`` is its pin below ``<run>/netns``."""

    container_id: str
    path: Path
    endpoints: tuple[Endpoint, ...]
    ports: tuple[PublishedPort, ...]


@dataclass(frozen=True)
class ClusterConfig:
    """Where daemons tell each other of overlay networks. ``store`` is ``etcd://host:port[,…]``, ``advertise``
    this host's address for the others, ``ttl`` the seconds of silence after which a host is forgotten,
    ``rekey`` those after which it takes a new key for encrypted networks; files are PEM."""

    store: str
    advertise: str
    ttl: int = 30
    rekey: int = 12 * 3600
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class NetworkConfig:
    """What an administrator may say (keys of daemon.json in brackets).

    :ivar bip: address and prefix of the default bridge (``bip``). :ivar fixed_cidr: the part of its subnet
        to hand out from. :ivar default_address_pools: base and prefix length of the subnets to cut, of both
        families; empty for :data:`BRIDGE_POOLS` and :data:`DEFAULT_ADDRESS_POOLS`.
    :ivar icc: whether containers of the default bridge reach each other. :ivar host_ip: where ports are
        published that name no address (``ip``). :ivar obey_host_firewall: published ports answer only whom
        the host's own input rules let in. :ivar host_gateway_ip: what ``host-gateway`` stands for; empty for
        the address of the container's own gateway.
    """

    bip: str = ""
    fixed_cidr: str = ""
    default_address_pools: tuple[tuple[str, int], ...] = ()
    mtu: int = 1500
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    host_ip: str = "0.0.0.0"
    obey_host_firewall: bool = False
    host_gateway_ip: str = ""
    cluster: ClusterConfig | None = None

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
