"""A container's DNS sockets: 127.0.0.11 in its network namespace.

Port 53 itself stays free, because a server inside the container may want it on every address. The sockets use
a port that the kernel chooses. Packets to 127.0.0.11:53 are rewritten on their way, and so are the answers.
This is done without NAT, and so without connection tracking, which would cost time for every packet of the
container.
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
    """Open the sockets in the namespace at ``path``; they replace earlier ones.

    :raises OSError: it is not a namespace, or its rules cannot be changed.
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
    """A UDP and a TCP socket on one port, which is ``wanted`` if that is free."""
    for attempt in range(_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # connections of the earlier process still linger on it
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
