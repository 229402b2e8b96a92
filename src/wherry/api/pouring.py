"""Large bodies from a pipe to a client's socket without a copy: on a thread, by splice(2).

Through the loop each byte is read, put between the marks of its chunk, and sent: three copies, and the loop
is busy meanwhile. Here the kernel moves the pages. This needs a socket without TLS, and an answer in chunks
whose head has left already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import termios
from collections.abc import Callable

from aiohttp import web

from wherry import threads

_SO_SNDBUFFORCE = 32
_BUFFER = 1 << 20
"""Of the socket, so that not every 200 KB need a change of the process."""


def socket_of(request: web.BaseRequest, response: web.StreamResponse) -> int:
    """A descriptor of the client's socket for :func:`pour`, the caller's to close; -1: it cannot be used."""
    transport = request.transport
    if transport is None or transport.is_closing() or not response.chunked:
        return -1
    found = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("ssl_object") is not None:
        return -1
    if transport.get_write_buffer_size():
        return -1  # the client is slow already, and what comes now must not overtake that
    try:
        fd = fcntl.fcntl(found.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return -1
    with contextlib.suppress(OSError):  # only CAP_NET_ADMIN may have more than net.core.wmem_max
        found.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    return fd


async def pour(source: int, target: int) -> None:
    """Send everything that a pipe brings as chunks (RFC 9112, 7.1), without the last, empty one.

    :param source: the pipe's reading end. :param target: the client's socket, which does not block.
    :raises ConnectionResetError: the client has gone.
    """
    stop = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        await threads.pump.until(lambda: os.eventfd_write(stop, 1), _pour, source, target, stop)
    finally:
        os.close(stop)


def _pour(source: int, target: int, stop: int) -> None:
    readable = _waiting(source, select.POLLIN, stop)
    writable = _waiting(target, select.POLLOUT, stop)
    try:
        while readable():
            size = _available(source)
            if not size:
                return  # its writers have closed it
            if not _send(target, b"%x\r\n" % size, writable):
                return
            while size:
                try:
                    size -= os.splice(source, target, size, flags=os.SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    if not writable():
                        return
            if not _send(target, b"\r\n", writable):
                return
    except BrokenPipeError as e:
        raise ConnectionResetError(e.errno, "the client has gone") from e


def _waiting(fd: int, what: int, stop: int) -> Callable[[], bool]:
    """A function that waits until ``fd`` is ready; ``False``: the caller has had enough."""
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    poll.register(fd, what)

    def wait() -> bool:
        found = dict(poll.poll())
        return stop not in found

    return wait


def _available(pipe: int) -> int:
    """How many bytes a pipe has."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")


def _send(target: int, data: bytes, writable: Callable[[], bool]) -> bool:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:
            if not writable():
                return False
    return True
