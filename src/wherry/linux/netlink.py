"""Netlink: encoding, decoding and one socket (netlink(7); include/uapi/linux/netlink.h).

Only the messages that the engine needs. Every length is checked before it is written: an attribute's length
is a 16-bit field, and if a longer payload wrapped it silently, its content would be read as further
attributes (CVE-2021-43784 was that, in another runtime). The kernel's answers are checked in the same way.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from wherry.errors import Internal

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
_NLM_F_DUMP_INTR, _NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x10, 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 1, 10, 11
_NETLINK_GET_STRICT_CHK = 12

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")

ATTRIBUTE_PAYLOAD_MAX = 0xFFFF - _ATTRIBUTE.size
"""Bytes; what is left of the 16-bit length beside the attribute's own header."""
BATCH_MAX = 64 << 10
"""Bytes in one send; far below the default send buffer of 208 KiB."""
_RECEIVE = 64 << 10
_TIMEOUT = 30.0
_DUMP_RETRIES = 8


class NetlinkError(OSError):
    """The kernel refused a message.

    :ivar position: which message of the batch, from 0. The text carries the kernel's own explanation.
    """

    def __init__(self, code: int, explanation: str = "", position: int = 0) -> None:
        text = os.strerror(code)
        super().__init__(code, f"{text}: {explanation}" if explanation else text)
        self.position = position


@dataclass(frozen=True)
class NetlinkMessage:
    """A message without its header: ``kind`` as ``nlmsg_type``, ``payload`` behind the header."""

    kind: int
    flags: int
    payload: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes.

    :raises Internal: the payload does not fit the 16-bit length, or the kind its 14 bits.
    """
    if len(payload) > ATTRIBUTE_PAYLOAD_MAX:
        raise Internal(
            f"cannot encode netlink attribute {kind}: "
            f"{len(payload)} bytes are more than {ATTRIBUTE_PAYLOAD_MAX}"
        )
    if not 0 <= kind & ~NLA_F_NESTED <= NLA_TYPE_MASK:
        raise Internal(f"cannot encode netlink attribute {kind}: no such kind")
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, _pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, _pack("=I", value))


def be16(kind: int, value: int) -> bytes:
    return attribute(kind, _pack("!H", value))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, _pack("!I", value))


def string(kind: int, text: str, *, limit: int = ATTRIBUTE_PAYLOAD_MAX - 1) -> bytes:
    """A NUL-terminated string of at most ``limit`` bytes.

    :raises Internal: longer than that, or with a NUL inside, which the kernel would cut at.
    """
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data or len(data) > limit:
        raise Internal(
            f"cannot encode netlink attribute {kind}: {text[:64]!r} is not a string of {limit} bytes"
        )
    return attribute(kind, data + b"\0")


def _pack(form: str, value: int) -> bytes:
    try:
        return struct.pack(form, value)
    except struct.error as e:
        raise Internal(f"cannot encode netlink integer {value}: {e}") from e


def encode(message: NetlinkMessage, sequence: int) -> bytes:
    """The message with its header, padded to four bytes."""
    length = _HEADER.size + len(message.payload)
    if length > BATCH_MAX:
        raise Internal(
            f"cannot send netlink message {message.kind}: {length} bytes are more than {BATCH_MAX}"
        )
    head = _HEADER.pack(length, message.kind, message.flags | NLM_F_REQUEST, sequence, 0)
    return head + message.payload + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Decode attributes; if a kind occurs several times the last one counts, as in the kernel's
    ``nla_parse``.

    :raises Internal: a length that does not fit.
    """
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise Internal(f"cannot decode netlink attribute: length {length} at {offset} of {len(data)}")
        found[kind & NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def text_of(payload: bytes) -> str:
    """A string attribute without what follows its first NUL."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Received:
    """A message from the kernel. ``sequence`` is the request's, 0 for a notification."""

    kind: int
    flags: int
    sequence: int
    payload: bytes


def decode(data: bytes) -> Iterator[Received]:
    """Split a datagram into its messages.

    :raises Internal: a length that does not fit.
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            raise Internal(f"cannot decode netlink message: length {length} at {offset} of {len(data)}")
        yield Received(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


class NetlinkSocket:
    """One netlink socket. It belongs to the network namespace of the thread that made it, for good.

    Not thread-safe; opening one costs about 20 microseconds, so that every operation opens its own.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE, *, group: int = 0) -> None:
        """:param group: a multicast group to listen to (netlink(7)).

        :raises OSError: the kernel lacks the protocol.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            if group:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            else:
                self._socket.settimeout(_TIMEOUT)
        except BaseException:
            self._socket.close()
            raise

    def be_strict(self) -> None:
        """Make the kernel use a dump's header as a filter (Linux 4.20)."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def transact(
        self, *messages: NetlinkMessage, frame: tuple[NetlinkMessage, NetlinkMessage] | None = None
    ) -> None:
        """Send all messages at once and wait for every acknowledgement.

        If a message fails, the kernel still processes the next ones: the caller must undo what was done.

        :param frame: messages that begin and end an atomic batch; these two are not acknowledged.
        :raises NetlinkError: the first refusal.
        """
        asked = [NetlinkMessage(m.kind, m.flags | NLM_F_ACK, m.payload) for m in messages]
        first = self._send([frame[0], *asked, frame[1]] if frame is not None else asked)
        first += 0 if frame is None else 1
        failure: NetlinkError | None = None
        waiting = set(range(first, first + len(messages)))
        while waiting:
            for received in decode(self._socket.recv(_RECEIVE)):
                if received.kind != _NLMSG_ERROR or received.sequence not in waiting:
                    continue
                waiting.discard(received.sequence)
                error = _refusal(received, received.sequence - first)
                failure = failure or error
        if failure is not None:
            raise failure

    def request(self, message: NetlinkMessage) -> list[Received]:
        """Send one query and return its answers: one, or with ``NLM_F_DUMP`` all.

        If the kernel marks a dump as inconsistent, it is repeated.

        :raises NetlinkError: the refusal.
        """
        for _ in range(_DUMP_RETRIES):
            answers = self._query(message)
            if not any(a.flags & _NLM_F_DUMP_INTR for a in answers):
                break
        return answers

    def _query(self, message: NetlinkMessage) -> list[Received]:
        dump = message.flags & NLM_F_DUMP == NLM_F_DUMP
        sequence = self._send([message])
        answers: list[Received] = []
        while True:
            for received in decode(self._socket.recv(_RECEIVE)):
                if received.sequence != sequence:
                    continue
                if received.kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    error = _refusal(received, 0)
                    if error is not None:
                        raise error
                    return answers
                answers.append(received)
                if not dump:
                    return answers

    def notifications(self) -> list[Received]:
        """Wait for the next datagram of the group.

        :raises OSError: ENOBUFS when notifications were lost.
        """
        return list(decode(self._socket.recv(_RECEIVE)))

    def _send(self, messages: Sequence[NetlinkMessage]) -> int:
        first = self._sequence + 1
        data = b"".join(encode(m, first + i) for i, m in enumerate(messages))
        if len(data) > BATCH_MAX:
            raise Internal(f"cannot send netlink batch: {len(data)} bytes are more than {BATCH_MAX}")
        self._sequence += len(messages)
        self._socket.sendto(data, (0, 0))
        return first


def _refusal(received: Received, position: int) -> NetlinkError | None:
    if len(received.payload) < _ERRNO.size:
        return None
    (code,) = _ERRNO.unpack_from(received.payload)
    if code == 0 or (received.kind == _NLMSG_DONE and code > 0):
        return None
    explanation = ""
    if received.kind == _NLMSG_ERROR and received.flags & _NLM_F_ACK_TLVS:
        # the request's header follows the code; its payload does so only where the answer is not capped
        offset = _ERRNO.size + _HEADER.size
        if not received.flags & _NLM_F_CAPPED and len(received.payload) >= offset:
            (length,) = struct.unpack_from("=I", received.payload, _ERRNO.size)
            offset = _ERRNO.size + ((length + 3) & ~3)
        explanation = text_of(attributes(received.payload[offset:]).get(_NLMSGERR_ATTR_MSG, b""))
    return NetlinkError(-code if code < 0 else errno.EPROTO, explanation, position)
