"""Which kinds of network interfaces the kernel can make, found by making them where nobody sees it."""

from __future__ import annotations

import ipaddress
import os

from wherry.linux import netns, rtkinds, syscalls
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket

_MAC = "02:42:00:00:00:{:02x}"


def kinds() -> dict[str, bool]:
    """``bridge``, ``veth``, ``vxlan``, ``vlan``, ``macvlan``, ``ipvlan``. They are made in a network
    namespace that ends with its thread.

    :raises OSError: no right to make a namespace.
    """
    return netns.on_thread(_tried)


def _tried() -> dict[str, bool]:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with NetlinkSocket() as sock:
        found = {"bridge": _works(sock, rt.create_bridge("b0", mac=_MAC.format(3), mtu=1500))}
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pair = rt.Veth(name="p0", peer_name="p1", peer_netns=here, peer_mac=_MAC.format(2), mtu=1500)
            found["veth"] = _works(sock, rt.create_veth(pair))
        finally:
            os.close(here)
        local = ipaddress.ip_address("127.0.0.1")
        vxlan = rtkinds.create_vxlan("x0", number=1, local=local, port=4789, mtu=1450, mac=_MAC.format(4))
        found["vxlan"] = _works(sock, vxlan)
        parent = next((link.index for link in rt.links(sock) if link.name == "p0"), 0)
        if parent:
            found["vlan"] = _works(sock, rtkinds.create_vlan("v0", parent=parent, number=2))
            found["macvlan"] = _works(sock, rtkinds.create_macvlan("m0", parent=parent, mode="bridge"))
            parent = next(link.index for link in rt.links(sock) if link.name == "p1")
            ipvlan = rtkinds.create_ipvlan("i0", parent=parent, mode="l2", flag="bridge")
            found["ipvlan"] = _works(sock, ipvlan)
        return found


def _works(sock: NetlinkSocket, message: NetlinkMessage) -> bool:
    try:
        sock.transact(message)
    except NetlinkError:
        return False
    return True
