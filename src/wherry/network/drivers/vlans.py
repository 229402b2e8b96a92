"""``macvlan`` and ``ipvlan``: containers directly on a network of the host, not behind the host.

``parent=eth0.50`` creates the VLAN interface if it does not exist. The kernel blocks traffic between a parent
and its children: ``host_shim=ADDRESS`` gives the host its own child interface with that address, so that the
host and its containers reach each other.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from typing import NoReturn

import msgspec

from wherry.errors import Conflict, Forbidden, Internal, InvalidArgument, Unavailable
from wherry.linux import rtkinds as kinds
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket
from wherry.network import options
from wherry.network.drivers import Namespace, SingleHostDriver, Traits
from wherry.network.types import Endpoint, Instance, Network

_VLAN_MAX = 4094
_SHARING = ("macvlan", "ipvlan")
"""Drivers that allow only one network per parent."""


class _ParentDriver(SingleHostDriver):
    """What the two have in common: a parent interface, created if possible."""

    name = ""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def _parent(self, network: Network) -> str:
        raise NotImplementedError

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        parent = self._parent(network)
        base, dot, number = parent.rpartition(".")
        if parent == "lo":
            raise InvalidArgument(f"loopback interface is not a valid {self.name} parent link")
        with NetlinkSocket() as sock:
            if rt.link(sock, parent) is None and network.options.get("parent"):
                if not dot or not number.isdecimal() or not 0 < int(number) <= _VLAN_MAX:
                    raise InvalidArgument(f"invalid parent interface {parent}: no such interface")
                if rt.link(sock, base) is None:
                    raise InvalidArgument(
                        f"invalid parent interface {parent}: there is no {base} for its VLAN"
                    )
        for other in others:
            if other.driver in _SHARING and other.options.get("parent") == parent:
                raise Forbidden(f"network {other.name} is already using parent interface {parent}")
        return network

    def start(self, network: Network) -> None:
        parent = self._parent(network)
        with _told(f"cannot set up network {network.name}"), NetlinkSocket() as sock:
            if rt.link(sock, parent) is None:
                self._make_parent(sock, network, parent)

    def _make_parent(self, sock: NetlinkSocket, network: Network, parent: str) -> None:
        base, _, number = parent.rpartition(".")
        if not network.options.get("parent"):
            message, what = (
                kinds.create_dummy(parent),
                "dummy interfaces, which a network without a parent needs",
            )
        else:
            link = rt.link(sock, base) if number.isdecimal() else None
            if link is None:
                raise Internal(f"cannot set up network {network.name}: interface {parent} does not exist")
            message, what = (
                kinds.create_vlan(parent, parent=link.index, number=int(number)),
                "VLAN interfaces",
            )
        try:
            sock.transact(message)
        except NetlinkError as e:
            if kinds.unsupported(e):
                raise Unavailable(f"cannot set up network {network.name}: this kernel has no {what}") from e
            raise
        alias = self._instance.alias(f"network:{network.id}")
        try:
            sock.transact(rt.set_link(parent, alias=alias, up=True))
        except NetlinkError as e:
            if e.errno == errno.ENETDOWN:
                raise Internal(f"cannot set up network {network.name}: interface {base} is down") from e
            raise

    def stop(self, network: Network) -> None:
        """A parent that the driver created is removed; one that existed before stays."""
        self._delete_ours(network, self._parent(network))

    def _delete_ours(self, network: Network, name: str) -> None:
        with _told(f"cannot remove network {network.name}"), NetlinkSocket() as sock:
            link = rt.link(sock, name)
            if link is not None and link.alias == self._instance.alias(f"network:{network.id}"):
                sock.transact(rt.delete_link(link.index))


class MacvlanDriver(_ParentDriver):
    name = "macvlan"
    traits = Traits(dhcp=True, unaddressed=True)

    def _parent(self, network: Network) -> str:
        return options.macvlan(network.options).parent or f"dm-{network.id[:12]}"

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        opts = options.macvlan(network.options)
        network = super().check(network, others)
        return _with_shim(network, opts.shim) if opts.shim else network

    def start(self, network: Network) -> None:
        super().start(network)
        opts = options.macvlan(network.options)
        if not opts.shim:
            return
        name = _shim_name(network)
        with _told(f"cannot set up network {network.name}"), NetlinkSocket() as sock:
            shim = rt.link(sock, name)
            if shim is None:
                parent = _required(sock, self._parent(network))
                sock.transact(kinds.create_macvlan(name, parent=parent.index, mode="bridge"))
                shim = _required(sock, name)
            alias = self._instance.alias(f"network:{network.id}")
            sock.transact(rt.set_link(shim.index, alias=alias, up=True))
            address = ip_interface(opts.shim)
            if address not in {a for i, a in rt.addresses(sock) if i == shim.index}:
                sock.transact(rt.add_address(shim.index, address))

    def stop(self, network: Network) -> None:
        if options.macvlan(network.options).shim:
            self._delete_ours(network, _shim_name(network))
        super().stop(network)

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        opts = options.macvlan(network.options)
        with _told(f"cannot attach to network {network.name}"), NetlinkSocket() as sock:
            parent = _required(sock, self._parent(network))
            message = kinds.create_macvlan(
                endpoint.ifname,
                parent=parent.index,
                mode=opts.mode,
                # passthru takes the parent's own address
                mac="" if opts.mode == "passthru" else endpoint.mac,
                mtu=opts.mtu or parent.mtu,
                netns=namespace.fd,
            )
            _create_child(sock, message, "macvlan", network)
        self._lead(network, endpoint)

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        self._lead(network, endpoint)
        return True

    def _lead(self, network: Network, endpoint: Endpoint) -> None:
        """Make the host reach the container by its shim. This route is more specific than the subnet's."""
        if not options.macvlan(network.options).shim or not endpoint.ip:
            return
        with _told(f"cannot attach to network {network.name}"), NetlinkSocket() as sock:
            shim = rt.link(sock, _shim_name(network))
            if shim is not None:
                sock.transact(rt.add_link_route(ip_network(endpoint.ip), shim.index))

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        if not options.macvlan(network.options).shim or not endpoint.ip:
            return
        with NetlinkSocket() as sock:
            shim = rt.link(sock, _shim_name(network))
            if shim is None:
                return
            try:
                sock.transact(rt.delete_link_route(ip_network(endpoint.ip), shim.index))
            except NetlinkError as e:
                if e.errno != errno.ESRCH:
                    raise Internal(f"cannot detach from network {network.name}: {e.strerror}") from e


class IpvlanDriver(_ParentDriver):
    name = "ipvlan"
    traits = Traits(unaddressed=True)

    def _parent(self, network: Network) -> str:
        return options.ipvlan(network.options).parent or f"di-{network.id[:12]}"

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        reason = ipvlan_missing()
        if reason:
            raise Unavailable(f"cannot make network {network.name}: {reason}")
        opts = options.ipvlan(network.options)
        network = super().check(network, others)
        if opts.mode == "l2":
            return network
        # The other modes work without a gateway: the route leads to the interface itself.
        subnets = tuple(msgspec.structs.replace(s, gateway="") for s in network.subnets)
        return msgspec.structs.replace(network, subnets=subnets)

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        opts = options.ipvlan(network.options)
        with _told(f"cannot attach to network {network.name}"), NetlinkSocket() as sock:
            parent = _required(sock, self._parent(network))
            message = kinds.create_ipvlan(
                endpoint.ifname,
                parent=parent.index,
                mode=opts.mode,
                flag=opts.flag,
                mtu=opts.mtu or parent.mtu,
                netns=namespace.fd,
            )
            _create_child(sock, message, "ipvlan", network)
            if opts.mode != "l2":
                index = _required(namespace.netlink, endpoint.ifname).index
                namespace.netlink.transact(rt.set_link(index, up=True))
                for default, ip in (("0.0.0.0/0", endpoint.ip), ("::/0", endpoint.ip6)):
                    if ip:
                        namespace.netlink.transact(rt.add_link_route(ip_network(default), index))


def ipvlan_missing() -> str:
    """Why this kernel does not support ipvlan; ``""`` if it does."""
    with NetlinkSocket() as sock:
        try:
            # without a parent: a kernel that supports ipvlan complains about exactly that
            sock.transact(kinds.create_ipvlan("wherry-probe", parent=0, mode="l2", flag="bridge"))
        except NetlinkError as e:
            return "this kernel has no ipvlan" if kinds.unsupported(e) else ""
    return ""


def _with_shim(network: Network, address: str) -> Network:
    """Reserve the shim's address."""
    wanted = ip_address(address)
    subnets = list(network.subnets)
    for position, subnet in enumerate(subnets):
        if wanted in subnet.network:
            if address == subnet.gateway or address in subnet.aux.values():
                raise Conflict(f"cannot use {address} for host_shim: it is reserved")
            aux = {**subnet.aux, "host_shim": address}
            subnets[position] = msgspec.structs.replace(subnet, aux=aux)
            return msgspec.structs.replace(network, subnets=tuple(subnets))
    raise InvalidArgument(f"cannot use {address} for host_shim: it is in none of the network's subnets")


def _shim_name(network: Network) -> str:
    return f"wm-{network.id[:12]}"


def _required(sock: NetlinkSocket, name: str) -> rt.Link:
    link = rt.link(sock, name)
    if link is None:
        raise OSError(errno.ENODEV, f"interface {name} does not exist")
    return link


def _create_child(sock: NetlinkSocket, message: NetlinkMessage, kind: str, network: Network) -> None:
    try:
        sock.transact(message)
    except NetlinkError as e:
        _refuse(e, kind, network)


def _refuse(error: NetlinkError, kind: str, network: Network) -> NoReturn:
    if kinds.unsupported(error):
        raise Unavailable(f"cannot attach to network {network.name}: this kernel has no {kind}") from error
    if error.errno in (errno.EINVAL, errno.EBUSY):
        raise Conflict(
            f"cannot attach to network {network.name}: its parent is in use otherwise ({error.strerror})"
        ) from error
    raise error


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise Internal(f"{what}: {e.strerror or e}") from e
