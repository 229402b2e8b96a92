"""DHCP messages (RFC 2131, options in RFC 2132),
with the IP and UDP headers that a client without an address must write itself."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_SERVER_PORT, _CLIENT_PORT, _PROTO_UDP = 67, 68, 17
_BROADCAST_FLAG = 0x8000
_PAD, _MASK, _ROUTER, _HOSTNAME, _REQUESTED, _LEASE, _KIND, _SERVER, _PARAMETERS = (
    0,
    1,
    3,
    12,
    50,
    51,
    53,
    54,
    55,
)
_RENEW, _REBIND, _CLIENT_ID, _END = 58, 59, 61, 255
ANY = IPv4Address("0.0.0.0")


@dataclass(frozen=True)
class DhcpLease:
    """What a server grants. ``seconds`` count from the time of the request."""

    address: IPv4Address
    prefix_len: int
    gateway: IPv4Address | None
    server: IPv4Address
    seconds: int

    @property
    def renew_after(self) -> float:
        """Seconds (RFC 2131, 4.4.5): half of the lease."""
        return max(1.0, self.seconds / 2)


@dataclass(frozen=True)
class DhcpReply:
    kind: int
    transaction: int
    lease: DhcpLease


def request(
    kind: int,
    *,
    mac: bytes,
    transaction: int,
    hostname: str = "",
    current: IPv4Address = ANY,
    wanted: IPv4Address | None = None,
    server: IPv4Address | None = None,
) -> bytes:
    """A client's message as a broadcast IP packet.

    :param current: the address the client has and uses. :param wanted: the one it asks for.
    :param server: the one it chose.
    """
    options = _option(_KIND, bytes((kind,))) + _option(_CLIENT_ID, b"\1" + mac)
    if wanted is not None:
        options += _option(_REQUESTED, wanted.packed)
    if server is not None:
        options += _option(_SERVER, server.packed)
    if hostname:
        options += _option(_HOSTNAME, hostname.encode("ascii", "replace")[:63])
    if kind in (DISCOVER, REQUEST):
        options += _option(_PARAMETERS, bytes((_MASK, _ROUTER, _LEASE, _RENEW, _REBIND)))
    flags = 0 if int(current) else _BROADCAST_FLAG
    zero = bytes(4)
    bootp = _BOOTP.pack(
        1, 1, 6, 0, transaction, 0, flags, current.packed, zero, zero, zero, mac + bytes(10), b"", b""
    )
    data = bootp + _COOKIE + options + bytes((_END,))
    udp = _UDP.pack(_CLIENT_PORT, _SERVER_PORT, _UDP.size + len(data), 0) + data
    return _ip_header(current, len(udp)) + udp


def _option(kind: int, data: bytes) -> bytes:
    return bytes((kind, len(data))) + data


def _ip_header(source: IPv4Address, length: int) -> bytes:
    everybody = b"\xff\xff\xff\xff"
    fields = [0x45, 0x10, _IP.size + length, 0, 0, 64, _PROTO_UDP, 0, source.packed, everybody]
    fields[7] = _checksum(_IP.pack(*fields))
    return _IP.pack(*fields)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def read(packet: bytes, mac: bytes) -> DhcpReply | None:
    """A server's answer to the client with ``mac``; None for anything else on the wire."""
    if len(packet) < _IP.size or packet[0] >> 4 != 4 or packet[9] != _PROTO_UDP:
        return None
    start = (packet[0] & 0x0F) * 4
    if len(packet) < start + _UDP.size + _BOOTP.size + 4:
        return None
    source, target, _length, _sum = _UDP.unpack_from(packet, start)
    if (source, target) != (_SERVER_PORT, _CLIENT_PORT):
        return None
    bootp = _BOOTP.unpack_from(packet, start + _UDP.size)
    rest = packet[start + _UDP.size + _BOOTP.size :]
    if bootp[0] != 2 or bootp[11][:6] != mac or rest[:4] != _COOKIE:
        return None
    options = _options(rest[4:])
    if len(options.get(_KIND, b"")) != 1:
        return None
    kind = options[_KIND][0]
    server = _address(options.get(_SERVER)) or IPv4Address(packet[12:16])
    lease = DhcpLease(
        address=IPv4Address(bootp[8]),
        prefix_len=_prefix(options.get(_MASK)),
        gateway=_address(options.get(_ROUTER)),
        server=server,
        seconds=int.from_bytes(options.get(_LEASE, b"")[:4], "big"),
    )
    return DhcpReply(kind, bootp[4], lease)


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data) and data[offset] != _END:
        if data[offset] == _PAD:
            offset += 1
            continue
        if offset + 2 > len(data) or offset + 2 + data[offset + 1] > len(data):
            break
        found[data[offset]] = data[offset + 2 : offset + 2 + data[offset + 1]]
        offset += 2 + data[offset + 1]
    return found


def _address(data: bytes | None) -> IPv4Address | None:
    return IPv4Address(data[:4]) if data is not None and len(data) >= 4 else None


def _prefix(mask: bytes | None) -> int:
    address = _address(mask)
    if address is None:
        return 24
    try:
        return IPv4Network(f"0.0.0.0/{address}").prefixlen
    except ValueError:
        return 24
