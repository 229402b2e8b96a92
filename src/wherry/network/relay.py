"""Ports published on ``::1``, for the host's own programs.

The kernel can redirect ``127.0.0.1`` (``route_localnet``), but not ``::1``: it drops answers to ``::1`` that
come from another interface. So the nft table redirects connections to such ports to one listener on ``::1``,
and one thread of the daemon relays the data, for all ports together. Only the host itself can make such
connections. TCP only: UDP has no connections to relay.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from wherry.network.types import LOOPBACK6

_log = logging.getLogger(__name__)
_BUFFER = 256 << 10
"""Bytes buffered in one direction; above this no more is read."""
_CHUNK = 64 << 10
_MOST = 1000
"""The most connections at the same time; further ones are reset."""
_ACCEPT_PAUSE = 0.1
_ORIGINAL_DESTINATION = 80
"""``IP6T_SO_ORIGINAL_DST``."""
_SOCKADDR_IN6 = struct.Struct("!HHI16sI")
_RESET = struct.pack("ii", 1, 0)
_GONE = select.EPOLLHUP | select.EPOLLERR

Lead = Callable[[int], tuple[str, int] | None]
"""From a host port to a container's address and port; None if there is none."""


class Relay:
    """Safe to use from any thread."""

    def __init__(self, lead: Lead, asked_for: Callable[[socket.socket], int] | None = None) -> None:
        """:param asked_for: returns the port that the client connected to; None: ask connection tracking."""
        self._lead = lead
        self._asked_for = asked_for or _original_port
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._legs: dict[int, _Leg] = {}
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The listening port on ``::1``; 0 before :meth:`listen`."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    def listen(self) -> int:
        """Start listening. :returns: the port. :raises OSError: the host has no IPv6."""
        with self._lock:
            if self._listener is None:
                listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                try:
                    listener.bind((LOOPBACK6, 0))
                    listener.listen(socket.SOMAXCONN)
                    self._epoll.register(listener.fileno(), select.EPOLLIN)
                except BaseException:
                    listener.close()
                    raise
                self._listener = listener
                self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
                self._thread.start()
            return self.port

    def close(self) -> None:
        """Close all connections, and end the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread is not None:
            self._thread.join()
        for leg in list(self._legs.values()):
            leg.socket.close()
        if self._listener is not None:
            self._listener.close()
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            events = self._epoll.poll()
            if any(fd == self._stop for fd, _ in events):
                return
            listener = self._listener
            here = listener.fileno() if listener is not None else -1
            # the listener last: a new connection could get the descriptor of one that was closed in this
            # round
            for fd, what in sorted(events, key=lambda event: event[0] == here):
                try:
                    if listener is not None and fd == here:
                        self._accept(listener)
                    elif (leg := self._legs.get(fd)) is not None:
                        self._carry(leg, what)
                except Exception:
                    _log.exception("a connection to %s cannot be carried", LOOPBACK6)

    # -- connections -----------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                time.sleep(_ACCEPT_PAUSE)  # the connection waits in the listener meanwhile
            return
        with ExitStack() as undo:
            undo.callback(_reset, client)
            target = self._lead(self._asked_for(client)) if len(self._legs) < 2 * _MOST else None
            if target is None:
                return
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            undo.callback(_reset, server)
            client.setblocking(False)
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.connect_ex(target) not in (0, errno.EINPROGRESS):
                return
            undo.pop_all()
        asking, answering = _Leg(client), _Leg(server, connected=False)
        asking.other, answering.other = answering, asking
        for leg in (asking, answering):
            self._legs[leg.fd] = leg
            self._epoll.register(leg.fd, leg.wants)

    def _carry(self, leg: _Leg, events: int) -> None:
        try:
            if not leg.connected:
                failure = leg.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failure:
                    raise OSError(failure, os.strerror(failure))
                leg.connected = bool(events & select.EPOLLOUT)
            if events & (select.EPOLLIN | _GONE):
                leg.read(everything=bool(events & _GONE))
            for one in (leg, leg.other):
                one.write()
        except OSError:
            self._end(leg, reset=True)
            return
        leg.gone |= bool(events & _GONE)
        if all(one.finished for one in (leg, leg.other)):
            self._end(leg)
        else:
            self._listen(leg)

    def _listen(self, leg: _Leg) -> None:
        """Register with epoll what each side can do next."""
        for one in (leg, leg.other):
            if one.gone and not one.deaf:
                one.deaf = True  # otherwise epoll would report the hang-up for ever
                self._epoll.unregister(one.fd)
            elif not one.gone:
                self._epoll.modify(one.fd, one.wants)

    def _end(self, leg: _Leg, *, reset: bool = False) -> None:
        for one in (leg, leg.other):
            del self._legs[one.fd]
            if not one.deaf:
                self._epoll.unregister(one.fd)
            if reset:
                _reset(one.socket)
            else:
                one.socket.close()


class _Leg:
    """One side of a connection. ``pending``: bytes to be written to it."""

    other: _Leg

    def __init__(self, sock: socket.socket, *, connected: bool = True) -> None:
        self.socket, self.fd, self.connected = sock, sock.fileno(), connected
        self.pending = bytearray()
        self.ended = False
        """Whether its input has ended."""
        self.shut = False
        """Whether its output was shut down."""
        self.gone = self.deaf = False

    @property
    def wants(self) -> int:
        """The events to wait for, as epoll flags."""
        reads = self.connected and not self.ended and len(self.other.pending) < _BUFFER
        writes = not self.connected or self.pending
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if writes else 0)

    @property
    def finished(self) -> bool:
        return self.ended and (self.shut or self.gone)

    def read(self, *, everything: bool) -> None:
        """Read its data for the other side. :param everything: no more data will come."""
        while not self.ended and (everything or len(self.other.pending) < _BUFFER):
            try:
                data = self.socket.recv(_CHUNK)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
            self.other.pending += data

    def write(self) -> None:
        """Write the other side's data to it, and then the end."""
        if not self.connected or self.shut:
            return
        with suppress(BlockingIOError):
            while self.pending:
                del self.pending[: self.socket.send(self.pending[:_CHUNK])]
        if not self.pending and self.other.ended:
            self.shut = True
            self.socket.shutdown(socket.SHUT_WR)


def _original_port(client: socket.socket) -> int:
    """The port before the redirect (linux/netfilter_ipv6/ip6_tables.h);
    our own port if it was not redirected."""
    try:
        address = client.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, _SOCKADDR_IN6.size)
    except OSError:
        return 0  # connection tracking does not know it
    return int(_SOCKADDR_IN6.unpack(address)[1])


def _reset(sock: socket.socket) -> None:
    """Reset the connection, so that the other side sees an error."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
