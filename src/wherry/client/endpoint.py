"""A daemon's address of any kind, and the error for a daemon that does not answer."""

from __future__ import annotations

from wherry.errors import InvalidArgument, Unavailable

DEFAULT_SOCKET = "/run/wherry/wherry.sock"
DEFAULT_HOST = f"unix://{DEFAULT_SOCKET}"
DEFAULT_PORT, DEFAULT_TLS_PORT = 2375, 2376
CONNECT_TIMEOUT = 30.0
"""The default time, in seconds, to wait for a connection."""


class CannotConnect(Unavailable):
    """No daemon answers at the address."""


class Tls:
    """The paths of TLS files. ``verify`` False: encrypt, but trust any certificate."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, *, ca: str = "", cert: str = "", key: str = "", verify: bool = True) -> None:
        self.ca, self.cert, self.key = ca, cert, key
        self.verify = verify


class DaemonEndpoint:
    """One daemon's address: the ``host`` URL, split into its parts, and the TLS files if TLS is used."""

    __slots__ = ("address", "base_path", "connect_timeout", "context", "host", "port", "scheme", "tls")

    def __init__(
        self,
        host: str,
        tls: Tls | None = None,
        *,
        context: str = "default",
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        """:param connect_timeout: seconds within which a connection must be made."""
        self.connect_timeout = connect_timeout
        self.host, self.tls, self.context = normalise(host, tls is not None), tls, context
        self.scheme, _, rest = self.host.partition("://")
        self.port, self.base_path = 0, ""
        if self.scheme in ("unix", "ssh"):
            self.address = rest
            return
        authority, slash, path = rest.partition("/")
        self.base_path = (slash + path).rstrip("/")
        self.address, self.port = split_host_port(authority, DEFAULT_TLS_PORT if tls else DEFAULT_PORT)

    def within(self, seconds: float) -> DaemonEndpoint:
        """The same with another ``connect_timeout``."""
        return DaemonEndpoint(self.host, self.tls, context=self.context, connect_timeout=seconds)

    @property
    def header_host(self) -> str:
        """The ``Host`` header; a socket path contains no host, so this is the name that Go's clients send."""
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

    :raises InvalidArgument: the port is not a number between 1 and 65535.
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


def cannot_connect(endpoint: DaemonEndpoint) -> CannotConnect:
    return CannotConnect(
        f"Cannot connect to the wherry daemon at {endpoint.host}. Is the wherry daemon running?"
    )
