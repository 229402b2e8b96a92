"""``overlay``: one network on several hosts, by VXLAN (RFC 7348).

On each host a bridge, as of a bridge network, with the gateway's address, so that every host is the way out
for its own containers; and on it a VXLAN device ``vx-<id>`` that learns and floods nothing: which host has
which container is told to it, from what the hosts tell each other (``cluster``). The device of an encrypted
network has another UDP port, where nothing passes that IPsec does not carry (``cluster/ipsec.py``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address

import msgspec

from wherry.errors import Forbidden, Internal, Unavailable
from wherry.linux import rtkinds as kinds
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import Message, NetlinkError, NetlinkSocket
from wherry.network import options
from wherry.network.cluster import ipsec
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.member import number_of
from wherry.network.cluster.records import Remote
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.ipam import mac_for
from wherry.network.types import Endpoint, Instance, Network

PORT = 4789
_OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN, UDP, IP and Ethernet add to a packet."""
_ESP_HEADER, _ESP_TAIL, _ESP_UNIT = 16, 2 + 16, 4
"""Bytes that ESP adds besides (RFC 4303, 4106): SPI, sequence number and IV before; padding's length, next
header and check value behind, with what is enciphered filled up to a multiple of the unit."""


class OverlayDriver(BridgeDriver):
    name = "overlay"

    def __init__(self, instance: Instance, advertise: str = "", ipsec: Ipsec | None = None) -> None:
        """:param advertise: this host's address for the others, ``""`` where it is part of no cluster.
        :param ipsec: for encrypted networks, where it is part of one.
        """
        super().__init__(instance)
        self._advertise = advertise
        self._ipsec = ipsec

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        if not self._advertise:
            raise Forbidden(
                f"cannot make overlay network {network.name}: this daemon is part of no cluster "
                "(--cluster-store etcd://host:port --cluster-advertise ADDRESS)"
            )
        if self._ipsec is not None and ipsec.wanted(network):
            try:
                self._ipsec.probe()
            except Unavailable as e:
                raise Unavailable(f"cannot make network {network.name}: {e.message}") from e
        return msgspec.structs.replace(
            network, bridge_name=f"br-{network.id[:12]}", scope="global", attachable=True
        )

    def mtu(self, network: Network) -> int:
        asked = options.overlay(network.options)
        return asked.mtu or self._inner_mtu(asked.encrypted)

    def _inner_mtu(self, encrypted: bool) -> int:
        address = ip_address(self._advertise) if self._advertise else ip_address("0.0.0.0")
        with NetlinkSocket() as sock:
            index = next((i for i, a in rt.addresses(sock) if a.ip == address), 0)
            outer = next((link.mtu for link in rt.links(sock) if link.index == index), 1500)
        if encrypted:
            ip_header = 20 if address.version == 4 else 40
            room = outer - ip_header - _ESP_HEADER - _ESP_TAIL + 2
            outer = ip_header + room // _ESP_UNIT * _ESP_UNIT - 2
        return outer - _OVERHEAD[address.version]

    def start(self, network: Network) -> None:
        if not self._advertise:
            raise Unavailable(
                f"cannot set up network {network.name}: this daemon is part of no cluster any more"
            )
        if self._ipsec is not None and ipsec.wanted(network):
            self._ipsec.require(network.id)
        super().start(network)
        try:
            with NetlinkSocket() as sock:
                self._ensure_vxlan(sock, network)
        except OSError as e:
            raise Internal(f"cannot set up network {network.name}: {e.strerror or e}") from e

    def _ensure_vxlan(self, sock: NetlinkSocket, network: Network) -> None:
        name, alias = _device(network), self._instance.alias(f"network:{network.id}")
        local = ip_address(self._advertise)
        link = rt.link(sock, name)
        if link is not None and kinds.vxlan_local(sock, name) != local:
            sock.transact(rt.delete_link(link.index))  # this host had another address for the others
            link = None
        if link is None:
            message = kinds.create_vxlan(
                name,
                number=number_of(network),
                local=local,
                port=ipsec.PORT if ipsec.wanted(network) else PORT,
                mtu=self.mtu(network),
                mac=mac_for(network.subnets[0].gateway)[:-2] + "fe"
                if network.subnets
                else "02:42:00:00:00:fe",
            )
            try:
                sock.transact(message)
            except NetlinkError as e:
                if kinds.unsupported(e):
                    raise Unavailable(
                        f"cannot set up network {network.name}: this kernel has no VXLAN"
                    ) from e
                raise
            link = rt.link(sock, name)
        bridge = rt.link(sock, network.bridge_name)
        if link is None or bridge is None:
            raise OSError(errno.ENODEV, "an interface went away")
        sock.transact(rt.set_link(link.index, alias=alias, master=bridge.index, link_local=False, up=True))

    def stop(self, network: Network) -> None:
        try:
            with NetlinkSocket() as sock:
                link = rt.link(sock, _device(network))
                if link is not None and link.alias.startswith(self._instance.alias_prefix):
                    sock.transact(rt.delete_link(link.index))
        except NetlinkError as e:
            if e.errno != errno.ENODEV:
                raise Internal(f"cannot remove network {network.name}: {e.strerror or e}") from e
        super().stop(network)
        if self._ipsec is not None:
            self._ipsec.release(network.id)
        elif ipsec.wanted(network) and not self._some_left():
            ipsec.clear(self._instance)

    def _some_left(self) -> bool:
        """Whether there are devices of networks of a cluster that this daemon is no part of any more."""
        with NetlinkSocket() as sock:
            return any(
                link.name.startswith("vx-") and link.alias.startswith(self._instance.alias_prefix)
                for link in rt.links(sock)
            )

    def reach(self, network: Network, remotes: Iterable[Remote]) -> None:
        """These are the containers on other hosts; what the device knows besides is forgotten.

        :raises Internal: the kernel refuses, with the reason.
        """
        hosts, names = set(), set()
        for remote in remotes:
            endpoint: Endpoint = remote.endpoint
            hosts.add((endpoint.mac, remote.address))
            names |= {(ip, endpoint.mac) for ip in endpoint.addresses}
        try:
            with NetlinkSocket() as sock:
                link = rt.link(sock, _device(network))
                if link is None:
                    return
                known_hosts = kinds.forwarding(sock, link.index)
                known_names = kinds.neighbours(sock, link.index)
                _each(
                    sock,
                    lambda m, h: kinds.delete_forwarding(link.index, m, ip_address(h)),
                    known_hosts - hosts,
                )
                _each(
                    sock, lambda a, _: kinds.delete_neighbour(link.index, ip_address(a)), known_names - names
                )
                _each(
                    sock, lambda m, h: kinds.set_forwarding(link.index, m, ip_address(h)), hosts - known_hosts
                )
                _each(
                    sock, lambda a, m: kinds.set_neighbour(link.index, ip_address(a), m), names - known_names
                )
        except OSError as e:
            raise Internal(
                f"cannot reach the other hosts of network {network.name}: {e.strerror or e}"
            ) from e


def _each(sock: NetlinkSocket, make: Callable[[str, str], Message], pairs: set[tuple[str, str]]) -> None:
    for one, other in sorted(pairs):
        try:
            sock.transact(make(one, other))
        except NetlinkError as e:
            if e.errno not in (errno.ENOENT, errno.ESRCH):  # gone in this very moment
                raise


def _device(network: Network) -> str:
    return f"vx-{network.id[:12]}"
