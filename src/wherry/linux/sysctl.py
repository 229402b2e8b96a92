"""Kernel parameters of the calling thread's network namespace (``/proc/sys``, sysctl(8))."""

from __future__ import annotations

from pathlib import Path

from wherry.errors import Internal

_ROOT = Path("/proc/sys")


def path(*parts: str) -> Path:
    """The file of a parameter. Parts, not a dotted name: an interface name may hold dots.

    :raises Internal: a part that is not one path component.
    """
    if any(not p or p in (".", "..") or "/" in p or "\0" in p for p in parts):
        raise Internal(f"cannot name a kernel parameter: {parts!r}")
    return _ROOT.joinpath(*parts)


def read(*parts: str) -> str:
    """:raises OSError: no such parameter."""
    return path(*parts).read_text().strip()


def write(value: str, *parts: str) -> None:
    """:raises OSError: no such parameter, or /proc/sys is read-only."""
    path(*parts).write_text(value)
