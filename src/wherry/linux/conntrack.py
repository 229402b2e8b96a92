"""Delete tracked connections (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

A flow keeps the address translation of its first packet. UDP flows have no end. So if a client keeps sending
to a port on which a container was just published, its packets do not reach the container until the old flow
is deleted.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from wherry.linux import netlink as nl
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket

_NFNL_SUBSYS_CTNETLINK = 1
_IPCTNL_MSG_CT_GET, _IPCTNL_MSG_CT_DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_ID, _CTA_FILTER = 1, 12, 25
_CTA_TUPLE_PROTO, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 2, 1, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_F_PROTO_NUM, _F_PROTO_DST_PORT = 1 << 3, 1 << 5
_NFGENMSG = struct.Struct("!BBH")
_FEW = 8
"""Up to this number of ports, one request per port is sent to the kernel."""
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)


def forget_udp(ports: Iterable[int]) -> None:
    """Delete every UDP flow of the calling thread's namespace, of IPv4 and IPv6, that was sent to one of
    ``ports``.

    The kernel does the search if it can (6.0 and newer). An older one rejects the filter, because the tuple
    beside it is incomplete; then the flows are listed and deleted one by one. The same is done for many
    ports, because the kernel goes through all flows for each request.
    """
    wanted = set(ports)
    if not wanted:
        return
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
                if len(wanted) > _FEW or not _delete_by_filter(sock, family, wanted):
                    _delete_one_by_one(sock, family, wanted)
        except OSError as e:
            # this kernel has no ctnetlink: nothing can be deleted, and that is no error
            if e.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _delete_by_filter(sock: NetlinkSocket, family: int, ports: set[int]) -> bool:
    """:returns: whether the kernel supports it."""
    for port in sorted(ports):
        try:
            sock.transact(_message(family, _IPCTNL_MSG_CT_DELETE, 0, _filter(port)))
        except NetlinkError as e:
            if e.errno in _UNSUPPORTED:
                return False
            if e.errno != errno.ENOENT:
                raise
    return True


def _filter(port: int) -> bytes:
    proto = nl.nested(
        _CTA_TUPLE_PROTO, nl.u8(_CTA_PROTO_NUM, socket.IPPROTO_UDP), nl.be16(_CTA_PROTO_DST_PORT, port)
    )
    flags = nl.nested(
        _CTA_FILTER,
        nl.u32(_CTA_FILTER_ORIG_FLAGS, _F_PROTO_NUM | _F_PROTO_DST_PORT),
        nl.u32(_CTA_FILTER_REPLY_FLAGS, 0),
    )
    return nl.nested(_CTA_TUPLE_ORIG, proto) + flags


def _message(family: int, kind: int, flags: int, payload: bytes) -> NetlinkMessage:
    head = _NFGENMSG.pack(family, 0, 0)
    return NetlinkMessage(_NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, head + payload)


def _delete_one_by_one(sock: NetlinkSocket, family: int, ports: set[int]) -> None:
    for received in sock.request(_message(family, _IPCTNL_MSG_CT_GET, nl.NLM_F_DUMP, b"")):
        found = nl.attributes(received.payload[_NFGENMSG.size :])
        tuple_ = found.get(_CTA_TUPLE_ORIG, b"")
        proto = nl.attributes(nl.attributes(tuple_).get(_CTA_TUPLE_PROTO, b""))
        port = int.from_bytes(proto.get(_CTA_PROTO_DST_PORT, b""), "big")
        if proto.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]) or port not in ports:
            continue
        identity = nl.attribute(_CTA_ID, found[_CTA_ID]) if _CTA_ID in found else b""
        entry = nl.attribute(_CTA_TUPLE_ORIG | nl.NLA_F_NESTED, tuple_) + identity
        try:
            sock.transact(_message(family, _IPCTNL_MSG_CT_DELETE, 0, entry))
        except NetlinkError as e:
            if e.errno != errno.ENOENT:
                raise
