"""Which process holds a port of the host (proc(5), ``/proc/net/tcp``): for error messages."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"


def named(proto: str, port: int) -> str:
    """`` (held by nginx, pid 123)``, or ``""`` if that is unknown."""
    inodes = _inodes(proto, port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has(entry, wanted):
            with suppress(OSError):
                return f" (held by {(entry / 'comm').read_text().strip()}, pid {entry.name})"
    return ""


def _inodes(proto: str, port: int) -> set[str]:
    found: set[str] = set()
    for name in (proto, f"{proto}6"):
        with suppress(OSError):
            for line in (Path("/proc/net") / name).read_text().splitlines()[1:]:
                fields = line.split()
                listens = proto != "tcp" or fields[3] == _LISTEN
                if listens and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _has(process: Path, wanted: set[str]) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(fd) in wanted:
                    return True
    return False
