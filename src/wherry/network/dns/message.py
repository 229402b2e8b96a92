"""DNS messages, as far as a server that answers from a table and passes the rest on needs them (RFC 1035,
RFC 6891 for EDNS, RFC 2308 for how long a negative answer lasts).

What comes in was written by anybody: every offset is checked, nothing recurses.
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
"""Bytes of an answer over UDP to whom does not say more (RFC 1035, 4.2.1)."""
OUR_MAX = 1232
"""Bytes that are not fragmented on any path (DNS flag day 2020); what we say that we take."""
TTL = 10
"""Seconds: containers move."""


class Malformed(Exception):
    """No question that can be answered."""


@dataclass(frozen=True)
class Query:
    """One question. ``name`` in lower case without the last dot; ``question`` are its bytes as asked;
    ``limit`` how long an answer over UDP may be; ``edns`` that the asker speaks it."""

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
        """The same for the same question, however it is spelled; with what changes the answer's content."""
        return self.question.lower() + bytes((bool(self.flags & _CD), self.edns))


def parse(data: bytes) -> Query:
    """:raises Malformed: no query, or not with one question."""
    if len(data) < HEADER.size:
        raise Malformed
    ident, flags, questions, answers, authorities, additional = HEADER.unpack_from(data)
    if flags & (_QR | _OPCODE) or questions != 1 or answers or authorities:
        raise Malformed
    labels: list[str] = []
    offset = HEADER.size
    while True:
        if offset >= len(data):
            raise Malformed
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(data) or offset - HEADER.size > 255:
            raise Malformed
        labels.append(data[offset : offset + length].decode("latin-1"))
        offset += length
    if offset + 4 > len(data):
        raise Malformed
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
    """An answer of our own: ``records`` are types and their data, all of the question's name."""
    flags = _QR | _AA | _RA | (query.flags & (_RD | _CD)) | code | (_TC if truncated else 0)
    out = HEADER.pack(query.id, flags, 1, len(records), 0, int(query.edns)) + query.question
    for kind, data in records:
        out += b"\xc0\x0c" + _RECORD.pack(kind, IN, TTL, len(data)) + data
    return out + (_opt() if query.edns else b"")


def _opt() -> bytes:
    return b"\0" + struct.pack("!HHIH", OPT, OUR_MAX, 0, 0)


def fitting(query: Query, reply: bytes) -> bytes:
    """The reply, or where it is too long for the asker's UDP one that tells it to ask over TCP."""
    if len(reply) <= query.limit:
        return reply
    code = reply[3] & 0x0F
    return answer(query, code, truncated=True)


def malformed(data: bytes) -> bytes | None:
    """The answer to what :func:`parse` refused; None for what is no query at all."""
    if len(data) < HEADER.size or data[2] & 0x80:
        return None
    ident, flags = struct.unpack_from("!HH", data)
    code = NOTIMP if flags & _OPCODE else FORMERR
    return HEADER.pack(ident, _QR | (flags & (_OPCODE | _RD)) | code, 0, 0, 0, 0)


def with_id(data: bytes, ident: int) -> bytes:
    return struct.pack("!H", ident) + data[2:]


def addressed(reply: bytes, query: Query) -> bytes:
    """A reply to the same question of another asker, spelled as this one did."""
    end = HEADER.size + len(query.question)
    return struct.pack("!H", query.id) + reply[2 : HEADER.size] + query.question + reply[end:]


def address_record(text: str) -> tuple[int, bytes]:
    packed = ip_address(text).packed
    return (A if len(packed) == 4 else AAAA), packed


def name_record(name: str) -> tuple[int, bytes]:
    """A PTR record's content; labels that cannot be are left out."""
    out = b""
    for label in name.split("."):
        raw = label.encode("latin-1", "replace")
        if 0 < len(raw) < 64:
            out += bytes((len(raw),)) + raw
    return PTR, out[:254] + b"\0"


def reversed_address(name: str) -> str:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, ``""`` for any other."""
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
class Reply:
    """An upstream's answer. ``negative_ttl`` are the seconds for which it may be remembered that there is
    nothing, 0 where there is something, or nothing is said."""

    code: int
    truncated: bool
    negative_ttl: int


def read_reply(data: bytes, query: Query, ident: int) -> Reply | None:
    """None for what does not answer the query: another's, or a forger's."""
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
    return Reply(code, bool(flags & _TC), ttl)


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
    """Behind the name at ``offset``; -1 where it does not end."""
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
