"""TCP connections that a process's network namespace has accepted (proc(5), ``/proc/<pid>/net/tcp``)."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"
_BUSY = ("01", "03", "04", "08", "09")
"""Established, SYN received, FIN wait 1, close wait, last ACK (include/net/tcp_states.h): one side still has
something to say."""


def accepted(pid: int) -> int:
    """How many connections to ports on which somebody listens are not over yet.

    :raises OSError: there is no such process.
    """
    lines = [line.split(None, 4) for name in ("tcp", "tcp6") for line in _lines(pid, name)]
    ports = {_port(words[1]) for words in lines if words[3] == _LISTEN}
    return sum(1 for words in lines if words[3] in _BUSY and _port(words[1]) in ports)


def _lines(pid: int, name: str) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/net/{name}").read_text()
    except FileNotFoundError:
        if name == "tcp6":  # a kernel without IPv6
            return []
        raise
    return text.splitlines()[1:]


def _port(address: str) -> str:
    return address.rpartition(":")[2]
