"""Ports published on ``::1``, for the host's own programs.

The kernel translates ``127.0.0.1`` (``route_localnet``), but not ``::1``: an answer that is led back to it is
dropped where it comes from an interface. So connections to it are accepted and carried by one thread of the
daemon, for all ports together; only the host itself can make any. TCP alone: UDP has no connections to carry.
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

_log = logging.getLogger(__name__)
LOOPBACK6 = "::1"
_BUFFER = 256 << 10
"""Bytes under way in one direction, above which no more is read."""
_CHUNK = 64 << 10
_MOST = 1000
"""Connections at the same time; further ones are reset."""
_ACCEPT_PAUSE = 0.1
_RESET = struct.pack("ii", 1, 0)
_GONE = select.EPOLLHUP | select.EPOLLERR

Lead = Callable[[int], tuple[str, int] | None]
"""From a host port to a container's address and port, None if there is none."""


class Relay:
    """Safe to use from any thread."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._lock = threading.Lock()
        self._listeners: dict[int, socket.socket] = {}
        self._legs: dict[int, _Leg] = {}
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    def serve(self, listener: socket.socket) -> None:
        """Carry what connects to a listening socket, which stays its owner's."""
        listener.setblocking(False)
        with self._lock:
            self._listeners[listener.fileno()] = listener
            self._epoll.register(listener.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="loopback", daemon=True)
                self._thread.start()

    def drop(self, listener: socket.socket) -> None:
        """Accept no more there, before it is closed; what is under way goes on."""
        with self._lock:
            if self._listeners.pop(listener.fileno(), None) is not None:
                self._epoll.unregister(listener.fileno())

    def close(self) -> None:
        """End all connections, and the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread is not None:
            self._thread.join()
        for leg in list(self._legs.values()):
            leg.socket.close()
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            events = self._epoll.poll()
            if any(fd == self._stop for fd, _ in events):
                return
            # listeners last: a new connection must not be taken for one that has ended in this very turn
            for fd, what in sorted(events, key=lambda event: event[0] in self._listeners):
                try:
                    if (listener := self._listeners.get(fd)) is not None:
                        self._accept(listener)
                    elif (leg := self._legs.get(fd)) is not None:
                        self._carry(leg, what)
                except Exception:
                    _log.exception("a connection to %s cannot be carried", LOOPBACK6)

    # -- connections -----------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
            number = listener.getsockname()[1]
        except OSError as e:
            if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                time.sleep(_ACCEPT_PAUSE)  # it waits in the listener meanwhile
            return
        with ExitStack() as undo:
            undo.callback(_reset, client)
            target = self._lead(number) if len(self._legs) < 2 * _MOST else None
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
        """Have the kernel tell what can be done next, for both sides."""
        for one in (leg, leg.other):
            if one.gone and not one.deaf:
                one.deaf = True  # or it would be told for ever that it is gone
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
    """One side of a connection. ``pending`` is what is to be written to it."""

    other: _Leg

    def __init__(self, sock: socket.socket, *, connected: bool = True) -> None:
        self.socket, self.fd, self.connected = sock, sock.fileno(), connected
        self.pending = bytearray()
        self.ended = False
        """Whether it has said all it has to say."""
        self.shut = False
        """Whether it was told that there is no more for it."""
        self.gone = self.deaf = False

    @property
    def wants(self) -> int:
        """What to be told of, as epoll has it."""
        reads = self.connected and not self.ended and len(self.other.pending) < _BUFFER
        writes = not self.connected or self.pending
        return (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if writes else 0)

    @property
    def finished(self) -> bool:
        return self.ended and (self.shut or self.gone)

    def read(self, *, everything: bool) -> None:
        """Take what it says to the other side. :param everything: it will say no more."""
        while not self.ended and (everything or len(self.other.pending) < _BUFFER):
            try:
                data = self.socket.recv(_CHUNK)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
            self.other.pending += data

    def write(self) -> None:
        """Give it what the other side has said, and its end."""
        if not self.connected or self.shut:
            return
        with suppress(BlockingIOError):
            while self.pending:
                del self.pending[: self.socket.send(self.pending[:_CHUNK])]
        if not self.pending and self.other.ended:
            self.shut = True
            self.socket.shutdown(socket.SHUT_WR)


def _reset(sock: socket.socket) -> None:
    """Close it so that the other side sees that something is wrong."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
