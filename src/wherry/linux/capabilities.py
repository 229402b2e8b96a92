"""Capabilities by name (capabilities(7)), Docker's default set, and the arithmetic of add and drop."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from wherry.errors import InvalidArgument

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
""".split()
"""In bit order (linux/capability.h)."""

ALL = tuple(f"CAP_{name}" for name in _NAMES)

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


@cache
def available() -> tuple[str, ...]:
    """What this process may pass on: its bounding set, in bit order."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return tuple(name for bit, name in enumerate(ALL) if bits >> bit & 1)
    return ALL


def normalise(name: str, what: str = "CapAdd") -> str:
    """``net_admin`` and ``CAP_NET_ADMIN`` are ``CAP_NET_ADMIN``; ``ALL`` stays.

    :param what: where it was asked for, as errors name it.

    :raises InvalidArgument: no such capability.
    """
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL:
        raise InvalidArgument(f'invalid {what}: unknown capability: "{full}"')
    return full


def effective(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> tuple[str, ...]:
    """A container's capabilities, in bit order: the defaults with the requested changes, within what the host
    has.

    :raises InvalidArgument: an unknown name, or a requested one that the daemon itself does not have.
    """
    adds, drops = [normalise(n) for n in add], [normalise(n, "CapDrop") for n in drop]
    host = available()
    if privileged:
        return host
    missing = [n for n in adds if n != "ALL" and n not in host]
    if missing:
        raise InvalidArgument(f"cannot add {missing[0]}: this host's daemon does not hold it")
    chosen = set(host) if "ALL" in adds else set() if "ALL" in drops else set(DEFAULT)
    chosen |= {n for n in adds if n != "ALL"}
    chosen -= {n for n in drops if n != "ALL"} - (set(adds) if "ALL" in drops else set())
    return tuple(n for n in host if n in chosen)
