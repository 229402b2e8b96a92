"""A connected byte stream to a daemon, for every kind of address a client may be given.

``_socket`` is the C half of :mod:`socket`: the same object without the 6 ms that the enums of the Python
half cost. TLS and ssh are rare and import what they need when they are used.
"""

from __future__ import annotations

import _socket

from wherry.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Stream(Protocol):
        """What the HTTP layer needs of a socket."""

        def send(self, data: Any, /) -> int: ...
        def recv(self, size: int, /) -> bytes: ...
        def recv_into(self, buffer: Any, /) -> int: ...
        def fileno(self) -> int: ...
        def setblocking(self, flag: bool, /) -> None: ...
        def settimeout(self, value: float | None, /) -> None: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...


DEFAULT_SOCKET = "/run/wherry/wherry.sock"
DEFAULT_HOST = f"unix://{DEFAULT_SOCKET}"
DEFAULT_PORT, DEFAULT_TLS_PORT = 2375, 2376
CONNECT_TIMEOUT = 30.0
"""Seconds to wait for a peer to answer, unless an endpoint says otherwise."""
SHUT_WR: int = _socket.SHUT_WR


class CannotConnect(Unavailable):
    """Nobody answers at the daemon's address."""


class Tls:
    """Where TLS material lies; ``verify`` False still encrypts but trusts any certificate."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, *, ca: str = "", cert: str = "", key: str = "", verify: bool = True) -> None:
        self.ca, self.cert, self.key = ca, cert, key
        self.verify = verify


class Endpoint:
    """One daemon's address: the ``host`` URL as given, taken apart, and TLS material where it is wanted."""

    __slots__ = ("address", "base_path", "connect_timeout", "context", "host", "port", "scheme", "tls")

    def __init__(self, host: str, tls: Tls | None = None, *, context: str = "default") -> None:
        self.connect_timeout = CONNECT_TIMEOUT
        """Seconds until a connection must be there."""
        self.host, self.tls, self.context = normalise(host, tls is not None), tls, context
        self.scheme, _, rest = self.host.partition("://")
        self.port, self.base_path = 0, ""
        if self.scheme in ("unix", "ssh"):
            self.address = rest
            return
        authority, slash, path = rest.partition("/")
        self.base_path = (slash + path).rstrip("/")
        self.address, self.port = split_host_port(authority, DEFAULT_TLS_PORT if tls else DEFAULT_PORT)

    @property
    def header_host(self) -> str:
        """The ``Host`` header; a socket path has no host of its own, and Go's clients send this name."""
        if self.scheme != "tcp":
            return "api.moby.localhost"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def normalise(host: str, tls: bool = False) -> str:
    """Complete a host as a person types it: ``:2375``, ``192.0.2.1``, ``unix://`` with no path.

    :raises InvalidArgument: an unknown scheme, in the words of Docker's client.
    """
    host = host.strip()
    if not host or host == "unix://":
        return DEFAULT_HOST
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme in ("http", "https"):
        scheme = "tcp"
    if scheme not in ("unix", "tcp", "ssh"):
        raise InvalidArgument(f"unable to parse docker host `{host}`: invalid bind address format")
    if scheme == "tcp":
        authority, slash, path = rest.partition("/")
        name, port = split_host_port(authority, DEFAULT_TLS_PORT if tls else DEFAULT_PORT)
        shown = f"[{name}]" if ":" in name else name
        return f"tcp://{shown}:{port}{slash}{path}"
    return f"{scheme}://{rest}"


def split_host_port(authority: str, default_port: int) -> tuple[str, int]:
    """Split ``host:port``, ``[v6]:port``, ``host`` or ``:port``.

    :raises InvalidArgument: the port is no number between 1 and 65535.
    """
    if authority.startswith("["):
        name, _, tail = authority[1:].partition("]")
        port_text = tail[1:] if tail.startswith(":") else ""
    else:
        name, _, port_text = authority.rpartition(":") if ":" in authority else (authority, "", "")
    if not port_text:
        return name or "127.0.0.1", default_port
    if not port_text.isdecimal() or not 0 < int(port_text) < 65536:
        raise InvalidArgument(f"invalid port {port_text!r} in host {authority!r}")
    return name or "127.0.0.1", int(port_text)


def connect(endpoint: Endpoint) -> Stream:
    """Open a connection.

    :raises CannotConnect: nobody listens there, or permission is denied; the text names the address.
    """
    if endpoint.scheme == "unix":
        return _unix(endpoint)
    if endpoint.scheme == "ssh":
        from wherry.client import ssh

        return ssh.connect(endpoint)
    return _tcp(endpoint)


def _unix(endpoint: Endpoint) -> Stream:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(endpoint.address)
    except PermissionError as e:
        sock.close()
        raise CannotConnect(
            f"permission denied while trying to connect to the wherry daemon socket at {endpoint.host}"
        ) from e
    except OSError as e:
        sock.close()
        raise cannot_connect(endpoint) from e
    return sock


def cannot_connect(endpoint: Endpoint) -> CannotConnect:
    return CannotConnect(
        f"Cannot connect to the wherry daemon at {endpoint.host}. Is the wherry daemon running?"
    )


def _tcp(endpoint: Endpoint) -> Stream:
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
