"""DNS messages: the parts that a server needs which answers from a table and forwards the rest (RFC 1035, RFC
6891 for EDNS, RFC 2308 for the lifetime of negative answers).

Input can come from anybody: every offset is checked, and there is no recursion.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

A, SOA, PTR, AAAA, OPT, ANY = 1, 6, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
HEADER = struct.Struct("!HHHHHH")
_QR, _OPCODE, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_RECORD = struct.Struct("!HHIH")
PLAIN_MAX = 512
"""The limit in bytes of a UDP answer to a client without EDNS (RFC 1035, 4.2.1)."""
OUR_MAX = 1232
"""A size in bytes that is fragmented on no path (DNS flag day 2020); we advertise it as our limit."""
TTL = 10
"""Seconds; short, because containers move."""


class MalformedQuery(Exception):
    """Not a query that can be answered."""


@dataclass(frozen=True)
class Query:
    """One query. ``name``: lower case, without the last dot; ``question``: its bytes as received; ``limit``:
    the most bytes of a UDP answer; ``edns``: whether the client supports EDNS."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    question: bytes
    edns: bool
    limit: int

    @property
    def key(self) -> bytes:
        """Equal for equal queries, whatever the spelling; includes what changes the answer's content."""
        return self.question.lower() + bytes((bool(self.flags & _CD), self.edns))


def parse(data: bytes) -> Query:
    """:raises Malformed: not a query, or not with exactly one question."""
    if len(data) < HEADER.size:
        raise MalformedQuery
    ident, flags, questions, answers, authorities, additional = HEADER.unpack_from(data)
    if flags & (_QR | _OPCODE) or questions != 1 or answers or authorities:
        raise MalformedQuery
    labels: list[str] = []
    offset = HEADER.size
    while True:
        if offset >= len(data):
            raise MalformedQuery
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(data) or offset - HEADER.size > 255:
            raise MalformedQuery
        labels.append(data[offset : offset + length].decode("latin-1"))
        offset += length
    if offset + 4 > len(data):
        raise MalformedQuery
    kind, klass = struct.unpack_from("!HH", data, offset)
    offset += 4
    edns, limit = _edns(data, offset, additional)
    return Query(ident, flags, ".".join(labels).lower(), kind, klass, data[HEADER.size : offset], edns, limit)


def _edns(data: bytes, offset: int, additional: int) -> tuple[bool, int]:
    if additional and len(data) >= offset + 11 and data[offset] == 0:
        kind, size = struct.unpack_from("!HH", data, offset + 1)
        if kind == OPT:
            return True, max(PLAIN_MAX, size)
    return False, PLAIN_MAX


def answer(
    query: Query, code: int, records: Sequence[tuple[int, bytes]] = (), *, truncated: bool = False
) -> bytes:
    """Our own answer: ``records`` are types and data, all for the query's name."""
    flags = _QR | _AA | _RA | (query.flags & (_RD | _CD)) | code | (_TC if truncated else 0)
    out = HEADER.pack(query.id, flags, 1, len(records), 0, int(query.edns)) + query.question
    for kind, data in records:
        out += b"\xc0\x0c" + _RECORD.pack(kind, IN, TTL, len(data)) + data
    return out + (_opt() if query.edns else b"")


def _opt() -> bytes:
    return b"\0" + struct.pack("!HHIH", OPT, OUR_MAX, 0, 0)


def fitting(query: Query, reply: bytes) -> bytes:
    """The reply; if it is too long for the client's UDP limit, a reply that makes it ask again over TCP."""
    if len(reply) <= query.limit:
        return reply
    code = reply[3] & 0x0F
    return answer(query, code, truncated=True)


def malformed(data: bytes) -> bytes | None:
    """The answer to what :func:`parse` refused; None if it is not a query at all."""
    if len(data) < HEADER.size or data[2] & 0x80:
        return None
    ident, flags = struct.unpack_from("!HH", data)
    code = NOTIMP if flags & _OPCODE else FORMERR
    return HEADER.pack(ident, _QR | (flags & (_OPCODE | _RD)) | code, 0, 0, 0, 0)


def with_id(data: bytes, ident: int) -> bytes:
    return struct.pack("!H", ident) + data[2:]


def addressed(reply: bytes, query: Query) -> bytes:
    """The reply, adapted to another client's equal query and its spelling."""
    end = HEADER.size + len(query.question)
    return struct.pack("!H", query.id) + reply[2 : HEADER.size] + query.question + reply[end:]


def address_record(text: str) -> tuple[int, bytes]:
    packed = ip_address(text).packed
    return (A if len(packed) == 4 else AAAA), packed


def name_record(name: str) -> tuple[int, bytes]:
    """The data of a PTR record; impossible labels are left out."""
    out = b""
    for label in name.split("."):
        raw = label.encode("latin-1", "replace")
        if 0 < len(raw) < 64:
            out += bytes((len(raw),)) + raw
    return PTR, out[:254] + b"\0"


def reversed_address(name: str) -> str:
    """The address for a name below in-addr.arpa or ip6.arpa; ``""`` for any other name."""
    parts = name.split(".")
    try:
        if parts[-2:] == ["in-addr", "arpa"] and len(parts) == 6:
            return str(ip_address(".".join(reversed(parts[:4]))))
        if parts[-2:] == ["ip6", "arpa"] and len(parts) == 34 and all(len(p) == 1 for p in parts[:32]):
            return str(ip_address(bytes.fromhex("".join(reversed(parts[:32])))))
    except ValueError:
        pass
    return ""


@dataclass(frozen=True)
class DnsReply:
    """An upstream's answer. ``negative_ttl``: seconds for which a negative answer may be cached; 0 if it is a
    positive answer, or if no time is given."""

    code: int
    truncated: bool
    negative_ttl: int


def read_reply(data: bytes, query: Query, ident: int) -> DnsReply | None:
    """None if it does not answer the query: an unrelated or forged answer."""
    if len(data) < HEADER.size + len(query.question):
        return None
    got, flags, questions, answers, authorities, _ = HEADER.unpack_from(data)
    question = data[HEADER.size : HEADER.size + len(query.question)]
    if got != ident or not flags & _QR or questions != 1 or question.lower() != query.question.lower():
        return None
    code = flags & 0x0F
    ttl = 0
    if not answers and code in (NOERROR, NXDOMAIN) and not flags & _TC:
        ttl = _negative_ttl(data, HEADER.size + len(query.question), authorities)
    return DnsReply(code, bool(flags & _TC), ttl)


def _negative_ttl(data: bytes, offset: int, count: int) -> int:
    for _ in range(min(count, 16)):
        offset = _skip_name(data, offset)
        if offset < 0 or offset + _RECORD.size > len(data):
            return 0
        kind, _klass, ttl, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size
        if kind == SOA:
            end = offset + length
            if length < 22 or end > len(data):
                return 0
            (minimum,) = struct.unpack_from("!I", data, end - 4)
            return int(min(ttl, minimum))
        offset += length
    return 0


def _skip_name(data: bytes, offset: int) -> int:
    """The offset after the name at ``offset``; -1 if the name does not end."""
    while offset < len(data):
        length = data[offset]
        if length == 0:
            return offset + 1
        if length & 0xC0 == 0xC0:
            return offset + 2
        if length & 0xC0:
            return -1
        offset += 1 + length
    return -1
