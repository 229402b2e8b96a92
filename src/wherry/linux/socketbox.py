"""Sockets that stay open without a descriptor for each of them.

A socket that was sent over another one and was not received yet stays open (unix(7), SCM_RIGHTS), but takes
no place in the process's descriptor table. So a box costs one descriptor, however many sockets it holds. The
kernel's limit on descriptors in flight does not apply to root.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_BATCH = 100
"""Sockets in one message (the kernel takes 253): so many descriptors a box needs at most, for a moment."""
_MESSAGES = 200
"""Messages in one queue; the kernel's default buffer holds some more."""


class SocketBox(Generic[K]):
    """Keeps sockets by key. Not for several threads at once.

    Put all in, then :meth:`seal`; a single one keeps its descriptor, as a queue would cost one too.
    """

    def __init__(self) -> None:
        self._loose: list[tuple[K, socket.socket]] = []
        self._queues: list[tuple[socket.socket, list[list[K]]]] = []
        self._sender: socket.socket | None = None

    def put(self, key: K, sock: socket.socket) -> None:
        """Keep a socket, which is the box's from now on.

        :raises OSError: no descriptor is free; the box is as it was, and the socket is the caller's.
        """
        if len(self._loose) + 1 >= _BATCH:
            self._send([*self._loose, (key, sock)])
        else:
            self._loose.append((key, sock))

    def seal(self) -> None:
        """Give up the descriptors of what was put in. :raises OSError: none is free for a queue."""
        if len(self._loose) > 1 or (self._loose and self._queues):
            self._send(self._loose)
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def drop(self, which: Callable[[K], bool]) -> None:
        """Close some of the sockets.

        :raises OSError: too few descriptors are free to take the others out meanwhile; nothing is closed.
        """
        for key, sock in self._loose:
            if which(key):
                sock.close()
        self._loose = [(key, sock) for key, sock in self._loose if sock.fileno() >= 0]
        for position, (queue, batches) in enumerate(self._queues):
            if any(which(key) for batch in batches for key in batch):
                self._queues[position] = _sifted(queue, batches, which)
        for queue, _ in [q for q in self._queues if not q[1]]:
            queue.close()
        self._queues = [q for q in self._queues if q[1]]

    def close(self) -> None:
        """Close all of them, which takes no descriptor."""
        for _, sock in self._loose:
            sock.close()
        for queue, _ in self._queues:
            queue.close()
        if self._sender is not None:
            self._sender.close()
        self._loose, self._queues, self._sender = [], [], None

    def _send(self, batch: list[tuple[K, socket.socket]]) -> None:
        if self._sender is None or len(self._queues[-1][1]) >= _MESSAGES:
            queue, sender = _pair()
            if self._sender is not None:
                self._sender.close()
            self._queues.append((queue, []))
            self._sender = sender
        socket.send_fds(self._sender, [b"."], [sock.fileno() for _, sock in batch])
        self._queues[-1][1].append([key for key, _ in batch])
        for _, sock in batch:
            sock.close()
        self._loose = []


def _pair() -> tuple[socket.socket, socket.socket]:
    queue, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sender.setblocking(False)
    return queue, sender


def _sifted(
    queue: socket.socket, batches: list[list[K]], which: Callable[[K], bool]
) -> tuple[socket.socket, list[list[K]]]:
    """A queue without some of its sockets, in the place of one that is closed."""
    successor, sender = _pair()
    try:
        _need(queue, max(map(len, batches)))
    except OSError:
        successor.close()
        sender.close()
        raise
    kept: list[list[K]] = []
    for batch in batches:
        _, fds, _, _ = socket.recv_fds(queue, 1, _BATCH)
        staying = [(key, fd) for key, fd in zip(batch, fds, strict=False) if not which(key)]
        if staying:
            socket.send_fds(sender, [b"."], [fd for _, fd in staying])
            kept.append([key for key, _ in staying])
        for fd in fds:
            os.close(fd)
    queue.close()
    sender.close()
    return successor, kept


def _need(sample: socket.socket, count: int) -> None:
    """Whether so many descriptors are free, as what finds none when it is received is closed.

    :raises OSError: they are not.
    """
    with ExitStack() as undo:
        for _ in range(count):
            undo.callback(os.close, os.dup(sample.fileno()))
