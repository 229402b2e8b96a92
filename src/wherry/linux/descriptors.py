"""Limits of descriptors, and waiting for a descriptor with any number.

``select`` cannot handle a descriptor above 1023: it writes beyond its bit mask (select(2)). For programs that
still use it the soft limit is low. Other programs are meant to raise it up to the hard limit, and to restore
it for the programs that they start.
"""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Sequence

from wherry.errors import Unavailable

_STARTED_WITH = resource.getrlimit(resource.RLIMIT_NOFILE)
_PRLIMIT = "/usr/bin/prlimit"
_ENOUGH = 1 << 20
_FOR_WORK, _FOR_CLEANING = 1024, 256


def raise_limit() -> int:
    """Raise the soft limit to the hard one, or to a million if that is less; return it."""
    soft, hard = _STARTED_WITH
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):  # fs.nr_open was lowered meanwhile
        return soft
    return most


def limit() -> int:
    """How many descriptors this process may have now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """About how many can still be opened: the next one gets the lowest free number."""
    try:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return 0
    os.close(fd)
    return max(0, limit() - fd - 1)


def for_work() -> int:
    """How many descriptors clients leave for their requests' work: 1,024, but at most a quarter."""
    return min(_FOR_WORK, limit() // 4)


def require(what: str) -> None:
    """Call this before starting work: some descriptors are reserved for cleaning up.

    :raises Unavailable: too few are left.
    """
    if left() < min(_FOR_CLEANING, limit() // 8):
        raise Unavailable(f"cannot {what}: too many open files: of {limit()} descriptors few are left")


def inherited() -> tuple[int, int]:
    """The soft and the hard limit that this process was started with, and that other programs get."""
    return _STARTED_WITH


def with_inherited(argv: Sequence[str]) -> list[str]:
    """A command that starts a program with the limits of :func:`inherited`.

    ``preexec_fn`` is not used: a process with many threads must not fork with it.
    """
    if resource.getrlimit(resource.RLIMIT_NOFILE) == _STARTED_WITH or not os.access(_PRLIMIT, os.X_OK):
        return list(argv)
    soft, hard = ("unlimited" if n == resource.RLIM_INFINITY else str(n) for n in _STARTED_WITH)
    return [_PRLIMIT, f"--nofile={soft}:{hard}", *argv]


def readable(fd: int, timeout: float) -> bool:
    """Wait until there is something to read, or the peer is gone, for at most ``timeout`` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))
