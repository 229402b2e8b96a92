"""The types of networking, all frozen. Addresses are text in their canonical form, ``""`` for none.

Times are nanoseconds since the epoch, MTUs bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

import msgspec

from wherry.errors import Internal, InvalidArgument

Proto = Literal["tcp", "udp", "sctp"]
PROTOCOLS: tuple[Proto, ...] = ("tcp", "udp", "sctp")

DEFAULT_INSTANCE = "default"
DHCP = "dhcp"
"""The IPAM driver that uses the network's own DHCP server."""
LOOPBACK6 = "::1"
HOST = "host"
PREDEFINED = ("bridge", HOST, "none")
NO_BRIDGE = "none"
"""The value of ``--bridge`` for a daemon without a default bridge."""
BUILDS = "(builds)"
"""The default network of builds. Users cannot request this name, and no list shows it."""
ROUTER_NAMES = {4: "DefaultGatewayIPv4", 6: "DefaultGatewayIPv6"}
"""An auxiliary address of a bridge network with one of these names (Docker's) is the containers' router."""
_INSTANCE = re.compile(r"[0-9a-f]{8}")

BRIDGE_POOLS: tuple[tuple[str, int], ...] = tuple((f"172.{n}.0.0/16", 16) for n in range(17, 32))
"""The pools for the default bridge's subnet; the order and the values are Docker's."""

DEFAULT_ADDRESS_POOLS: tuple[tuple[str, int], ...] = (
    *((f"172.{n}.0.0/16", 24) for n in range(18, 32)),
    ("192.168.0.0/16", 24),
)
"""Base and prefix length of the subnets for networks that request none. They are Docker's pools, but cut into
smaller subnets: Docker's 31 networks are few, and 65534 addresses for each are many.
Pools that other engines use come last."""

BUILD_POOLS: tuple[tuple[str, int], ...] = tuple((base, 22) for base, _ in DEFAULT_ADDRESS_POOLS)
"""As many addresses as a bridge has ports."""

IPNetwork = IPv4Network | IPv6Network
Family = Literal[4, 6]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Subnet(_Record, frozen=True, kw_only=True):
    """``cidr``: the subnet; ``gateway``: an address in it; ``ip_range``: the part to assign addresses from
    (``""``: all of it); ``aux``: addresses that are never assigned, by name."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def router(self) -> str:
        """The containers' default router; :attr:`gateway` is the host's own address."""
        return self.aux.get(ROUTER_NAMES[self.family], self.gateway)

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
    """``bridge_name``: the host's interface, ``""`` for drivers without one. ``subnets``: of both families. A
    ``config_only`` network holds settings for others, which refer to it in ``config_from``. ``pools``: an
    IPAM plugin's ids of the subnets. ``has_names``: containers on it resolve each other's names; on the
    default networks they never could."""

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
    ipam_options: dict[str, str] | None = None
    config_only: bool = False
    config_from: str = ""
    pools: dict[str, str] = msgspec.field(default_factory=dict)
    has_names: bool = True

    def subnets_of(self, family: Family) -> tuple[Subnet, ...]:
        return tuple(s for s in self.subnets if s.family == family)

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def hidden(self) -> bool:
        """Whether it is invisible to users, who cannot put containers on it."""
        return self.name == BUILDS


class PortMapping(_Record, frozen=True, kw_only=True):
    """A requested publication. ``host_port`` None: any free port; with ``host_port_end``: any free port of
    the range, both ends included. ``host_ip`` ``""``: the daemon's default address, and also every IPv6
    address if the container has one. ``sources``: the subnets that may connect; empty: all."""

    container_port: int
    proto: Proto = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None
    sources: tuple[str, ...] = ()


class PublishedPort(_Record, frozen=True, kw_only=True):
    """An active publication;
    ``host_ip`` 0.0.0.0 (``::``) stands for every IPv4 (IPv6) address of the host."""

    container_port: int
    proto: Proto
    host_ip: str
    host_port: int
    sources: tuple[str, ...] = ()


class Endpoint(_Record, frozen=True, kw_only=True):
    """A container's connection to one network. ``ifname`` is the interface inside, ``host_ifname`` the veth's
    other end.

    ``dns_names``: the names that others on the network can resolve; ``links``: its own names for others, by
    alias. ``sysctls``: of the interface, by the path below ``/proc/sys/net`` without the interface's name
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
        """Its addresses of both families, if it has them."""
        return tuple(ip for ip in (self.ip, self.ip6) if ip)


class Resolving(_Record, frozen=True, kw_only=True):
    """Where a container's queries for other names go.

    ``servers`` in the order of preference; ``inside``: they were chosen for this container, and are asked
    from its own network, not from the host's.
    """

    servers: tuple[str, ...] = ()
    inside: bool = False


class Owner(_Record, frozen=True, kw_only=True):
    """The facts about a sandbox's container that its networks need."""

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
    """The cluster in which daemons share overlay networks. ``store``: ``etcd://host:port[,…]``;
    ``advertise``: this host's address for the others; ``ttl``: the seconds of silence after which a host is
    considered gone; ``rekey``:
    the seconds after which it makes a new key for encrypted networks; files are PEM."""

    store: str
    advertise: str
    ttl: int = 30
    rekey: int = 12 * 3600
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class NetworkConfig:
    """The administrator's settings (keys of daemon.json in brackets).

    :ivar bip: address and prefix of the default bridge (``bip``). :ivar fixed_cidr: the part of its subnet
        to assign addresses from. :ivar default_address_pools: base and prefix length of the subnets to cut,
        of both families; empty: :data:`BRIDGE_POOLS` and :data:`DEFAULT_ADDRESS_POOLS`.
    :ivar bridge: an existing interface of the host to use as the default bridge (``bridge``), or
        :data:`NO_BRIDGE`; empty: our own bridge. :ivar ipv6: whether it has IPv6; ``bip6`` and
        ``fixed_cidr6`` are as those of IPv4. :ivar gateway, gateway6: its containers' router, if that is not
        the bridge itself.
    :ivar network_options: defaults by driver, for options that a network does not set
        (``default-network-opts``).
    :ivar icc: whether containers of the default bridge can reach each other. :ivar host_ip: the address for
        published ports without an address (``ip``). :ivar obey_host_firewall: published ports answer only
        callers that the host's own input rules accept. :ivar host_gateway_ip: the address for
        ``host-gateway``; empty: that of the container's own gateway.
    """

    bip: str = ""
    fixed_cidr: str = ""
    bridge: str = ""
    ipv6: bool = False
    bip6: str = ""
    fixed_cidr6: str = ""
    gateway: str = ""
    gateway6: str = ""
    network_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
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
        """:raises InvalidArgument: a value that is not possible."""
        try:
            IPv4Address(self.host_ip)
        except ValueError as e:
            raise InvalidArgument(f"invalid address to publish ports on: {e}") from e
        if not 68 <= self.mtu <= 65535:
            raise InvalidArgument(f"invalid mtu {self.mtu}: it must be 68 to 65535 bytes")


@dataclass(frozen=True)
class Instance:
    """The names that one daemon uses on the host, so that several daemons can run side by side.

    :param key: ``default``, or eight hex digits that are the same at every start with the same root.
    :param root: that root, for people.
    """

    key: str
    root: str = ""

    def __post_init__(self) -> None:
        if self.key != DEFAULT_INSTANCE and not _INSTANCE.fullmatch(self.key):
            raise Internal(f"cannot name networks: instance {self.key!r} is not eight hex digits")

    @property
    def bridge(self) -> str:
        return "wherry0" if self.key == DEFAULT_INSTANCE else f"wh-{self.key}"

    @property
    def builds_bridge(self) -> str:
        return "wherry-builds" if self.key == DEFAULT_INSTANCE else f"whb-{self.key}"

    @property
    def table(self) -> str:
        return "wherry" if self.key == DEFAULT_INSTANCE else f"wherry_{self.key}"

    @property
    def alias_prefix(self) -> str:
        """The prefix of the alias of every interface of this instance (ip-link(8), ``alias``)."""
        return f"wherry:{self.key}:"

    def alias(self, container_id: str) -> str:
        return self.alias_prefix + container_id
