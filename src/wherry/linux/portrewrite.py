"""Port numbers rewritten on their way out of a namespace, by nftables (linux/netfilter/nf_tables.h).

Written by hand rather than through libnftables: that waits with select(2), which ends the process when its
socket's number is 1024 or more, and a daemon with many containers opens such sockets all the time.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from wherry.linux import netlink as nl
from wherry.linux.netlink import NetlinkMessage, NetlinkSocket

PREFIX = "wherry_port_"
"""Of the table's name; the port inside follows, so that whoever comes later knows it."""
_SUBSYSTEM = 10 << 8
_BEGIN, _END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 1, 2, 3, 6
_APPEND = 0x800
_GENMSG = struct.Struct("!BBH")
_LOCAL_OUT, _RAW = 3, -300
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_SOURCE, _DESTINATION = 12, 16
"""Offsets of the addresses in an IPv4 header."""
_CHECKSUM = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}
_INTERNET_CHECKSUM, _L4PROTO, _EQUAL, _REGISTER, _ACCEPT = 1, 16, 0, 1, 1


def rewrite(address: str, *, outside: int, inside: int) -> None:
    """In the calling thread's namespace, have what goes to ``address``, port ``outside``, go to port
    ``inside``, and the answers come from where they are expected; UDP and TCP, without connection tracking.
    Replaces what was said before, which costs the kernel 15 ms.

    :raises OSError: the kernel refuses.
    """
    name = f"{PREFIX}{inside}"
    messages = [_table(_NEWTABLE, name), _chain(name)]
    packed = IPv4Address(address).packed
    for proto in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
        messages.append(_rule(name, packed, _DESTINATION, proto, 2, outside, inside))
        messages.append(_rule(name, packed, _SOURCE, proto, 0, inside, outside))
    with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
        messages[:0] = [_table(_DELTABLE, old) for old in _tables(sock)]
        sock.transact(*messages, frame=(_frame(_BEGIN), _frame(_END)))


def rewritten() -> int:
    """The port inside that was said in the calling thread's namespace before, 0 for none."""
    with NetlinkSocket(nl.NETLINK_NETFILTER) as sock:
        found = [name.removeprefix(PREFIX) for name in _tables(sock)]
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else 0


def _tables(sock: NetlinkSocket) -> list[str]:
    answers = sock.request(_message(_GETTABLE, nl.NLM_F_DUMP))
    names = (nl.text_of(nl.attributes(a.payload[_GENMSG.size :]).get(1, b"")) for a in answers)
    return [name for name in names if name.startswith(PREFIX)]


def _frame(kind: int) -> NetlinkMessage:
    return NetlinkMessage(kind, 0, _GENMSG.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM >> 8))


def _message(kind: int, flags: int, *attributes: bytes) -> NetlinkMessage:
    return NetlinkMessage(_SUBSYSTEM | kind, flags, _GENMSG.pack(socket.AF_INET, 0, 0) + b"".join(attributes))


def _table(kind: int, name: str) -> NetlinkMessage:
    return _message(kind, nl.NLM_F_CREATE if kind == _NEWTABLE else 0, nl.string(1, name))


def _chain(name: str) -> NetlinkMessage:
    hook = nl.nested(4, nl.be32(1, _LOCAL_OUT), nl.be32(2, _RAW & 0xFFFFFFFF))
    names = nl.string(1, name) + nl.string(3, "output")
    return _message(_NEWCHAIN, nl.NLM_F_CREATE, names, hook, nl.be32(5, _ACCEPT), nl.string(7, "filter"))


def _rule(
    name: str, address: bytes, offset: int, proto: int, port_offset: int, before: int, after: int
) -> NetlinkMessage:
    expressions = (
        _load(_NETWORK_HEADER, offset, 4),
        _compare(address),
        _expression("meta", nl.be32(1, _REGISTER), nl.be32(2, _L4PROTO)),
        _compare(bytes((proto,))),
        _load(_TRANSPORT_HEADER, port_offset, 2),
        _compare(struct.pack("!H", before)),
        _expression("immediate", nl.be32(1, _REGISTER), _data(2, struct.pack("!H", after))),
        _store(port_offset, _CHECKSUM[proto]),
    )
    names = nl.string(1, name) + nl.string(2, "output")
    return _message(_NEWRULE, nl.NLM_F_CREATE | _APPEND, names, nl.nested(4, *expressions))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nl.nested(1, nl.string(1, name), nl.nested(2, *attributes))


def _data(kind: int, value: bytes) -> bytes:
    return nl.nested(kind, nl.attribute(1, value))


def _load(base: int, offset: int, length: int) -> bytes:
    place = nl.be32(2, base) + nl.be32(3, offset) + nl.be32(4, length)
    return _expression("payload", nl.be32(1, _REGISTER), place)


def _store(offset: int, checksum: int) -> bytes:
    place = nl.be32(2, _TRANSPORT_HEADER) + nl.be32(3, offset) + nl.be32(4, 2)
    sums = nl.be32(6, _INTERNET_CHECKSUM) + nl.be32(7, checksum) + nl.be32(8, 0)
    return _expression("payload", nl.be32(5, _REGISTER), place, sums)


def _compare(value: bytes) -> bytes:
    return _expression("cmp", nl.be32(1, _REGISTER), nl.be32(2, _EQUAL), _data(3, value))
