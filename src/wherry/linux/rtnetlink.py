"""Links, addresses and routes: typed messages for a :class:`NetlinkSocket` (rtnetlink(7)).

A function that returns a :class:`NetlinkMessage` sends nothing, so a caller can put several into one batch.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from wherry.errors import Internal
from wherry.linux import netlink as nl
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket, Received

IFNAMSIZ = 16
IFALIASZ = 256

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR, _RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 20, 21, 22, 24, 25, 26
_IFA_F_NODAD = 0x02

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 20, 26, 28
_IFLA_EXT_MASK, _SKIP_STATS = 29, 8
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 3, 0, 253, 1
IFF_UP = 0x1
_RT_TABLE_LOCAL = 255
RTPROT_RA = 9

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def mac_bytes(text: str) -> bytes:
    """``02:42:ac:11:00:02`` as six bytes.

    :raises ValueError: not six pairs of hex digits.
    """
    parts = text.split(":")
    if len(parts) != 6 or any(len(p) != 2 for p in parts):
        raise ValueError(f"invalid MAC address {text[:64]!r}")
    return bytes(int(p, 16) for p in parts)


def _info(family: int = 0, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(family, 0, index, flags, change)


def _name(name: str) -> bytes:
    if not name:
        raise Internal("cannot name a link: the name is empty")
    return nl.string(_IFLA_IFNAME, name, limit=IFNAMSIZ - 1)


def _no_link_local() -> bytes:
    """An interface that passes frames for others needs no IPv6 address of its own."""
    mode = nl.u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE)
    return nl.nested(_IFLA_AF_SPEC, nl.nested(socket.AF_INET6, mode))


def create_bridge(name: str, *, mac: str, mtu: int) -> NetlinkMessage:
    """A bridge, down. Its MAC address is fixed, so that it does not follow its lowest port's."""
    info = nl.nested(_IFLA_LINKINFO, nl.string(_IFLA_INFO_KIND, "bridge"))
    payload = _info() + _name(name) + nl.attribute(_IFLA_ADDRESS, mac_bytes(mac)) + nl.u32(_IFLA_MTU, mtu)
    return NetlinkMessage(_RTM_NEWLINK, nl.NLM_F_CREATE | nl.NLM_F_EXCL, payload + info)


@dataclass(frozen=True)
class Veth:
    """A pair to make: ``name`` here, ``peer_name`` in the namespace of the descriptor ``peer_netns``."""

    name: str
    peer_name: str
    peer_netns: int
    peer_mac: str
    mtu: int


def create_veth(veth: Veth) -> NetlinkMessage:
    """The pair, both ends down: the kernel refuses to bring one up before both are there (ENOTCONN)."""
    peer = (
        _info()
        + _name(veth.peer_name)
        + nl.attribute(_IFLA_ADDRESS, mac_bytes(veth.peer_mac))
        + nl.u32(_IFLA_MTU, veth.mtu)
        + nl.u32(_IFLA_NET_NS_FD, veth.peer_netns)
    )
    info = nl.nested(
        _IFLA_LINKINFO,
        nl.string(_IFLA_INFO_KIND, "veth"),
        nl.nested(_IFLA_INFO_DATA, nl.nested(_VETH_INFO_PEER, peer)),
    )
    payload = _info() + _name(veth.name) + nl.u32(_IFLA_MTU, veth.mtu) + info
    return NetlinkMessage(_RTM_NEWLINK, nl.NLM_F_CREATE | nl.NLM_F_EXCL, payload)


def set_link(
    target: str | int,
    *,
    up: bool | None = None,
    master: int | None = None,
    alias: str | None = None,
    mtu: int | None = None,
    link_local: bool = True,
) -> NetlinkMessage:
    """Change a link given by name or index. ``master`` is the index of a bridge; ``link_local`` False keeps
    the kernel from giving it an IPv6 address of its own when it comes up."""
    flags = IFF_UP if up else 0
    change = IFF_UP if up is not None else 0
    payload = _target(target, flags, change)
    if master is not None:
        payload += nl.u32(_IFLA_MASTER, master)
    if alias is not None:
        payload += nl.string(_IFLA_IFALIAS, alias, limit=IFALIASZ - 1)
    if mtu is not None:
        payload += nl.u32(_IFLA_MTU, mtu)
    if not link_local:
        payload += _no_link_local()
    return NetlinkMessage(_RTM_SETLINK, 0, payload)


def move_link(index: int, netns: int, name: str) -> NetlinkMessage:
    """Move a link that is down into the namespace of a descriptor, under another name."""
    return NetlinkMessage(_RTM_SETLINK, 0, _target(index) + _name(name) + nl.u32(_IFLA_NET_NS_FD, netns))


def rename_link(index: int, name: str) -> NetlinkMessage:
    """Call a link that is down otherwise."""
    return NetlinkMessage(_RTM_SETLINK, 0, _target(index) + _name(name))


def set_mac(index: int, mac: str) -> NetlinkMessage:
    return NetlinkMessage(_RTM_SETLINK, 0, _target(index) + nl.attribute(_IFLA_ADDRESS, mac_bytes(mac)))


def set_bridge_port(target: str | int, *, hairpin: bool, isolated: bool) -> NetlinkMessage:
    """``hairpin`` lets a frame leave by the port it came in; ``isolated`` ports do not reach each other."""
    data = nl.nested(
        _IFLA_INFO_SLAVE_DATA, nl.u8(_IFLA_BRPORT_MODE, hairpin), nl.u8(_IFLA_BRPORT_ISOLATED, isolated)
    )
    info = nl.nested(_IFLA_LINKINFO, nl.string(_IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return NetlinkMessage(_RTM_NEWLINK, 0, _target(target) + info)


def delete_link(target: str | int) -> NetlinkMessage:
    return NetlinkMessage(_RTM_DELLINK, 0, _target(target))


def _target(target: str | int, flags: int = 0, change: int = 0) -> bytes:
    if isinstance(target, int):
        if target <= 0:
            raise Internal(f"cannot name a link: index {target}")
        return _info(index=target, flags=flags, change=change)
    return _info(flags=flags, change=change) + _name(target)


def add_address(index: int, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> NetlinkMessage:
    """Give a link an address (``10.1.2.3/24``), in IPv4 with the subnet's broadcast address, in IPv6 to be
    used at once: whoever hands out addresses knows that nobody else has it."""
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    packed = interface.ip.packed
    flags = 0 if interface.version == 4 else _IFA_F_NODAD
    payload = (
        _IFADDR.pack(family, interface.network.prefixlen, flags, 0, index)
        + nl.attribute(_IFA_LOCAL, packed)
        + nl.attribute(_IFA_ADDRESS, packed)
    )
    if interface.version == 4 and interface.network.prefixlen < 31:
        payload += nl.attribute(_IFA_BROADCAST, interface.network.broadcast_address.packed)
    return NetlinkMessage(_RTM_NEWADDR, nl.NLM_F_CREATE | nl.NLM_F_EXCL, payload)


def delete_address(
    index: int, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> NetlinkMessage:
    return NetlinkMessage(_RTM_DELADDR, 0, add_address(index, interface).payload)


def set_default_route(gateway: Address, oif: int) -> NetlinkMessage:
    """The default route of a family, by a gateway on a connected subnet; another one goes."""
    family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
    payload = _default(family) + nl.attribute(_RTA_GATEWAY, gateway.packed) + nl.u32(_RTA_OIF, oif)
    return NetlinkMessage(_RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, payload)


def delete_default_route(family: int) -> NetlinkMessage:
    """:param family: ``AF_INET`` or ``AF_INET6``. The kernel answers ESRCH where there is none."""
    return NetlinkMessage(_RTM_DELROUTE, 0, _default(family))


def _default(family: int) -> bytes:
    return _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)


def add_link_route(destination: IPNetwork, oif: int) -> NetlinkMessage:
    """A subnet that is reached directly by a link."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    scope = _RT_SCOPE_LINK if destination.version == 4 else _RT_SCOPE_UNIVERSE
    head = _RTMSG.pack(
        family, destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
    )
    payload = head + nl.attribute(_RTA_DST, destination.network_address.packed) + nl.u32(_RTA_OIF, oif)
    return NetlinkMessage(_RTM_NEWROUTE, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, payload)


def delete_link_route(destination: IPNetwork, oif: int) -> NetlinkMessage:
    added = add_link_route(destination, oif)
    return NetlinkMessage(_RTM_DELROUTE, 0, added.payload)


@dataclass(frozen=True)
class Link:
    """``master`` is the index of the bridge it belongs to, 0 for none; ``kind`` as in ip-link(8) TYPES."""

    index: int
    name: str
    kind: str
    up: bool
    mac: str
    mtu: int
    master: int
    alias: str


def links(sock: NetlinkSocket) -> list[Link]:
    """Every link of the socket's namespace."""
    message = NetlinkMessage(_RTM_GETLINK, nl.NLM_F_DUMP, _info())
    return [_link(r.payload) for r in sock.request(message) if r.kind == _RTM_NEWLINK]


def link(sock: NetlinkSocket, name: str) -> Link | None:
    """One link by its name."""
    try:
        answers = sock.request(NetlinkMessage(_RTM_GETLINK, 0, _info() + _name(name)))
    except NetlinkError as e:
        if e.errno == errno.ENODEV:
            return None
        raise
    return _link(answers[0].payload)


def index(sock: NetlinkSocket, name: str) -> int | None:
    """The index alone of a link, without reading the rest of the kernel's answer."""
    wanted = _info() + _name(name) + nl.u32(_IFLA_EXT_MASK, _SKIP_STATS)
    try:
        answers = sock.request(NetlinkMessage(_RTM_GETLINK, 0, wanted))
    except NetlinkError as e:
        if e.errno == errno.ENODEV:
            return None
        raise
    found: int = _IFINFO.unpack_from(answers[0].payload)[2]
    return found


def _link(payload: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(payload)
    found = nl.attributes(payload[_IFINFO.size :])
    info = nl.attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=nl.text_of(found.get(_IFLA_IFNAME, b"")),
        kind=nl.text_of(info.get(_IFLA_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        master=_number(found.get(_IFLA_MASTER)),
        alias=nl.text_of(found.get(_IFLA_IFALIAS, b"")),
    )


def _number(payload: bytes | None) -> int:
    return int.from_bytes(payload, "little" if _LITTLE else "big") if payload else 0


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def addresses_on(index: int) -> set[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """The addresses of one link of the calling thread's namespace."""
    with NetlinkSocket() as sock:
        sock.be_strict()
        return {a for i, a in addresses(sock, index) if i == index}


def addresses(
    sock: NetlinkSocket, index: int = 0
) -> list[tuple[int, ipaddress.IPv4Interface | ipaddress.IPv6Interface]]:
    """Every address with the index of its link.

    :param index: of one link only, where the socket is strict.
    """
    found = []
    for received in sock.request(
        NetlinkMessage(_RTM_GETADDR, nl.NLM_F_DUMP, _IFADDR.pack(0, 0, 0, 0, index))
    ):
        family, prefix, _flags, _scope, index = _IFADDR.unpack_from(received.payload)
        parts = nl.attributes(received.payload[_IFADDR.size :])
        packed = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS)
        if packed and family in (socket.AF_INET, socket.AF_INET6):
            found.append((index, ipaddress.ip_interface((packed, prefix))))
    return found


@dataclass(frozen=True)
class Route:
    """``destination`` is the subnet (0.0.0.0/0 is the default route), ``oif`` the link's index or 0,
    ``protocol`` who added it."""

    destination: IPNetwork
    oif: int
    protocol: int = 0


def routes(sock: NetlinkSocket, family: int = socket.AF_INET) -> list[Route]:
    """Every route of every table but that of local addresses."""
    request = NetlinkMessage(_RTM_GETROUTE, nl.NLM_F_DUMP, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
    # the table of local addresses says nothing that the addresses do not, and has most of them
    answers = [r.payload for r in sock.request(request) if r.payload[4] != _RT_TABLE_LOCAL]
    found = (_route(payload) for payload in answers)
    return [route for route in found if route.destination.version == (4 if family == socket.AF_INET else 6)]


def added_route(received: Received) -> Route | None:
    """The route that a notification says was added to the main table, None for any other message."""
    if received.kind != _RTM_NEWROUTE or received.payload[4] != _RT_TABLE_MAIN:
        return None
    return _route(received.payload)


def _route(payload: bytes) -> Route:
    family, prefix = struct.unpack_from("=BB", payload)
    parts = nl.attributes(payload[_RTMSG.size :])
    packed = parts.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    network = ipaddress.ip_network((packed, prefix), strict=False)
    return Route(network, _number(parts.get(_RTA_OIF)), payload[5])
