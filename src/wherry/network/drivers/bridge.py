"""``bridge``: a Linux bridge on the host and a veth pair for every endpoint; the host is the gateway."""

from __future__ import annotations

import dataclasses
import errno
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec

from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.linux import rtnetlink as rt
from wherry.linux import sysctl
from wherry.linux.netlink import NetlinkError, NetlinkSocket
from wherry.network import options
from wherry.network.drivers import Namespace, SingleHostDriver, Traits
from wherry.network.ipam import mac_for
from wherry.network.ownership import whose
from wherry.network.ruleset import Bridged, FamilyRules
from wherry.network.types import Endpoint, Instance, IPNetwork, Network

DEFAULT_MTU = 1500
_PORTS_MAX = 1023
"""The kernel's limit of ports per bridge (net/bridge/br_private.h, ``BR_MAX_PORTS``)."""
_LINK_LOCAL = IPv6Interface("fe80::1/64")
Interface = IPv4Interface | IPv6Interface


class BridgeDriver(SingleHostDriver):
    name = "bridge"
    traits = Traits(publishes=True)

    def __init__(self, instance: Instance, mtu: int = DEFAULT_MTU, theirs: str = "") -> None:
        """:param theirs: an existing bridge of the host that is the default one (``--bridge``)."""
        self._instance = instance
        self._theirs = theirs
        self._own_names = (instance.bridge, instance.builds_bridge)
        self._mtu = mtu

    def options(self, network: Network) -> options.BridgeOptions:
        """:raises InvalidArgument: unknown options."""
        return options.bridge(network.options)

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        opts = self.options(network)
        for family in (4, 6):
            if opts.mode(family) == "isolated" and not network.internal:
                raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
            if len(network.subnets_of(6 if family == 6 else 4)) > 1:
                raise InvalidArgument(f"bridge networks have one IPv{family} subnet")
        name = opts.name or _made_as(network)
        if any(other.bridge_name == name for other in others):
            raise Conflict(f"bridge interface {name} is in use by another network")
        with NetlinkSocket() as sock:
            if opts.name and rt.link(sock, name) is not None:
                raise Conflict(f"interface {name} exists on this host and belongs to another")
        return msgspec.structs.replace(network, bridge_name=name)

    def start(self, network: Network) -> None:
        try:
            with NetlinkSocket() as sock:
                if self._is_theirs(network):
                    self._check_theirs(sock, network)
                    return
                bridge = self._ensure_link(sock, network)
                # set before it is up: a container must not be able to become the host's router
                # (CVE-2020-13401)
                for key, value in (("accept_ra", "0"), ("disable_ipv6", str(int(not network.enable_ipv6)))):
                    with suppress(FileNotFoundError):  # a kernel without IPv6
                        sysctl.write(value, "net", "ipv6", "conf", network.bridge_name, key)
                self._ensure_addresses(sock, network, bridge.index)
                sock.transact(rt.set_link(bridge.index, up=True, mtu=self.mtu(network)))
            # lets packets from the host's 127.0.0.1 leave by this interface; the firewall blocks the way back
            sysctl.write("1", "net", "ipv4", "conf", network.bridge_name, "route_localnet")
        except OSError as e:
            raise Internal(f"cannot set up network {network.name}: {e.strerror or e}") from e

    def _is_theirs(self, network: Network) -> bool:
        return network.name == "bridge" and network.bridge_name == self._theirs != ""

    def _check_theirs(self, sock: NetlinkSocket, network: Network) -> None:
        """It is used as it is. Only the setting is turned on that published ports of 127.0.0.1 need."""
        link = rt.link(sock, network.bridge_name)
        if link is None or link.kind != "bridge":
            raise Internal(
                f"cannot set up network {network.name}: the host has no bridge {network.bridge_name}"
            )
        sysctl.write("1", "net", "ipv4", "conf", network.bridge_name, "route_localnet")

    def _ensure_link(self, sock: NetlinkSocket, network: Network) -> rt.Link:
        name, alias = network.bridge_name, self._instance.alias(f"network:{network.id}")
        link = rt.link(sock, name)
        if link is not None:
            unmarked = link.alias == "" and name in (*self._own_names, _made_as(network))
            if link.kind != "bridge" or not (link.alias == alias or unmarked):
                raise Internal(
                    f"cannot set up network {network.name}: interface {name} belongs to {whose(link)}"
                )
            if _global(link.index) != set(self._gateways(network)):
                ports = [other for other in rt.links(sock) if other.master == link.index]
                if not ports:
                    sock.transact(rt.delete_link(link.index))
                    link = None
        if link is None:
            link = self._make_link(sock, network, alias)
        if link.alias != alias:
            sock.transact(rt.set_link(link.index, alias=alias, link_local=False))
        return link

    def _make_link(self, sock: NetlinkSocket, network: Network, alias: str) -> rt.Link:
        """Make the bridge, with its mark. If a user chose its name, it has a temporary name until it is
        marked: so an unmarked bridge of that name is never mistaken for ours."""
        seed = next((str(g.ip) for g in self._gateways(network)), "") or f"169.254.{_pair(network.id)}"
        name = network.bridge_name if network.bridge_name in self._own_names else _made_as(network)
        if name != network.bridge_name and (half_made := rt.link(sock, name)) is not None:
            sock.transact(rt.delete_link(half_made.index))
        sock.transact(rt.create_bridge(name, mac=mac_for(seed), mtu=self.mtu(network)))
        link = rt.link(sock, name)
        if link is None:
            raise Internal(f"cannot set up network {network.name}: interface {name} went away")
        sock.transact(rt.set_link(link.index, alias=alias, link_local=False))
        if name != network.bridge_name:
            sock.transact(rt.rename_link(link.index, network.bridge_name))
        return dataclasses.replace(link, name=network.bridge_name, alias=alias)

    def _ensure_addresses(self, sock: NetlinkSocket, network: Network, index: int) -> None:
        wanted: list[Interface] = list(self._gateways(network))
        if network.enable_ipv6:
            wanted.append(_LINK_LOCAL)
        present = rt.addresses_on(index)
        for address in wanted:
            if address not in present:
                sock.transact(rt.add_address(index, address))

    def mtu(self, network: Network) -> int:
        """The MTU of the network's interfaces, in bytes."""
        return options.common(network.options).mtu or self._mtu

    def stop(self, network: Network) -> None:
        try:
            with NetlinkSocket() as sock:
                link = rt.link(sock, network.bridge_name)
                if link is not None and link.alias.startswith(self._instance.alias_prefix):
                    sock.transact(rt.delete_link(link.index))
        except NetlinkError as e:
            if e.errno != errno.ENODEV:
                raise Internal(f"cannot remove network {network.name}: {e.strerror or e}") from e

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        try:
            self._attach_host(network, endpoint, namespace)
        except OSError as e:
            reason = e.strerror or str(e)
            if e.errno == errno.EXFULL:
                reason = f"bridge {network.bridge_name} is full ({_PORTS_MAX} containers)"
            raise Internal(f"cannot attach to network {network.name}: {reason}") from e

    def _attach_host(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        veth = rt.Veth(
            name=endpoint.host_ifname,
            peer_name=endpoint.ifname,
            peer_netns=namespace.fd,
            peer_mac=endpoint.mac,
            mtu=self.mtu(network),
        )
        with NetlinkSocket() as sock:
            bridge = rt.index(sock, network.bridge_name)
            if bridge is None:
                raise OSError(errno.ENODEV, f"interface {network.bridge_name} does not exist")
            sock.transact(
                rt.create_veth(veth),
                rt.set_link(
                    endpoint.host_ifname,
                    master=bridge,
                    alias=self._instance.alias(endpoint.container_id),
                    link_local=False,
                    up=True,
                ),
                # br_netfilter, which other engines load, translates addresses during bridging: then a
                # container's packet to its own published port leaves by the port it came in
                rt.set_bridge_port(
                    endpoint.host_ifname, hairpin=True, isolated=not self.options(network).icc
                ),
            )

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        """The interface joins the bridge again if the bridge was made anew meanwhile."""
        try:
            with NetlinkSocket() as sock:
                link, bridge = rt.link(sock, endpoint.host_ifname), rt.link(sock, network.bridge_name)
                if link is None or link.alias != self._instance.alias(endpoint.container_id):
                    return False
                if bridge is not None and link.master != bridge.index:
                    sock.transact(
                        rt.set_link(link.index, master=bridge.index, up=True, link_local=False),
                        rt.set_bridge_port(link.index, hairpin=True, isolated=not self.options(network).icc),
                    )
        except OSError as e:
            raise Internal(f"cannot attach to network {network.name}: {e.strerror or e}") from e
        return True

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """The kernel needs about 30 ms for this;
        if the pair is left to its namespace's end, nobody waits for that."""
        try:
            with NetlinkSocket() as sock:
                link = rt.link(sock, endpoint.host_ifname)
                if link is not None and link.alias == self._instance.alias(endpoint.container_id):
                    sock.transact(rt.delete_link(link.index))
        except NetlinkError as e:
            if e.errno != errno.ENODEV:
                raise Internal(f"cannot detach from network {network.name}: {e.strerror or e}") from e

    def host_ifname(self, endpoint: Endpoint) -> str:
        return f"veth{endpoint.id[:11]}"  # of the greatest length, because other programs make such names too

    def bridged(self, network: Network) -> Bridged | None:
        """Builds may reach the containers of the default bridge, because with Docker they run on it; but not
        if these containers may not even reach each other."""
        opts = self.options(network)
        open_to_builds = network.name == "bridge" and opts.icc
        return Bridged(
            network.bridge_name,
            tuple(
                FamilyRules(
                    s.cidr,
                    opts.mode(s.family),
                    opts.masquerade,
                    opts.snat4 if s.family == 4 else opts.snat6,
                )
                for s in network.subnets
            ),
            internal=network.internal,
            icc=opts.icc,
            trusted=(*opts.trusted, self._instance.builds_bridge) if open_to_builds else opts.trusted,
            binding=opts.host_binding,
        )

    def _gateways(self, network: Network) -> list[Interface]:
        """The bridge's own addresses."""
        opts = self.options(network)
        found: list[Interface] = []
        for subnet in network.subnets:
            hidden = opts.mode(subnet.family) == "isolated" or (opts.inhibit_ipv4 and subnet.family == 4)
            if subnet.gateway and not hidden:
                found.append(ip_interface(f"{subnet.gateway}/{subnet.prefix_len}"))
        return found


def _made_as(network: Network) -> str:
    """An interface name that is unique to the network."""
    return f"br-{network.id[:12]}"


def _global(index: int) -> set[Interface]:
    return {a for a in rt.addresses_on(index) if not (a.version == 6 and a.ip.is_link_local)}


def _pair(network_id: str) -> str:
    return ".".join(str(b) for b in bytes.fromhex(network_id[:4]))


def occupied(besides: Collection[int] = ()) -> list[tuple[IPNetwork, int]]:
    """The subnets that this host has addresses in or routes to, including other engines' bridges, each with
    the index of its interface.

    :param besides: indexes of interfaces to leave out.
    """
    found: list[tuple[IPNetwork, int]] = []
    with NetlinkSocket() as sock:
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in rt.routes(sock, family):
                local = route.destination.is_link_local or route.destination.is_multicast
                if route.destination.prefixlen and not local and route.oif not in besides:
                    found.append((route.destination, route.oif))
        for index, address in rt.addresses(sock):
            if not address.ip.is_link_local and index not in besides:
                found.append((address.network, index))
    return found


def used_subnets() -> set[IPNetwork]:
    """The subnets that this host has addresses in or routes to."""
    return {subnet for subnet, _ in occupied()}
