"""``overlay``: one network on several hosts, by VXLAN (RFC 7348).

On each host there is a bridge, as for a bridge network. It has the gateway's address, so each host is the way
out for its own containers. A VXLAN device ``vx-<id>`` is attached to it. The device does not learn and does
not flood: it is told which host has which container, as published by the hosts (``cluster``). The device of
an encrypted network uses another UDP port, which only IPsec packets may pass (``cluster/ipsec.py``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

import msgspec

from wherry.errors import Forbidden, Internal, Unavailable
from wherry.linux import rtkinds as kinds
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket
from wherry.network import options
from wherry.network.cluster import ipsec
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.member import number_of
from wherry.network.cluster.records import DRIVER, Remote
from wherry.network.drivers import NotShared, Sharing, Traits
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.ipam import mac_for
from wherry.network.ruleset import Bridged
from wherry.network.types import Endpoint, Instance, Network

PORT = 4789
_OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN, UDP, IP and Ethernet headers add to a packet."""
_ESP_HEADER, _ESP_TAIL, _ESP_UNIT = 16, 2 + 16, 4
"""Bytes that ESP adds besides (RFC 4303, 4106): SPI, sequence number and IV in front; pad length, next header
and check value behind. The encrypted part is padded to a multiple of the unit."""


class OverlayDriver(BridgeDriver):
    name = DRIVER
    traits = Traits(publishes=True, scopes=("global",))

    def __init__(
        self,
        instance: Instance,
        advertise: str = "",
        ipsec: Ipsec | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """:param advertise: this host's address for the others, ``""`` if it is in no cluster.
        :param ipsec: for encrypted networks, if it is in a cluster. :param sharing: publishes to the others.
        """
        super().__init__(instance)
        self.sharing = sharing or NotShared()
        self._advertise = advertise
        self._ipsec = ipsec

    def options(self, network: Network) -> options.BridgeOptions:
        """Users cannot choose the bridge's own options here."""
        return options.BridgeOptions()

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        if not self._advertise:
            raise Forbidden(
                f"cannot make overlay network {network.name}: this daemon is part of no cluster "
                "(--cluster-store etcd://host:port --cluster-advertise ADDRESS)"
            )
        if self._ipsec is not None and encrypted(network):
            try:
                self._ipsec.probe()
            except Unavailable as e:
                raise Unavailable(f"cannot make network {network.name}: {e.message}") from e
        return msgspec.structs.replace(
            network, bridge_name=f"br-{network.id[:12]}", scope="global", attachable=True
        )

    def bridged(self, network: Network) -> Bridged | None:
        found = super().bridged(network)
        return replace(found, sealed=encrypted(network)) if found is not None else None

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
        if self._ipsec is not None and encrypted(network):
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
            sock.transact(rt.delete_link(link.index))  # this host had another address for the others before
            link = None
        if link is None:
            message = kinds.create_vxlan(
                name,
                number=number_of(network),
                local=local,
                port=ipsec.PORT if encrypted(network) else PORT,
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

    def sweep(self, networks: Sequence[Network], *, strays: bool) -> None:
        if any(map(encrypted, networks)):
            return
        if self._ipsec is not None:
            self._ipsec.sweep()
        elif strays:  # otherwise IPsec is not asked: many kernels would load it just for that
            ipsec.clear(self._instance)

    def remains(self) -> list[str]:
        count = ipsec.count(self._instance)
        return [f"{count} IPsec associations and policies"] if count else []

    def reach(self, network: Network, remotes: Iterable[Remote]) -> None:
        """Given the containers on other hosts: set the device's entries, and remove all others.

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


def encrypted(network: Network) -> bool:
    """Whether traffic to containers on other hosts goes through IPsec."""
    return options.overlay(network.options).encrypted


def _each(
    sock: NetlinkSocket, make: Callable[[str, str], NetlinkMessage], pairs: set[tuple[str, str]]
) -> None:
    for one, other in sorted(pairs):
        try:
            sock.transact(make(one, other))
        except NetlinkError as e:
            if e.errno not in (errno.ENOENT, errno.ESRCH):  # it went in this moment
                raise


def _device(network: Network) -> str:
    return f"vx-{network.id[:12]}"
