"""The host's settings for networks: forwarding, and checks for colliding routes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from wherry.errors import Internal
from wherry.linux import sysctl
from wherry.linux.netlink import NetlinkSocket
from wherry.linux.routewatch import RouteWatch
from wherry.linux.rtnetlink import RTPROT_RA, Route, links, routes
from wherry.network.catalog import Catalog
from wherry.network.types import Instance, IPNetwork, Network, NetworkConfig

_log = logging.getLogger(__name__)
Lines = list[str]


class HostSetup:
    """The host settings of one daemon instance."""

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

    # -- routes ----------------------------------------------------------------------------------------

    def watch_routes(self) -> None:
        """Warn when a route appears that leads packets for one of our subnets elsewhere."""
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


def collisions(networks: Iterable[Network], others: Sequence[tuple[IPNetwork, int]]) -> Lines:
    """One line for each of our subnets that the host also reaches by another interface.

    :param others: subnets and the indexes of interfaces that lead there.
    """
    lines = []
    for network in networks:
        for subnet in network.subnets:
            mine = subnet.network
            rival = next((o for o in others if o[0].version == mine.version and o[0].overlaps(mine)), None)
            if rival is not None:
                by = _interface(rival[1]) or "another route"
                lines.append(
                    f"subnet {mine} of network {network.name} collides with {rival[0]}, which {by} leads to: "
                    "some of its addresses are out of reach"
                )
    return lines


def _interface(index: int) -> str:
    with NetlinkSocket() as sock:
        return next((link.name for link in links(sock) if link.index == index), "")


def _keep_advertised_routes() -> Lines:
    """A host that forwards IPv6 ignores router advertisements, and loses the routes learnt from them when
    they expire, unless ``accept_ra`` is 2 (Documentation/networking/ip-sysctl.rst).

    It is set on interfaces that have learnt routes, and on hardware interfaces, which may still do so.
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
