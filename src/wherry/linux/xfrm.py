"""IPsec in the kernel: security associations and policies over netlink (ip-xfrm(8); RFC 4301, 4303;
include/uapi/linux/xfrm.h).

Only ESP in transport mode with AES-GCM (RFC 4106) and 64-bit sequence numbers is here, for UDP to one port.
An association is known by its SPI and its destination; a policy says by its selector which packets need one.
``reqid`` ties the two together and says whose they are.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from wherry.errors import Internal
from wherry.linux import netlink as nl
from wherry.linux.netlink import NetlinkError, NetlinkMessage, NetlinkSocket, Received

_log = logging.getLogger(__name__)
Direction = Literal["in", "out"]

_NETLINK_XFRM = 6
_NEWSA, _DELSA, _GETSA, _NEWPOLICY, _DELPOLICY, _GETPOLICY = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
_UPDPOLICY, _FLUSHSA, _FLUSHPOLICY = 0x19, 0x1C, 0x1D
_XFRMNLGRP_SA, _XFRMNLGRP_POLICY = 3, 4
_XFRMA_TMPL, _XFRMA_ALG_AEAD, _XFRMA_REPLAY_ESN_VAL = 5, 18, 23
_STATE_ESN = 128
_QUIET, _AT_ONCE = 20, 1000
"""Milliseconds of silence after which everything is taken to have arrived; and the number of waits."""
_TRANSPORT, _ALLOW, _BLOCK = 0, 0, 1
_DIRECTIONS: dict[Direction, int] = {"in": 0, "out": 1}
_INFINITE = (1 << 64) - 1

_ALGORITHM = b"rfc4106(gcm(aes))"
KEY_SIZE = 20
"""Bytes of an association's key: 16 of AES-128, and RFC 4106's salt of 4."""
_ICV_BITS = 128
_REPLAY_WINDOW = 1024
"""How many packets late a packet may be: a sender's CPUs and the network reorder packets."""
SPI_FIRST, SPI_LAST = 0x100, 0xFFFFFFFF
"""The numbers an association may have (RFC 4303, section 2.1: below is reserved)."""

_SELECTOR = struct.Struct("=16s16s4sHHHBBBxxxiI")
_ID = struct.Struct("=16sIBxxx")
_LIFETIME, _USED = struct.Struct("=8Q"), struct.Struct("=4Q")
_SA_TAIL = struct.Struct("=IIIIIHBBBxxxxxxx")
_SA_ID = struct.Struct("=16sIHBx")
_POLICY_TAIL = struct.Struct("=IIBBBBxxxx")
_POLICY_ID = struct.Struct("=56sIBxxx")
_TEMPLATE = struct.Struct("=24sHxx16sIBBBxIII")
_ESN = struct.Struct("=6I")
_AEAD = struct.Struct("=64sII")
_SA_SIZE = _SELECTOR.size + _ID.size + 16 + _LIFETIME.size + _USED.size + _SA_TAIL.size
_POLICY_SIZE = _SELECTOR.size + _LIFETIME.size + _USED.size + _POLICY_TAIL.size

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Flow:
    """UDP packets to ``port``; an address that is None is any of ``version``."""

    source: Address | None
    destination: Address | None
    port: int
    version: int = 4


@dataclass(frozen=True)
class Association:
    """One direction between two hosts. ``packets`` that it has carried; ``added`` in seconds since 1970."""

    source: Address
    destination: Address
    spi: int
    reqid: int
    packets: int = 0
    added: int = 0


@dataclass(frozen=True)
class XfrmPolicy:
    """What happens to a flow: ``block`` drops it, else it needs an association of ``reqid`` and, where it is
    not 0, of this ``spi``; for these ``source`` and ``destination`` of the flow are both given when it goes
    out. Of several policies the lowest ``priority`` counts."""

    direction: Direction
    flow: Flow
    priority: int
    reqid: int = 0
    spi: int = 0
    block: bool = False


def available() -> bool:
    """Whether the kernel has IPsec at all; only a try shows whether it also has ESP."""
    try:
        XfrmSocket().close()
    except OSError:
        return False
    return True


def unsupported(error: OSError) -> bool:
    """Whether the kernel's error means: no IPsec, no ESP, or not this algorithm."""
    return error.errno in (errno.EPROTONOSUPPORT, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


class XfrmSocket(NetlinkSocket):
    """Not thread-safe; of the network namespace of the thread that made it."""

    def __init__(self, *, group: int = 0) -> None:
        super().__init__(_NETLINK_XFRM, group=group)

    # -- associations ----------------------------------------------------------------------------------

    def add(self, association: Association, key: bytes, port: int) -> None:
        """Make an association that carries UDP to ``port`` alone, from and to its own two addresses.

        :param key: :data:`KEY_SIZE` bytes that no other association has ever had.
        :raises NetlinkError: EEXIST, the destination has one of this SPI; or as for :func:`unsupported`.
        """
        if len(key) != KEY_SIZE:
            raise ValueError(f"a key has {KEY_SIZE} bytes")
        one, other = association.source, association.destination
        flow = Flow(one, other, port, one.version)
        payload = (
            _selector(flow)
            + _id(other, association.spi)
            + _packed(one)
            + _unlimited()
            + bytes(_USED.size)
            + _SA_TAIL.pack(0, 0, 0, 0, association.reqid, _family(one.version), _TRANSPORT, 0, _STATE_ESN)
            + nl.attribute(_XFRMA_ALG_AEAD, _AEAD.pack(_ALGORITHM, 8 * KEY_SIZE, _ICV_BITS) + key)
            + nl.attribute(_XFRMA_REPLAY_ESN_VAL, _esn())
        )
        self.transact(NetlinkMessage(_NEWSA, nl.NLM_F_CREATE | nl.NLM_F_EXCL, payload))

    def remove(self, association: Association) -> None:
        """Remove an association; if it does not exist, nothing happens."""
        destination = association.destination
        family = _family(destination.version)
        payload = _SA_ID.pack(_packed(destination), socket.htonl(association.spi), family, socket.IPPROTO_ESP)
        self._gone(NetlinkMessage(_DELSA, 0, payload))

    def associations(self, reqid: int) -> list[Association]:
        """Ours, oldest first, with the precision of a second."""
        answers = self.request(NetlinkMessage(_GETSA, nl.NLM_F_DUMP, b""))
        found = [a for a in map(_association, answers) if a is not None and a.reqid == reqid]
        return sorted(found, key=lambda a: a.added)

    # -- policies --------------------------------------------------------------------------------------

    def put_policy(self, policy: XfrmPolicy) -> None:
        """Insert a policy, or replace the one for the same flow."""
        payload = (
            _selector(policy.flow)
            + _unlimited()
            + bytes(_USED.size)
            + _POLICY_TAIL.pack(
                policy.priority, 0, _DIRECTIONS[policy.direction], _BLOCK if policy.block else _ALLOW, 0, 0
            )
        )
        if not policy.block:
            payload += nl.attribute(_XFRMA_TMPL, _template(policy))
        self.transact(NetlinkMessage(_UPDPOLICY, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, payload))

    def remove_policy(self, policy: XfrmPolicy) -> None:
        """Remove the policy that a flow has; none is fine."""
        selector = _selector(policy.flow)
        self._gone(NetlinkMessage(_DELPOLICY, 0, _POLICY_ID.pack(selector, 0, _DIRECTIONS[policy.direction])))

    def policies(self, port: int) -> list[XfrmPolicy]:
        """Those for UDP to a port, whoever made them."""
        answers = self.request(NetlinkMessage(_GETPOLICY, nl.NLM_F_DUMP, b""))
        return [p for p in map(_policy, answers) if p is not None and p.flow.port == port]

    def _gone(self, message: NetlinkMessage) -> None:
        try:
            self.transact(message)
        except NetlinkError as e:
            if e.errno not in (errno.ENOENT, errno.ESRCH):
                raise


class XfrmWatch:
    """Calls back, on a thread of its own, when associations or policies are taken away, by whomever."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """:raises OSError: the kernel has no IPsec."""
        self._changed = changed
        with ExitStack() as undo:
            self._sockets = [
                undo.enter_context(XfrmSocket(group=g)) for g in (_XFRMNLGRP_SA, _XFRMNLGRP_POLICY)
            ]
            self._stop = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._stop)
            self._thread = threading.Thread(target=self._run, name="ipsec-watch", daemon=True)
            self._thread.start()
            self._open = undo.pop_all()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._open.close()

    def _run(self) -> None:
        poll = select.poll()
        by_fd = {sock.fileno(): sock for sock in self._sockets}
        for fd in (*by_fd, self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            lost = False
            # what is taken away in one go is looked at once
            for _ in range(_AT_ONCE):
                ready = [fd for fd, _ in poll.poll(_QUIET if lost else None)]
                if self._stop in ready:
                    return
                if not ready:
                    break
                for fd in ready:
                    lost |= self._read(by_fd[fd])
            if lost:
                try:
                    self._changed()
                except Exception:
                    _log.exception("cannot restore the removed IPsec state")

    @staticmethod
    def _read(sock: XfrmSocket) -> bool:
        """:returns: whether something was taken away, or may have been."""
        try:
            received = sock.notifications()
        except (OSError, Internal):
            return True  # ENOBUFS: some were lost
        return any(m.kind in (_DELSA, _DELPOLICY, _FLUSHSA, _FLUSHPOLICY) for m in received)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _packed(address: Address | None) -> bytes:
    return (address.packed if address is not None else b"").ljust(16, b"\0")


def _unpacked(data: bytes, family: int) -> Address:
    return ip_address(data[:4] if family == socket.AF_INET else data[:16])


def _id(destination: Address | None, spi: int) -> bytes:
    return _ID.pack(_packed(destination), socket.htonl(spi), socket.IPPROTO_ESP)


def _selector(flow: Flow) -> bytes:
    bits = 32 if flow.version == 4 else 128
    ports = struct.pack("!HH", flow.port, 0xFFFF)
    return _SELECTOR.pack(
        _packed(flow.destination),
        _packed(flow.source),
        ports,
        0,
        0,
        _family(flow.version),
        bits if flow.destination is not None else 0,
        bits if flow.source is not None else 0,
        socket.IPPROTO_UDP,
        0,
        0,
    )


def _unlimited() -> bytes:
    return _LIFETIME.pack(*[_INFINITE] * 4, *[0] * 4)


def _esn() -> bytes:
    words = _REPLAY_WINDOW // 32
    return _ESN.pack(words, 0, 0, 0, 0, _REPLAY_WINDOW) + bytes(4 * words)


def _template(policy: XfrmPolicy) -> bytes:
    flow = policy.flow
    every = 0xFFFFFFFF
    return _TEMPLATE.pack(
        _id(flow.destination if policy.direction == "out" else None, policy.spi),
        _family(flow.version),
        _packed(flow.source if policy.direction == "out" else None),
        policy.reqid,
        _TRANSPORT,
        0,
        0,
        every,
        every,
        every,
    )


def _association(received: Received) -> Association | None:
    data = received.payload
    if received.kind != _NEWSA or len(data) < _SA_SIZE:
        return None
    destination, spi, protocol = _ID.unpack_from(data, _SELECTOR.size)
    at = _SELECTOR.size + _ID.size
    source = data[at : at + 16]
    _bytes, packets, added, _used = _USED.unpack_from(data, at + 16 + _LIFETIME.size)
    tail = _SA_TAIL.unpack_from(data, at + 16 + _LIFETIME.size + _USED.size)
    reqid, family = tail[4], tail[5]
    if protocol != socket.IPPROTO_ESP or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if not tail[8] & _STATE_ESN:
        return None  # where a key daemon listens, the kernel keeps the place of one that it lacks (larval)
    return Association(
        _unpacked(source, family),
        _unpacked(destination, family),
        socket.ntohl(spi),
        reqid,
        packets=packets,
        added=added,
    )


def _policy(received: Received) -> XfrmPolicy | None:
    data = received.payload
    if received.kind != _NEWPOLICY or len(data) < _POLICY_SIZE:
        return None
    to, source, ports, _sport, _mask, family, bits_to, bits_source, protocol, _if, _user = (
        _SELECTOR.unpack_from(data)
    )
    port, mask = struct.unpack("!HH", ports)
    tail = _POLICY_TAIL.unpack_from(data, _SELECTOR.size + _LIFETIME.size + _USED.size)
    priority, _index, number, action = tail[:4]
    direction = next((d for d, n in _DIRECTIONS.items() if n == number), None)
    whole = {socket.AF_INET: 32, socket.AF_INET6: 128}.get(family)
    if (
        direction is None
        or (protocol, mask) != (socket.IPPROTO_UDP, 0xFFFF)
        or not {bits_to, bits_source} <= {0, whole}
    ):
        return None
    flow = Flow(
        _unpacked(source, family) if bits_source else None,
        _unpacked(to, family) if bits_to else None,
        port,
        4 if family == socket.AF_INET else 6,
    )
    template = nl.attributes(data[_POLICY_SIZE:]).get(_XFRMA_TMPL, b"")
    reqid = spi = 0
    if len(template) >= _TEMPLATE.size:
        identity, _, _, reqid, *_ = _TEMPLATE.unpack_from(template)
        spi = socket.ntohl(_ID.unpack(identity)[1])
    return XfrmPolicy(direction, flow, priority, reqid, spi, block=action == _BLOCK)
