"""Mount targets that are refused: nothing that an image or a user asks for may cover procfs.

If a container had a file system of its own over ``/proc``, or over parts of it, the runtime would mistake it
for the kernel's: it writes sysctls and looks up descriptors there (CVE-2019-19921, CVE-2025-52881). An image
can ask for such a mount with ``VOLUME``, and can put a symbolic link on the way.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.linux import syscalls
from wherry.model.container import MountPoint

_PROCFS = 0x9FA0
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))
_SINGLE = frozenset(
    f"/proc/{name}"
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)
"""Files that lxcfs and similar programs replace by per-container values; allowed, as with Docker."""


def check(root_fd: int, rootfs: Path, points: Sequence[MountPoint]) -> None:
    """Check every mount point in the root. Nobody else changes the root at this time.

    :raises InvalidArgument: a target is procfs, or lies in it, also through a link.
    """
    for point in points:
        where = _resolved(root_fd, rootfs, point.destination)
        if where == "/proc" and not (point.type == "bind" and _is_procfs(point.source)):
            raise _refused(point, "because it is not of type proc")
        if where.startswith("/proc/") and not (point.type == "bind" and where in _SINGLE):
            raise _refused(point, "because it is inside /proc")


def check_targets(root_fd: int, rootfs: Path, targets: Sequence[str]) -> None:
    """As :func:`check`, for mounts whose source is not procfs itself.

    :raises InvalidArgument: one is procfs, or lies in it.
    """
    for target in targets:
        where = _resolved(root_fd, rootfs, target)
        if where == "/proc" or where.startswith("/proc/"):
            raise InvalidArgument(f'"{target}" cannot be mounted because it is inside /proc')


def _refused(point: MountPoint, why: str) -> InvalidArgument:
    return InvalidArgument(f'"{point.destination}" cannot be mounted {why}')


def _resolved(root_fd: int, rootfs: Path, path: str) -> str:
    """Where ``path`` leads beneath the root; for a missing part the name itself is used."""
    existing, missing = path, ""
    while existing not in ("", "/"):
        try:
            fd = syscalls.openat2(root_fd, existing, os.O_PATH)
        except OSError as e:
            if e.errno not in _NOT_THERE:
                raise InvalidArgument(f"cannot mount over {path}: {e.strerror}") from e
            # Its parent decides where it is.
            existing, _, name = existing.rpartition("/")
            missing = f"/{name}{missing}"
            continue
        try:
            inside = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), rootfs)
        finally:
            os.close(fd)
        return ("" if inside == "." else f"/{inside}") + missing or "/"
    return missing or "/"


def _is_procfs(source: str) -> bool:
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return syscalls.filesystem_type(fd) == _PROCFS
    finally:
        os.close(fd)
