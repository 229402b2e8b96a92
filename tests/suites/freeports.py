"""Ports that nobody uses, and that nobody will be given by chance.

A port that the kernel chose (``bind`` to 0) is soon given to another: programs that ask for any port, and
daemons that publish one, choose from ``ip_local_port_range``, the latter from its beginning. These are from
below it.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 12_000
_TRIES = 1000
_chance = random.SystemRandom()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free on all addresses, for ``kind`` and, as what is started may use both, for TCP."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(_TRIES):
        port = _chance.randrange(_LOWEST, max(end, _LOWEST + 1000))
        if all(_is_free(port, one) for one in {kind, socket.SOCK_STREAM}):
            return port
    raise AssertionError("no port is free")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
