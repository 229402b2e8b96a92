"""Links of further kinds: macvlan, ipvlan, VLAN, VXLAN, dummy (ip-link(8)), and neighbours (ip-neighbour(8),
bridge(8) ``fdb``). As in ``rtnetlink`` a function sends nothing."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from wherry.linux import netlink as nl
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 16, 18, 28, 29, 30
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 4, 5, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS, _IFLA_VLAN_ID = 1, 1, 2, 1
_IFLA_VXLAN_ID, _IFLA_VXLAN_LOCAL, _IFLA_VXLAN_LOCAL6 = 1, 4, 17
_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PROXY, _IFLA_VXLAN_PORT = 7, 11, 15
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT, _NUD_NOARP, _NTF_SELF = 0x80, 0x40, 0x02
_IFINFO = struct.Struct("=BxHiII")
_NDMSG = struct.Struct("=BxxxiHBB")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _create(
    name: str, kind: str, *data: bytes, parent: int = 0, mac: str = "", mtu: int = 0, netns: int = -1
) -> NetlinkMessage:
    payload = _IFINFO.pack(0, 0, 0, 0, 0) + nl.string(3, name, limit=rt.IFNAMSIZ - 1)
    if parent:
        payload += nl.u32(_IFLA_LINK, parent)
    if mac:
        payload += nl.attribute(_IFLA_ADDRESS, rt.mac_bytes(mac))
    if mtu:
        payload += nl.u32(_IFLA_MTU, mtu)
    if netns >= 0:
        payload += nl.u32(_IFLA_NET_NS_FD, netns)
    info = [nl.string(_IFLA_INFO_KIND, kind)]
    if data:
        info.append(nl.nested(_IFLA_INFO_DATA, *data))
    return NetlinkMessage(
        _RTM_NEWLINK, nl.NLM_F_CREATE | nl.NLM_F_EXCL, payload + nl.nested(_IFLA_LINKINFO, *info)
    )


def create_macvlan(
    name: str, *, parent: int, mode: str, mac: str = "", mtu: int = 0, netns: int = -1
) -> NetlinkMessage:
    """:param netns: a descriptor of the namespace it appears in, -1 for the socket's own."""
    data = nl.u32(_IFLA_MACVLAN_MODE, _MACVLAN_MODES[mode])
    return _create(name, "macvlan", data, parent=parent, mac=mac, mtu=mtu, netns=netns)


def create_ipvlan(
    name: str, *, parent: int, mode: str, flag: str, mtu: int = 0, netns: int = -1
) -> NetlinkMessage:
    data = (
        nl.attribute(_IFLA_IPVLAN_MODE, struct.pack("=H", _IPVLAN_MODES[mode])),
        nl.attribute(_IFLA_IPVLAN_FLAGS, struct.pack("=H", _IPVLAN_FLAGS[flag])),
    )
    return _create(name, "ipvlan", *data, parent=parent, mtu=mtu, netns=netns)


def create_vlan(name: str, *, parent: int, number: int) -> NetlinkMessage:
    data = nl.attribute(_IFLA_VLAN_ID, struct.pack("=H", number))
    return _create(name, "vlan", data, parent=parent)


def create_dummy(name: str) -> NetlinkMessage:
    return _create(name, "dummy")


def create_vxlan(name: str, *, number: int, local: Address, port: int, mtu: int, mac: str) -> NetlinkMessage:
    """A VXLAN device that learns nothing and floods nothing: what it is not told it does not reach. It
    answers for neighbours it knows (``proxy``)."""
    local_kind = _IFLA_VXLAN_LOCAL if local.version == 4 else _IFLA_VXLAN_LOCAL6
    data = (
        nl.u32(_IFLA_VXLAN_ID, number),
        nl.attribute(local_kind, local.packed),
        nl.u8(_IFLA_VXLAN_LEARNING, 0),
        nl.u8(_IFLA_VXLAN_PROXY, 1),
        nl.be16(_IFLA_VXLAN_PORT, port),
    )
    return _create(name, "vxlan", *data, mtu=mtu, mac=mac)


def vxlan_local(sock: NetlinkSocket, name: str) -> Address | None:
    """The address that a VXLAN device sends from. :raises NetlinkError: ENODEV."""
    payload = _IFINFO.pack(0, 0, 0, 0, 0) + nl.string(3, name, limit=rt.IFNAMSIZ - 1)
    (answer,) = sock.request(NetlinkMessage(_RTM_GETLINK, 0, payload))
    info = nl.attributes(nl.attributes(answer.payload[_IFINFO.size :]).get(_IFLA_LINKINFO, b""))
    data = nl.attributes(info.get(_IFLA_INFO_DATA, b""))
    found = data.get(_IFLA_VXLAN_LOCAL) or data.get(_IFLA_VXLAN_LOCAL6)
    return ipaddress.ip_address(found) if found else None


def _neighbour(
    kind: int, flags: int, family: int, index: int, state: int, ndm_flags: int, *parts: bytes
) -> NetlinkMessage:
    return NetlinkMessage(kind, flags, _NDMSG.pack(family, index, state, ndm_flags, 0) + b"".join(parts))


def set_forwarding(index: int, mac: str, remote: Address) -> NetlinkMessage:
    """Frames for ``mac`` go to the VXLAN device of the host ``remote``."""
    parts = nl.attribute(_NDA_LLADDR, rt.mac_bytes(mac)) + nl.attribute(_NDA_DST, remote.packed)
    flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
    return _neighbour(
        _RTM_NEWNEIGH, flags, socket.AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, parts
    )


def delete_forwarding(index: int, mac: str, remote: Address) -> NetlinkMessage:
    parts = nl.attribute(_NDA_LLADDR, rt.mac_bytes(mac)) + nl.attribute(_NDA_DST, remote.packed)
    return _neighbour(_RTM_DELNEIGH, 0, socket.AF_BRIDGE, index, 0, _NTF_SELF, parts)


def set_neighbour(index: int, address: Address, mac: str) -> NetlinkMessage:
    """Who asks for ``address`` on the link is told ``mac`` (with ``proxy`` of VXLAN)."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    parts = nl.attribute(_NDA_DST, address.packed) + nl.attribute(_NDA_LLADDR, rt.mac_bytes(mac))
    flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
    return _neighbour(_RTM_NEWNEIGH, flags, family, index, _NUD_PERMANENT, 0, parts)


def delete_neighbour(index: int, address: Address) -> NetlinkMessage:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return _neighbour(_RTM_DELNEIGH, 0, family, index, 0, 0, nl.attribute(_NDA_DST, address.packed))


def forwarding(sock: NetlinkSocket, index: int) -> set[tuple[str, str]]:
    """MAC address and remote host of every entry of a VXLAN device."""
    request = NetlinkMessage(_RTM_GETNEIGH, nl.NLM_F_DUMP, _NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0))
    found = set()
    for received in sock.request(request):
        _family, owner, _state, flags, _type = _NDMSG.unpack_from(received.payload)
        parts = nl.attributes(received.payload[_NDMSG.size :])
        if owner == index and flags & _NTF_SELF and _NDA_DST in parts and _NDA_LLADDR in parts:
            found.add((parts[_NDA_LLADDR].hex(":"), str(ipaddress.ip_address(parts[_NDA_DST]))))
    return found


def neighbours(sock: NetlinkSocket, index: int) -> set[tuple[str, str]]:
    """Address and MAC address of every permanent neighbour on a link."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = NetlinkMessage(_RTM_GETNEIGH, nl.NLM_F_DUMP, _NDMSG.pack(family, 0, 0, 0, 0))
        for received in sock.request(request):
            _family, owner, state, _flags, _type = _NDMSG.unpack_from(received.payload)
            parts = nl.attributes(received.payload[_NDMSG.size :])
            if owner == index and state & _NUD_PERMANENT and _NDA_LLADDR in parts:
                found.add((str(ipaddress.ip_address(parts[_NDA_DST])), parts[_NDA_LLADDR].hex(":")))
    return found


def unsupported(error: NetlinkError) -> bool:
    """Whether the kernel said that it does not know this kind of link."""
    return error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOTSUP)
