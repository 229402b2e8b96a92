"""``bridge``: a Linux bridge on the host, a veth pair for every endpoint, the host as the gateway."""

from __future__ import annotations

import errno
import ipaddress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from wherry.errors import Internal
from wherry.linux import rtnetlink as rt
from wherry.linux import sysctl
from wherry.linux.netlink import NetlinkError, NetlinkSocket
from wherry.network.drivers import Namespace
from wherry.network.ipam import mac_for
from wherry.network.types import Endpoint, Instance, Network

MTU_OPTION = "com.docker.network.driver.mtu"
ICC_OPTION = "com.docker.network.bridge.enable_icc"
_PORTS_MAX = 1023
"""The kernel's limit of one bridge (net/bridge/br_private.h, ``BR_MAX_PORTS``)."""


class BridgeDriver:
    name = "bridge"
    isolated = True

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def start(self, network: Network) -> None:
        subnet = network.subnets[0]
        gateway = IPv4Interface(f"{subnet.gateway}/{IPv4Network(subnet.cidr).prefixlen}")
        try:
            with NetlinkSocket() as sock:
                bridge = self._ensure_link(sock, network, gateway)
                sock.transact(rt.set_link(bridge.index, up=True, mtu=_mtu(network)))
            # lets the host's 127.0.0.1 out by this interface; the firewall's guard closes the way back
            sysctl.write("1", "net", "ipv4", "conf", network.bridge_name, "route_localnet")
        except OSError as e:
            raise Internal(f"cannot set up network {network.name}: {e.strerror or e}") from e

    def _ensure_link(self, sock: NetlinkSocket, network: Network, gateway: IPv4Interface) -> rt.Link:
        name, alias = network.bridge_name, self._instance.alias(f"network:{network.id}")
        link = rt.link(sock, name)
        if link is not None:
            if link.kind != "bridge" or link.alias not in ("", alias):
                raise Internal(f"cannot set up network {network.name}: interface {name} belongs to another")
            mine = {a for i, a in rt.addresses(sock) if i == link.index and a.version == 4}
            ports = [other for other in rt.links(sock) if other.master == link.index]
            if mine == {gateway} and link.alias == alias:
                return link
            if not ports:
                sock.transact(rt.delete_link(link.index))
                link = None
        if link is None:
            sock.transact(rt.create_bridge(name, mac=mac_for(str(gateway.ip)), mtu=_mtu(network)))
            link = rt.link(sock, name)
            if link is None:
                raise Internal(f"cannot set up network {network.name}: interface {name} went away")
        sock.transact(rt.set_link(link.index, alias=alias, link_local=False))
        if gateway not in {a for i, a in rt.addresses(sock) if i == link.index}:
            sock.transact(rt.add_address(link.index, gateway))
        return link

    def stop(self, network: Network) -> None:
        try:
            with NetlinkSocket() as sock:
                for link in rt.links(sock):
                    ours = link.alias.startswith(self._instance.alias_prefix)
                    if ours and link.name == network.bridge_name:
                        sock.transact(rt.delete_link(link.index))
        except OSError as e:
            raise Internal(f"cannot remove network {network.name}: {e.strerror or e}") from e

    def attach(
        self, network: Network, endpoint: Endpoint, namespace: Namespace, *, default_route: bool
    ) -> None:
        try:
            self._attach_host(network, endpoint, namespace)
            self._attach_inside(endpoint, namespace, default_route=default_route)
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
            mtu=_mtu(network),
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

    def _attach_inside(self, endpoint: Endpoint, namespace: Namespace, *, default_route: bool) -> None:
        inside = rt.link(namespace.netlink, endpoint.ifname)
        if inside is None:
            raise OSError(errno.ENODEV, f"interface {endpoint.ifname} is not there")
        messages = [
            rt.set_link(inside.index, up=True),
            rt.add_address(inside.index, IPv4Interface(f"{endpoint.ip}/{endpoint.prefix_len}")),
        ]
        if default_route and endpoint.gateway:
            messages.append(rt.add_default_route(IPv4Address(endpoint.gateway)))
        namespace.netlink.transact(*messages)

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


def _mtu(network: Network) -> int:
    return int(network.options.get(MTU_OPTION, "1500"))


def _icc(network: Network) -> bool:
    return network.options.get(ICC_OPTION, "true") == "true"


def used_subnets() -> set[IPv4Network]:
    """Subnets this host has addresses in or routes to, other engines' bridges included."""
    found: set[IPv4Network] = set()
    with NetlinkSocket() as sock:
        for route in rt.routes(sock):
            if isinstance(route.destination, IPv4Network) and route.destination.prefixlen:
                found.add(route.destination)
        for _index, address in rt.addresses(sock):
            if isinstance(address, ipaddress.IPv4Interface):
                found.add(address.network)
    return found
