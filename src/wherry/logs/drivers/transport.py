"""Connections of log drivers: streams and datagrams, with a limit on every wait."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from wherry import threads
from wherry.errors import InvalidArgument

CONNECT_TIMEOUT = SEND_TIMEOUT = 10.0
"""Seconds."""


@dataclass(frozen=True)
class LogAddress:
    """``scheme`` as in the option; ``path`` for unix sockets, ``host`` and ``port`` for the others."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""


def parse_address(text: str, option: str, schemes: Sequence[str], port: int) -> LogAddress:
    """``udp://host:514``, ``unix:///dev/log``. :raises InvalidArgument: anything else."""
    try:
        url = urlsplit(text)
        found = LogAddress(url.scheme, url.hostname or "", url.port or port, url.path)
    except ValueError as e:
        raise InvalidArgument(f"invalid {option}: {text!r}: {e}") from e
    if found.scheme not in schemes:
        raise InvalidArgument(f"invalid {option}: {text!r} begins with none of {', '.join(schemes)}")
    if found.scheme.startswith("unix"):
        if found.host or not os.path.isabs(found.path):
            raise InvalidArgument(f"invalid {option}: {text!r} names no absolute path")
    elif not found.host or found.path not in ("", "/"):
        raise InvalidArgument(f"invalid {option}: {text!r} is not SCHEME://HOST:PORT")
    return found


Found = tuple[int, tuple[Any, ...]]
"""A family and an address for connect(2)."""
_lookups: dict[tuple[int, str, int], asyncio.Future[list[Found]]] = {}


async def resolve(host: str, port: int) -> list[Found]:
    """The addresses of a host. Each name is resolved on its own thread: name servers that do not answer must
    not occupy the daemon's workers, however many containers log to one host.

    :raises OSError: it is unknown.
    """
    with contextlib.suppress(ValueError):
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        return [(family, (host, port))]
    loop = asyncio.get_running_loop()
    key = (id(loop), host, port)
    running = _lookups.get(key)
    if running is None:
        running = _lookups[key] = loop.create_future()
        running.add_done_callback(lambda done: _looked_up(key, done))
        threading.Thread(target=_look_up, args=(loop, running, host, port), daemon=True).start()
    return await asyncio.shield(running)


def _looked_up(key: tuple[int, str, int], done: asyncio.Future[list[Found]]) -> None:
    _lookups.pop(key, None)
    if not done.cancelled():
        done.exception()  # The caller may have been cancelled meanwhile.


def _look_up(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[Found]], host: str, port: int
) -> None:
    found: list[Found] = []
    failure: OSError | None = None
    try:
        for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            found.append((family, where))
    except (OSError, UnicodeError) as e:
        failure = e if isinstance(e, OSError) else OSError(f"not a host's name: {host!r}")

    def settle() -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(found)

    with contextlib.suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(settle)


async def _open_stream(
    address: LogAddress, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of the host's addresses that answers."""
    failure: OSError = OSError(f"no address of {address.host}")
    for _, where in await resolve(address.host, address.port):
        try:
            return await asyncio.open_connection(
                where[0], where[1], ssl=context, server_hostname=address.host if context else None
            )
        except OSError as e:
            failure = e
    raise failure


class Transport(Protocol):
    async def send(self, pieces: Sequence[bytes]) -> None:
        """:raises OSError: not everything was accepted."""

    async def close(self) -> None: ...


class LogConnection:
    """A connection that is made when there is something to send, and again after a failure.

    ``context`` is called at each connection, because certificates change.
    """

    def __init__(self, address: LogAddress, context: Callable[[], ssl.SSLContext] | None = None) -> None:
        self._address = address
        self._context = context
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, pieces: Sequence[bytes]) -> None:
        await self.exchange(b"".join(pieces))

    async def exchange(self, data: bytes) -> asyncio.StreamReader:
        """Send, and return a reader for the answer."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await self._connected()
            async with asyncio.timeout(SEND_TIMEOUT):
                writer.write(data)
                await writer.drain()
        except BaseException:
            await self.close()
            raise
        return reader

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._reader.at_eof():
            await self.close()  # The peer has closed the connection; data sent now would be lost.
        if self._reader is None or self._writer is None:
            address = self._address
            if address.path:
                opened = await asyncio.open_unix_connection(address.path)
            else:
                context = None
                if self._context is not None:
                    context = await threads.short(self._context)
                opened = await _open_stream(address, context)
            self._reader, self._writer = opened
            # drain() then waits until the kernel has all of it.
            self._writer.transport.set_write_buffer_limits(high=0)
        return self._reader, self._writer

    @property
    def connected(self) -> bool:
        return self._writer is not None

    async def close(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            # Not a graceful close: a server that does not answer must not be waited for.
            writer.transport.abort()


class Datagrams:
    """A connected datagram socket, so that a refusal is reported as an error."""

    def __init__(self, address: LogAddress) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    async def send(self, pieces: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await self._connected()
            async with asyncio.timeout(SEND_TIMEOUT):
                for piece in pieces:
                    try:
                        connection.send(piece)
                    except BlockingIOError:
                        await loop.sock_sendall(connection, piece)
        except BaseException:
            await self.close()
            raise

    async def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        address = self._address
        if address.path:
            kind, target = socket.AF_UNIX, address.path
            self._socket = self._open(kind, target)
            return self._socket
        family, where = (await resolve(address.host, address.port))[0]
        self._socket = self._open(family, where)
        return self._socket

    @staticmethod
    def _open(family: int, where: object) -> socket.socket:
        opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            opened.connect(where)  # type: ignore[arg-type]
        except BaseException:
            opened.close()
            raise
        return opened

    async def close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()


class LocalSocket:
    """The first existing one of some unix sockets, whether for datagrams or streams (as syslog(3) does)."""

    def __init__(self, paths: Sequence[str], frame: Callable[[bytes], bytes]) -> None:
        self._paths = paths
        self._frame = frame
        self._chosen: Transport | None = None
        self._framed = False

    async def send(self, pieces: Sequence[bytes]) -> None:
        if self._chosen is not None:
            await self._send_by(self._chosen, pieces)
            return
        failure: OSError = FileNotFoundError(errno.ENOENT, "no such socket", self._paths[0])
        for path in self._paths:
            for kind in (Datagrams, LogConnection):
                self._framed = kind is LogConnection
                transport: Transport = kind(LogAddress("unix", path=path))
                try:
                    await self._send_by(transport, pieces)
                except OSError as e:
                    if e.errno != errno.EPROTOTYPE:
                        failure = e
                        break
                else:
                    self._chosen = transport
                    return
        raise failure

    async def _send_by(self, transport: Transport, pieces: Sequence[bytes]) -> None:
        try:
            await transport.send([self._frame(p) for p in pieces] if self._framed else pieces)
        except BaseException:
            self._chosen = None
            await transport.close()
            raise

    async def close(self) -> None:
        chosen, self._chosen = self._chosen, None
        if chosen is not None:
            await chosen.close()
