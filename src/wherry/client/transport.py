"""A connected byte stream to a daemon.

``_socket`` is the C half of :mod:`socket`: the same object without the 6 ms that the enums of the Python
half cost. TLS and ssh are rare, so their modules are imported on use.
"""

from __future__ import annotations

import _socket

from wherry.client.endpoint import CannotConnect, DaemonEndpoint, cannot_connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Stream(Protocol):
        """The methods of a socket that the HTTP layer uses."""

        def send(self, data: Any, /) -> int: ...
        def recv(self, size: int, /) -> bytes: ...
        def recv_into(self, buffer: Any, /) -> int: ...
        def fileno(self) -> int: ...
        def setblocking(self, flag: bool, /) -> None: ...
        def settimeout(self, value: float | None, /) -> None: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


SHUT_WR: int = _socket.SHUT_WR


def connect(endpoint: DaemonEndpoint) -> Stream:
    """Open a connection.

    :raises CannotConnect: the connection is refused, or permission is denied; the text names the address.
    """
    if endpoint.scheme == "unix":
        return _unix(endpoint)
    if endpoint.scheme == "ssh":
        from wherry.client import ssh

        return ssh.connect(endpoint)
    return _tcp(endpoint)


def _unix(endpoint: DaemonEndpoint) -> Stream:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(endpoint.address)
    except PermissionError as e:
        sock.close()
        raise CannotConnect(
            f"permission denied while trying to connect to the wherry daemon socket at {endpoint.host}"
            f"{_who_may(endpoint.address)}"
        ) from e
    except OSError as e:
        sock.close()
        raise cannot_connect(endpoint) from e
    return sock


def _who_may(path: str) -> str:
    """The group that may use a socket; its members have the power of root."""
    import grp
    import os
    import stat

    try:
        status = os.stat(path)
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        return ": it is root's (sudo wherry ...)"
    if not status.st_mode & stat.S_IWGRP or status.st_gid == 0:
        return ": it is root's (sudo wherry ...)"
    return f": it is for root and the group {group} (as root: usermod -aG {group} NAME, then log in again)"


def _tcp(endpoint: DaemonEndpoint) -> Stream:
    try:
        addresses = _socket.getaddrinfo(endpoint.address, endpoint.port, 0, _socket.SOCK_STREAM)
    except OSError as e:
        raise CannotConnect(f"error during connect: lookup {endpoint.address}: {e.strerror or e}") from e
    for family, kind, protocol, _, address in addresses:
        sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC, protocol)
        try:
            sock.settimeout(endpoint.connect_timeout)
            sock.connect(address)
            sock.settimeout(None)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            continue
        if endpoint.tls is None:
            return sock
        from wherry.client import tls

        return tls.connect(sock, endpoint, endpoint.tls)
    raise cannot_connect(endpoint)
