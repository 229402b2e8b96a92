"""Forgetting connections (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

A flow keeps the address translation it began with. UDP has no end, so a client that goes on sending to a
port keeps missing the container that has just been published there, until its old flow is forgotten.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from wherry.linux import netlink as nl
from wherry.linux.netlink import Message, NetlinkError, NetlinkSocket

_NFNL_SUBSYS_CTNETLINK = 1
_IPCTNL_MSG_CT_GET, _IPCTNL_MSG_CT_DELETE = 1, 2
_CTA_TUPLE_ORIG, _CTA_ID, _CTA_FILTER = 1, 12, 25
_CTA_TUPLE_PROTO, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 2, 1, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_F_PROTO_NUM, _F_PROTO_DST_PORT = 1 << 3, 1 << 5
_NFGENMSG = struct.Struct("!BBH")
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)


def forget_udp(ports: Iterable[int]) -> None:
    """Forget every IPv4 UDP flow of the calling thread's namespace that was sent to one of ``ports``.

    The kernel does the search where it can (6.0 and newer); an older one refuses the filter, because the
    tuple beside it is not whole, and the flows are listed and deleted one by one.
    """
    wanted = set(ports)
    if not wanted:
        return
    try:
        with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
            for port in sorted(wanted):
                try:
                    sock.transact(_message(_IPCTNL_MSG_CT_DELETE, 0, _filter(port)))
                except NetlinkError as e:
                    if e.errno in _UNSUPPORTED:
                        _delete_one_by_one(sock, wanted)
                        return
                    if e.errno != errno.ENOENT:
                        raise
    except OSError as e:
        # no ctnetlink in this kernel, so there is no way to, and nothing that fails for it
        if e.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            raise


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


def _message(kind: int, flags: int, payload: bytes) -> Message:
    head = _NFGENMSG.pack(socket.AF_INET, 0, 0)
    return Message(_NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, head + payload)


def _delete_one_by_one(sock: NetlinkSocket, ports: set[int]) -> None:
    for received in sock.request(_message(_IPCTNL_MSG_CT_GET, nl.NLM_F_DUMP, b"")):
        found = nl.attributes(received.payload[_NFGENMSG.size :])
        tuple_ = found.get(_CTA_TUPLE_ORIG, b"")
        proto = nl.attributes(nl.attributes(tuple_).get(_CTA_TUPLE_PROTO, b""))
        port = int.from_bytes(proto.get(_CTA_PROTO_DST_PORT, b""), "big")
        if proto.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP]) or port not in ports:
            continue
        identity = nl.attribute(_CTA_ID, found[_CTA_ID]) if _CTA_ID in found else b""
        entry = nl.attribute(_CTA_TUPLE_ORIG | nl.NLA_F_NESTED, tuple_) + identity
        try:
            sock.transact(_message(_IPCTNL_MSG_CT_DELETE, 0, entry))
        except NetlinkError as e:
            if e.errno != errno.ENOENT:
                raise
