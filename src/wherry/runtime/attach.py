"""conmon's attach socket as a stream of frames.

conmon sends one packet per read of the process's output: a byte (2 stdout, 3 stderr), then up to 8 KiB. Input
is sent as bare packets, and shutting the socket down for writing ends stdin. conmon blocks on a peer that
does not read, and the container blocks with it: so every holder of such a socket must read it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_STDIN_PACKET = 16 << 10
_PACKET_MAX = 32 << 10
_FIRST, _BATCH = 32 << 10, 512 << 10
"""Bytes that are received at once, at most: at first, and once that was not enough."""
_HEADER = struct.Struct(">BxxxL")
_SUN_PATH_MAX = 107


class AttachSocket:
    """A connection to one process's output and input. ``framed`` puts Docker's 8-byte header before each
    packet (API "Attach", stream format); otherwise the bytes come as they are."""

    def __init__(self, connection: socket.socket, *, framed: bool, stdout: bool, stderr: bool) -> None:
        self._socket = connection
        self._framed = framed
        self._wanted = {2: stdout, 3: stderr}
        self._batch = _FIRST
        self._buffer = bytearray(_FIRST + _PACKET_MAX)
        self._loop = asyncio.get_running_loop()
        self._was_reset = self._was_full = False

    @classmethod
    def connect(cls, bundle: Path, *, framed: bool, stdout: bool = True, stderr: bool = True) -> AttachSocket:
        """:raises OSError: the process has ended."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.setblocking(False)
            path = str(bundle / "attach")
            if len(os.fsencode(path)) <= _SUN_PATH_MAX:
                connection.connect(path)
            else:
                _connect_long(connection, bundle)
        except BaseException:
            connection.close()
            raise
        return cls(connection, framed=framed, stdout=stdout, stderr=stderr)

    async def read(self) -> memoryview | None:
        """The next bytes, many packets at once; ``None`` at the end. Valid until the next call."""
        while True:
            try:
                size = self._fill()
            except BlockingIOError:
                await self._readable()
                continue
            except ConnectionResetError:
                return None
            if size is None:
                return None
            if size:
                return memoryview(self._buffer)[:size]

    async def pump(self, send: Callable[[memoryview], bool]) -> bool:
        """Hand output over as it comes, from the loop's own callback: a task that is woken for each of
        conmon's packets costs more than the packet.

        :param send: is given some bytes, which it must not keep; False: it can take no more for now.
        :returns: whether there may be more (``send`` has refused), or the output has ended.
        """
        future: asyncio.Future[bool] = self._loop.create_future()
        fd = self._socket.fileno()
        if fd < 0:
            raise ConnectionResetError

        def readable() -> None:
            if future.done():
                return
            try:
                size = self._fill()
            except BlockingIOError:
                return
            except ConnectionResetError:
                size = None
            try:
                if size is None:
                    future.set_result(False)
                elif size and not send(memoryview(self._buffer)[:size]):
                    future.set_result(True)
            except Exception as e:
                future.set_exception(e)

        self._loop.add_reader(fd, readable)
        try:
            return await future
        finally:
            self._loop.remove_reader(fd)

    def _fill(self) -> int | None:
        """Receive until the batch is full or the socket is empty; in place, so nothing is copied."""
        if self._was_full and self._batch < _BATCH:
            self._batch = _BATCH  # most streams never need it, and it costs 0.3 ms
            self._buffer = bytearray(_BATCH + _PACKET_MAX)
        self._was_full = False
        view = memoryview(self._buffer)
        offset = 0
        while offset < self._batch:
            # The packet's first byte lands at the end of the header's place, and the header then overwrites
            # it.
            start = offset + 7 if self._framed else offset
            try:
                length = self._socket.recv_into(view[start : start + _PACKET_MAX])
            except BlockingIOError:
                if offset:
                    break
                raise
            except ConnectionResetError:
                # The process ended without reading all its input. The kernel reports that once, before it
                # delivers the rest of the output (unix(7), ECONNRESET).
                if self._was_reset:
                    raise
                self._was_reset = True
                continue
            if length == 0:
                return offset or None
            kind = self._buffer[start]
            if not self._wanted.get(kind, False) or length == 1:
                continue
            if self._framed:
                _HEADER.pack_into(self._buffer, offset, kind - 1, length - 1)
                offset += 8 + length - 1
            else:
                self._buffer[start : start + length - 1] = self._buffer[start + 1 : start + length]
                offset += length - 1
        self._was_full = True
        return offset

    async def _readable(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        fd = self._socket.fileno()
        if fd < 0:
            raise ConnectionResetError

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        self._loop.add_reader(fd, wake)
        try:
            await future
        finally:
            self._loop.remove_reader(fd)

    async def write(self, data: bytes) -> None:
        """Send to the process's stdin; waits while its pipe is full. :raises OSError: it has ended."""
        view = memoryview(data)
        for offset in range(0, len(view), _STDIN_PACKET):
            await self._loop.sock_sendall(self._socket, view[offset : offset + _STDIN_PACKET])

    def end_input(self) -> None:
        """No more input: the process reads end of file."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


def _connect_long(connection: socket.socket, bundle: Path) -> None:
    """Connect to a socket whose path is too long for ``sun_path`` (unix(7)),
    by its directory's descriptor."""
    fd = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/attach")
    finally:
        os.close(fd)
