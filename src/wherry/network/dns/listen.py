"""A container's DNS sockets: 127.0.0.11 in its network namespace.

Port 53 itself stays free for a server of the container's own, which may want it on every address. The
sockets are on a port that the kernel chooses, and what is sent to 127.0.0.11:53 is rewritten on its way, as
are the answers: without translation, and so without connection tracking, whose cost every packet of the
container would bear.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from wherry.linux import netns, portrewrite

ADDRESS = "127.0.0.11"
_TRIES = 16
_BACKLOG = 64


@dataclass(frozen=True)
class Listeners:
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_inside(path: Path) -> Listeners:
    """Open the sockets of the namespace at ``path``, in the place of those there were.

    :raises OSError: it is no namespace, or its rules cannot be changed.
    """
    return netns.inside(path, _open)


def _open() -> Listeners:
    before = portrewrite.rewritten()
    udp, tcp = _pair(before)
    try:
        port = udp.getsockname()[1]
        if port != before:
            portrewrite.rewrite(ADDRESS, outside=53, inside=port)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return Listeners(udp, tcp)


def _pair(wanted: int) -> tuple[socket.socket, socket.socket]:
    """One port for both, ``wanted`` if it is free."""
    for attempt in range(_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # connections of the process before linger on it
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((ADDRESS, wanted))
            tcp.bind(udp.getsockname())
            tcp.listen(_BACKLOG)
        except OSError as e:
            udp.close()
            tcp.close()
            if e.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                raise
            wanted = 0
        else:
            return udp, tcp
    raise AssertionError
