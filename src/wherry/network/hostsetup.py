"""What the host needs for networks, and what a killed daemon left on it: forwarding, leftovers, routes that
collide."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from wherry.errors import Internal
from wherry.linux import netns, sysctl
from wherry.linux.netlink import NetlinkSocket
from wherry.linux.routewatch import RouteWatch
from wherry.linux.rtnetlink import RTPROT_RA, Route, delete_link, links, routes
from wherry.network.catalog import Catalog
from wherry.network.types import Instance, NetworkConfig
from wherry.state.networks import EndpointRow

_log = logging.getLogger(__name__)
Lines = list[str]


class HostSetup:
    """The host's side of one instance."""

    def __init__(self, instance: Instance, config: NetworkConfig, catalog: Catalog) -> None:
        self._instance = instance
        self._config = config
        self._catalog = catalog
        self._watch: RouteWatch | None = None

    # -- forwarding ------------------------------------------------------------------------------------

    def enable_forwarding(self, *, ipv6: bool) -> Lines:
        """:raises Internal: the host refuses."""
        lines = self._forward("IPv4", ("net", "ipv4", "ip_forward"))
        if ipv6:
            key = ("net", "ipv6", "conf", "all", "forwarding")
            try:
                off = sysctl.read(*key) == "0"
            except FileNotFoundError:
                return [*lines, "this kernel has no IPv6"]
            if off and self._config.ip_forward:
                lines += _keep_advertised_routes()
            lines += self._forward("IPv6", key)
        return lines

    def _forward(self, family: str, key: tuple[str, ...]) -> Lines:
        try:
            before = sysctl.read(*key)
            if before != "0":
                return []
            if not self._config.ip_forward:
                return [f"{family} forwarding is disabled: containers reach this host only"]
            sysctl.write("1", *key)
        except OSError as e:
            raise Internal(f"cannot enable {family} forwarding: {e.strerror or e}") from e
        return [f"set {'.'.join(key)} to 1 (it was {before}): this host forwards between its networks"]

    # -- leftovers -------------------------------------------------------------------------------------

    def networks_in_use(self, rows: Iterable[EndpointRow]) -> set[str]:
        """Ids of networks with endpoints whose interfaces are there."""
        with NetlinkSocket() as sock:
            present = {link.alias for link in links(sock)}
        return {r.network_id for r in rows if self._instance.alias(r.container_id) in present}

    def remove_strange_bridges(self) -> Lines:
        """Remove our bridges whose networks have no row: a removal that was cut short."""
        lines: Lines = []
        prefix = self._instance.alias("network:")
        with NetlinkSocket() as sock:
            for link in links(sock):
                if (
                    link.alias.startswith(prefix)
                    and link.alias.removeprefix(prefix) not in self._catalog.all()
                ):
                    sock.transact(delete_link(link.index))
                    lines.append(f"removed an interface without a network: {link.name}")
        return lines

    def sweep(self, directory: Path, known: set[str]) -> Lines:
        """Remove interfaces and pins of ours that belong to none of the containers ``known``."""
        lines: Lines = []
        for entry in sorted(directory.iterdir()):
            if entry.name not in known:
                netns.unpin(entry)
                lines.append(f"removed a network namespace without a container: {entry.name[:12]}")
        prefix = self._instance.alias_prefix
        try:
            with NetlinkSocket() as sock:
                for link in links(sock):
                    owner = link.alias.removeprefix(prefix)
                    if link.kind == "veth" and link.alias.startswith(prefix) and owner not in known:
                        sock.transact(delete_link(link.index))
                        lines.append(f"removed an interface without a container: {link.name}")
        except OSError as e:
            raise Internal(f"cannot remove leftover interfaces: {e.strerror or e}") from e
        return lines

    # -- routes ----------------------------------------------------------------------------------------

    def watch_routes(self) -> None:
        """Say so when a route appears that leads elsewhere what one of our networks has."""
        if self._watch is None:
            self._watch = RouteWatch(self._route_added)

    def _route_added(self, route: Route) -> None:
        """Runs on the watch's thread."""
        if not route.destination.prefixlen:
            return
        for network in self._catalog.all().values():
            for subnet in network.subnets:
                mine = ip_network(subnet.cidr)
                if mine.version != route.destination.version or not mine.overlaps(route.destination):
                    continue
                name = _interface(route.oif)
                if name and not self._is_ours(name):
                    _log.warning(
                        "a new route to %s by %s collides with subnet %s of network %s: some of its "
                        "addresses are out of reach now",
                        route.destination, name, mine, network.name,
                    )  # fmt: skip

    def _is_ours(self, name: str) -> bool:
        with suppress(OSError):
            alias = (Path("/sys/class/net") / name / "ifalias").read_text()
            return alias.startswith(self._instance.alias_prefix)
        return any(name == n.bridge_name for n in self._catalog.all().values())

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _interface(index: int) -> str:
    with NetlinkSocket() as sock:
        return next((link.name for link in links(sock) if link.index == index), "")


def _keep_advertised_routes() -> Lines:
    """A host that forwards IPv6 stops to listen to routers, and loses the routes it learnt from them when
    they expire, unless it is told to go on (Documentation/networking/ip-sysctl.rst, ``accept_ra`` 2).

    It is told so on interfaces that have learnt some, and on those of hardware, which may yet.
    """
    lines: Lines = []
    with NetlinkSocket() as sock:
        learnt = {route.oif for route in routes(sock, socket.AF_INET6) if route.protocol == RTPROT_RA}
        listening = [link.name for link in links(sock) if link.index in learnt or not link.kind]
    for name in listening:
        key = ("net", "ipv6", "conf", name, "accept_ra")
        with suppress(OSError):
            if name != "lo" and sysctl.read(*key) == "1":
                sysctl.write("2", *key)
                lines.append(f"set net.ipv6.conf.{name}.accept_ra to 2: routes learnt from routers stay")
    return lines
