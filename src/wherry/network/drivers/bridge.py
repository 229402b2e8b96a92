"""``bridge``: a Linux bridge on the host, a veth pair for every endpoint, the host as the gateway."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec

from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.linux import rtnetlink as rt
from wherry.linux import sysctl
from wherry.linux.netlink import NetlinkError, NetlinkSocket
from wherry.network import options
from wherry.network.drivers import Local, Namespace
from wherry.network.ipam import mac_for
from wherry.network.options import ICC_OPTION as ICC_OPTION
from wherry.network.options import MTU_OPTION as MTU_OPTION
from wherry.network.types import Endpoint, Instance, IPNetwork, Network

DEFAULT_MTU = 1500
_PORTS_MAX = 1023
"""The kernel's limit of one bridge (net/bridge/br_private.h, ``BR_MAX_PORTS``)."""
_LINK_LOCAL = IPv6Interface("fe80::1/64")
Interface = IPv4Interface | IPv6Interface


class BridgeDriver(Local):
    name = "bridge"
    publishes = True

    def __init__(self, instance: Instance, mtu: int = DEFAULT_MTU) -> None:
        self._instance = instance
        self._mtu = mtu

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        opts = options.bridge(network.options)
        for family in (4, 6):
            if opts.mode(family) == "isolated" and not network.internal:
                raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
            if len(network.subnets_of(6 if family == 6 else 4)) > 1:
                raise InvalidArgument(f"bridge networks have one IPv{family} subnet")
        name = opts.name or f"br-{network.id[:12]}"
        if any(other.bridge_name == name for other in others):
            raise Conflict(f"bridge interface {name} is in use by another network")
        with NetlinkSocket() as sock:
            if opts.name and rt.link(sock, name) is not None:
                raise Conflict(f"interface {name} exists on this host and belongs to another")
        return msgspec.structs.replace(network, bridge_name=name)

    def start(self, network: Network) -> None:
        try:
            with NetlinkSocket() as sock:
                bridge = self._ensure_link(sock, network)
                # before it is up: a container must not be able to become the host's router (CVE-2020-13401)
                for key, value in (("accept_ra", "0"), ("disable_ipv6", str(int(not network.enable_ipv6)))):
                    with suppress(FileNotFoundError):  # a kernel without IPv6
                        sysctl.write(value, "net", "ipv6", "conf", network.bridge_name, key)
                self._ensure_addresses(sock, network, bridge.index)
                sock.transact(rt.set_link(bridge.index, up=True, mtu=self.mtu(network)))
            # lets the host's 127.0.0.1 out by this interface; the firewall's guard closes the way back
            sysctl.write("1", "net", "ipv4", "conf", network.bridge_name, "route_localnet")
        except OSError as e:
            raise Internal(f"cannot set up network {network.name}: {e.strerror or e}") from e

    def _ensure_link(self, sock: NetlinkSocket, network: Network) -> rt.Link:
        name, alias = network.bridge_name, self._instance.alias(f"network:{network.id}")
        link = rt.link(sock, name)
        if link is not None:
            if link.kind != "bridge" or link.alias not in ("", alias):
                raise Internal(f"cannot set up network {network.name}: interface {name} belongs to another")
            if _global(link.index) != set(gateways(network)):
                ports = [other for other in rt.links(sock) if other.master == link.index]
                if not ports:
                    sock.transact(rt.delete_link(link.index))
                    link = None
        if link is None:
            seed = next((str(g.ip) for g in gateways(network)), "") or f"169.254.{_pair(network.id)}"
            sock.transact(rt.create_bridge(name, mac=mac_for(seed), mtu=self.mtu(network)))
            link = rt.link(sock, name)
            if link is None:
                raise Internal(f"cannot set up network {network.name}: interface {name} went away")
        if link.alias != alias:
            sock.transact(rt.set_link(link.index, alias=alias, link_local=False))
        return link

    @staticmethod
    def _ensure_addresses(sock: NetlinkSocket, network: Network, index: int) -> None:
        wanted: list[Interface] = list(gateways(network))
        if network.enable_ipv6:
            wanted.append(_LINK_LOCAL)
        present = rt.addresses_on(index)
        for address in wanted:
            if address not in present:
                sock.transact(rt.add_address(index, address))

    def mtu(self, network: Network) -> int:
        """Of the network's interfaces, in bytes."""
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
            bridge = rt.link(sock, network.bridge_name)
            if bridge is None:
                raise OSError(errno.ENODEV, f"interface {network.bridge_name} is not there")
            sock.transact(
                rt.create_veth(veth),
                rt.set_link(
                    endpoint.host_ifname,
                    master=bridge.index,
                    alias=self._instance.alias(endpoint.container_id),
                    link_local=False,
                    up=True,
                ),
                # br_netfilter, which other engines load, translates addresses while it bridges: a container
                # that asks for its own published port then leaves by the port it came in
                rt.set_bridge_port(endpoint.host_ifname, hairpin=True, isolated=not _icc(network)),
            )

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        """The port joins the bridge again if that was made anew meanwhile."""
        try:
            with NetlinkSocket() as sock:
                link, bridge = rt.link(sock, endpoint.host_ifname), rt.link(sock, network.bridge_name)
                if link is None or link.alias != self._instance.alias(endpoint.container_id):
                    return False
                if bridge is not None and link.master != bridge.index:
                    sock.transact(
                        rt.set_link(link.index, master=bridge.index, up=True, link_local=False),
                        rt.set_bridge_port(link.index, hairpin=True, isolated=not _icc(network)),
                    )
        except OSError as e:
            raise Internal(f"cannot attach to network {network.name}: {e.strerror or e}") from e
        return True

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Takes about 30 ms of the kernel; a pair goes away with its namespace at no cost."""
        try:
            with NetlinkSocket() as sock:
                link = rt.link(sock, endpoint.host_ifname)
                if link is not None and link.alias == self._instance.alias(endpoint.container_id):
                    sock.transact(rt.delete_link(link.index))
        except NetlinkError as e:
            if e.errno != errno.ENODEV:
                raise Internal(f"cannot detach from network {network.name}: {e.strerror or e}") from e


def gateways(network: Network) -> list[Interface]:
    """The addresses of the bridge itself."""
    opts = options.bridge(network.options) if network.driver == "bridge" else options.BridgeOptions()
    found: list[Interface] = []
    for subnet in network.subnets:
        hidden = opts.mode(subnet.family) == "isolated" or (opts.inhibit_ipv4 and subnet.family == 4)
        if subnet.gateway and not hidden:
            found.append(ip_interface(f"{subnet.gateway}/{subnet.prefix_len}"))
    return found


def _global(index: int) -> set[Interface]:
    return {a for a in rt.addresses_on(index) if not (a.version == 6 and a.ip.is_link_local)}


def _pair(network_id: str) -> str:
    return ".".join(str(b) for b in bytes.fromhex(network_id[:4]))


def _icc(network: Network) -> bool:
    return network.driver != "bridge" or options.bridge(network.options).icc


def used_subnets() -> set[IPNetwork]:
    """Subnets this host has addresses in or routes to, other engines' bridges included."""
    found: set[IPNetwork] = set()
    with NetlinkSocket() as sock:
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in rt.routes(sock, family):
                local = route.destination.is_link_local or route.destination.is_multicast
                if route.destination.prefixlen and not local:
                    found.add(route.destination)
        for _index, address in rt.addresses(sock):
            if not address.ip.is_link_local:
                found.add(address.network)
    return found
