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

from wherry.linux import netns
from wherry.linux.nft import Nft, table_exists

ADDRESS = "127.0.0.11"
_TRIES = 16
_BACKLOG = 64
_NAME = "wherry_dns"
_TABLE = """\
add table inet wherry_dns
add chain inet wherry_dns output {{ type filter hook output priority raw; policy accept; }}
add rule inet wherry_dns output ip daddr {a} udp dport 53 udp dport set {p}
add rule inet wherry_dns output ip daddr {a} tcp dport 53 tcp dport set {p}
add rule inet wherry_dns output ip saddr {a} udp sport {p} udp sport set 53
add rule inet wherry_dns output ip saddr {a} tcp sport {p} tcp sport set 53
"""


@dataclass(frozen=True)
class Listeners:
    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_inside(path: Path) -> Listeners:
    """Open the sockets of the namespace at ``path``, in the place of those there were.

    :raises OSError: it is no namespace. :raises Internal: its rules cannot be changed.
    """
    return netns.inside(path, _open)


def _open() -> Listeners:
    udp, tcp = _pair()
    try:
        nft = Nft()
        try:
            text = _TABLE.format(a=ADDRESS, p=udp.getsockname()[1])
            # a removal costs the kernel 15 ms, and a new namespace has nothing to remove
            nft.run(f"delete table inet {_NAME}\n{text}" if table_exists(_NAME) else text)
        finally:
            nft.close()
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return Listeners(udp, tcp)


def _pair() -> tuple[socket.socket, socket.socket]:
    """One port for both."""
    for attempt in range(_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            udp.bind((ADDRESS, 0))
            tcp.bind(udp.getsockname())
            tcp.listen(_BACKLOG)
        except OSError as e:
            udp.close()
            tcp.close()
            if e.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                raise
        else:
            return udp, tcp
    raise AssertionError
