"""Where the API listens: unix sockets, TCP, and sockets handed over by the service manager."""

from __future__ import annotations

import errno
import fcntl
import grp
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.daemon.config import Config, TlsConfig
from wherry.errors import Conflict, InvalidArgument, Unavailable

DEFAULT_GROUP = "docker"
_BACKLOG = 512
_FD_START = 3


@dataclass(frozen=True)
class Listener:
    """A bound socket. ``path`` is removed at the end; ``context`` is set for TLS."""

    url: str
    socket: socket.socket
    path: Path | None = None
    context: ssl.SSLContext | None = None

    def close(self) -> None:
        self.socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def open_all(config: Config) -> list[Listener]:
    """Bind every ``--host``; all or none.

    :raises InvalidArgument: a malformed URL, or TCP that would be open to anyone.
    :raises Conflict: the address is in use. :raises Unavailable: it cannot be bound.
    """
    hosts = config.hosts or (f"unix://{config.run}/wherry.sock",)
    opened: list[Listener] = []
    try:
        for url in hosts:
            opened += _open(url, config)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open(url: str, config: Config) -> list[Listener]:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidArgument(f"invalid host {url!r}: expected unix://, tcp:// or fd://")
    if scheme == "unix":
        return [_open_unix(Path(rest), config.group)]
    if scheme == "tcp":
        return [_open_tcp(url, rest, config)]
    if scheme == "fd":
        return _inherited(url)
    raise InvalidArgument(f"invalid host {url!r}: unknown scheme {scheme}")


def _open_unix(path: Path, group: str) -> Listener:
    if not path.is_absolute():
        raise InvalidArgument(f"invalid host unix://{path}: the path must be absolute")
    gid = _group_id(group)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Linux gives the file the mode of the unbound socket: so nobody can connect in between.
        os.fchmod(server.fileno(), 0o600)
        server.bind(str(path))
        if gid is not None:
            os.chown(path, 0, gid)
            path.chmod(0o660)
        server.listen(_BACKLOG)
    except OSError as e:
        server.close()
        raise Unavailable(f"cannot listen on unix://{path}: {e.strerror}") from e
    server.setblocking(False)
    return Listener(f"unix://{path}", server, path)


def _remove_stale(path: Path) -> None:
    """Remove a socket file if nobody answers on it; if somebody answers, a daemon is running."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"cannot listen on unix://{path}: a file of that name is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as e:
            if e.errno in (errno.ECONNREFUSED, errno.ENOENT):
                path.unlink(missing_ok=True)
                return
            raise Unavailable(f"cannot listen on unix://{path}: {e.strerror}") from e
    raise Conflict(f"cannot listen on unix://{path}: another daemon answers there")


def _group_id(group: str) -> int | None:
    name = group or DEFAULT_GROUP
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError as e:
        if group:
            raise InvalidArgument(f"cannot give the socket to group {group}: no such group") from e
        return None


def _open_tcp(url: str, rest: str, config: Config) -> Listener:
    host, separator, port = rest.rstrip("/").rpartition(":")
    host = host.strip("[]") or "0.0.0.0"
    if not separator or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"invalid host {url!r}: expected tcp://ADDRESS:PORT")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError as e:
        raise InvalidArgument(f"invalid host {url!r}: not an IP address") from e
    if config.tls is None and not address.is_loopback and not config.insecure_tcp:
        raise InvalidArgument(
            f"refusing to listen on {url} without TLS: anyone who reaches it is root on this machine. "
            "Use --tlsverify, bind to loopback, or say --insecure-tcp"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((str(address), int(port)))
        server.listen(_BACKLOG)
    except OSError as e:
        server.close()
        raise Unavailable(f"cannot listen on {url}: {e.strerror}") from e
    server.setblocking(False)
    shown = f"tcp://{host}:{server.getsockname()[1]}"
    return Listener(shown, server, context=_context(config.tls) if config.tls else None)


def _context(tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that accepts both gets HTTP/1.1, which has the whole API; a client with HTTP/2 only is gRPC.
    context.set_alpn_protocols(["http/1.1", "h2"])
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.verify:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as e:
        raise InvalidArgument(f"cannot use TLS files: {e}") from e
    return context


def _inherited(url: str) -> list[Listener]:
    """Sockets of systemd.socket(5) (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or count == "0":
        raise InvalidArgument(f"cannot use {url}: no socket was handed over")
    return [_from_fd(fd) for fd in range(_FD_START, _FD_START + int(count))]


def _from_fd(fd: int) -> Listener:
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    server = socket.socket(fileno=fd)
    server.setblocking(False)
    return Listener(f"fd://{fd}", server)


def describe(listeners: Sequence[Listener]) -> str:
    return ", ".join(listener.url + (" (TLS)" if listener.context else "") for listener in listeners)
