"""DHCP exchanges for one container, from inside its network namespace."""

from __future__ import annotations

import secrets
import socket
import time
from ipaddress import IPv4Address
from pathlib import Path

from wherry.errors import Unavailable
from wherry.linux import netns, rtnetlink
from wherry.network.dhcp import message
from wherry.network.dhcp.message import DhcpLease, DhcpReply
from wherry.network.types import Endpoint

_ETH_IP = 0x0800
_TRIES = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait for an answer before the request is sent again."""


class LeaseRefused(Exception):
    """The server refuses the address, or takes it back."""


class DhcpExchange:
    """A socket on the container's interface; it receives only from there."""

    def __init__(self, path: Path, endpoint: Endpoint, hostname: str = "") -> None:
        """:raises OSError: the namespace or the interface is gone."""
        self._mac = rtnetlink.mac_bytes(endpoint.mac)
        self._ifname = endpoint.ifname
        self._hostname = hostname
        self._transaction = secrets.randbits(32)
        self._socket = netns.inside(path, self._open)

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_IP))
        try:
            sock.bind((self._ifname, _ETH_IP))
        except BaseException:
            sock.close()
            raise
        return sock

    def __enter__(self) -> DhcpExchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def obtain(self, wanted: IPv4Address | None = None) -> DhcpLease:
        """Obtain a lease; on ``wanted`` if a server grants it.

        :raises Unavailable: no answer. :raises Refused: the chosen server has withdrawn its offer.
        """
        offer = self._ask(message.DISCOVER, {message.OFFER}, wanted=wanted).lease
        return self._granted(
            self._ask(message.REQUEST, {message.ACK, message.NAK}, wanted=offer.address, server=offer.server)
        )

    def renew(self, lease: DhcpLease) -> DhcpLease:
        """:raises Unavailable: no answer. :raises Refused: the address is no longer ours."""
        return self._granted(
            self._ask(message.REQUEST, {message.ACK, message.NAK}, current=lease.address, tries=_TRIES[:2])
        )

    def again(self, address: IPv4Address, *, patient: bool = True) -> DhcpLease:
        """Ask again for a former address (RFC 2131, INIT-REBOOT). Raises what :meth:`renew` raises."""
        tries = _TRIES if patient else _TRIES[:1]
        return self._granted(
            self._ask(message.REQUEST, {message.ACK, message.NAK}, wanted=address, tries=tries)
        )

    def release(self, lease: DhcpLease) -> None:
        self._send(message.RELEASE, current=lease.address, server=lease.server)

    @staticmethod
    def _granted(reply: DhcpReply) -> DhcpLease:
        if reply.kind == message.NAK or not reply.lease.seconds:
            raise LeaseRefused
        return reply.lease

    def _send(
        self,
        kind: int,
        *,
        current: IPv4Address = message.ANY,
        wanted: IPv4Address | None = None,
        server: IPv4Address | None = None,
    ) -> None:
        packet = message.request(
            kind,
            mac=self._mac,
            transaction=self._transaction,
            hostname=self._hostname,
            current=current,
            wanted=wanted,
            server=server,
        )
        self._socket.sendto(packet, (self._ifname, _ETH_IP, 0, 0, b"\xff" * 6))

    def _ask(
        self,
        kind: int,
        accepted: set[int],
        *,
        current: IPv4Address = message.ANY,
        wanted: IPv4Address | None = None,
        server: IPv4Address | None = None,
        tries: tuple[float, ...] = _TRIES,
    ) -> DhcpReply:
        for patience in tries:
            self._send(kind, current=current, wanted=wanted, server=server)
            deadline = time.monotonic() + patience
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    reply = message.read(self._socket.recv(2048), self._mac)
                except TimeoutError:
                    break
                ours = reply is not None and reply.transaction == self._transaction
                if reply is not None and ours and reply.kind in accepted:
                    return reply
        raise Unavailable("no DHCP server answers")
