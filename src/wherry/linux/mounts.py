"""Mounting the values of ``model.mount``, and reading what is mounted (proc_pid_mountinfo(5))."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.linux import syscalls as sys
from wherry.linux.overlay import mount_overlay
from wherry.model.mount import Mount

_FLAGS = {
    "ro": (sys.MS_RDONLY, True),
    "rw": (sys.MS_RDONLY, False),
    "nosuid": (sys.MS_NOSUID, True),
    "suid": (sys.MS_NOSUID, False),
    "nodev": (sys.MS_NODEV, True),
    "dev": (sys.MS_NODEV, False),
    "noexec": (sys.MS_NOEXEC, True),
    "exec": (sys.MS_NOEXEC, False),
    "noatime": (sys.MS_NOATIME, True),
    "atime": (sys.MS_NOATIME, False),
    "nodiratime": (sys.MS_NODIRATIME, True),
    "diratime": (sys.MS_NODIRATIME, False),
    "relatime": (sys.MS_RELATIME, True),
    "norelatime": (sys.MS_RELATIME, False),
    "strictatime": (sys.MS_STRICTATIME, True),
    "lazytime": (sys.MS_LAZYTIME, True),
    "sync": (sys.MS_SYNCHRONOUS, True),
    "async": (sys.MS_SYNCHRONOUS, False),
    "dirsync": (sys.MS_DIRSYNC, True),
    "bind": (sys.MS_BIND, True),
    "rbind": (sys.MS_BIND | sys.MS_REC, True),
    "remount": (sys.MS_REMOUNT, True),
}
_PROPAGATION = {
    "private": sys.MS_PRIVATE,
    "rprivate": sys.MS_PRIVATE | sys.MS_REC,
    "slave": sys.MS_SLAVE,
    "rslave": sys.MS_SLAVE | sys.MS_REC,
    "shared": sys.MS_SHARED,
    "rshared": sys.MS_SHARED | sys.MS_REC,
}


def parse_options(options: Sequence[str]) -> tuple[int, int, str]:
    """Split mount(8) options into flags, a propagation flag (0 for none) and the file system's data."""
    flags, propagation, data = 0, 0, []
    for option in options:
        if option in _FLAGS:
            bits, on = _FLAGS[option]
            flags = flags | bits if on else flags & ~bits
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option:
            data.append(option)
    return flags, propagation, ",".join(data)


def mount(value: Mount, target: Path | str) -> None:
    """Mount one value on an existing target.

    A read-only bind takes two calls, as the kernel ignores the flags of the first (mount(2), "Remounting").
    :raises OSError: as mount(2).
    """
    where = str(target)
    flags, propagation, data = parse_options(value.options)
    if value.type == "overlay":
        mount_overlay(value.source, where, flags, data.split(","))
    else:
        sys.mount(value.source, where, value.type if value.type != "bind" else "none", flags, data)
    if flags & sys.MS_BIND and flags & ~(sys.MS_BIND | sys.MS_REC):
        sys.mount("none", where, "none", flags | sys.MS_REMOUNT)
    if propagation:
        sys.mount("none", where, "none", propagation)


def unmount(target: Path | str, *, lazy: bool = True) -> None:
    """Unmount the top mount on ``target``; if there is none, or no such path, nothing happens.

    Lazily by default: an open file must not keep a stopped container from being removed.
    """
    try:
        sys.umount(str(target), sys.UMOUNT_NOFOLLOW | (sys.MNT_DETACH if lazy else 0))
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def let_go(target: Path | str) -> int:
    """Unmount the top mount on ``target`` lazily; what keeps its file system for now is the descriptor that
    is returned, or -1 if there is no such path.

    Whoever closes a file system last waits while the kernel writes out what is left: with an overlay, all
    that is to be written to the disk below it, whoever wrote it. So closing the descriptor takes as long as
    the disk does, and this does not.
    """
    try:
        fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        unmount(target)
    except BaseException:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True)
class MountEntry:
    """A line of mountinfo; ``root`` is the mounted directory within its file system.

    ``shares``: what is mounted below it is mounted for its peers too. ``follows``: what is mounted below its
    master is mounted here too (mount_namespaces(7)).
    """

    target: str
    root: str
    type: str
    source: str
    options: str
    shares: bool = False
    follows: bool = False


def read_mounts(pid: int | str = "self") -> Iterator[MountEntry]:
    """Every mount of a process's namespace, in mount order. :raises OSError: the process is gone."""
    with Path(f"/proc/{pid}/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields, tail = left.split(" "), right.split(" ")
            yield MountEntry(
                target=_unescape(fields[4]),
                root=_unescape(fields[3]),
                type=tail[0],
                source=_unescape(tail[1]),
                options=fields[5] + "," + (tail[2] if len(tail) > 2 else ""),
                shares=any(field.startswith("shared:") for field in fields[6:]),
                follows=any(field.startswith("master:") for field in fields[6:]),
            )


def mount_of(path: Path) -> MountEntry:
    """The mount that contains a path. :raises OSError: there is no such path."""
    device = path.stat().st_dev
    real = os.path.realpath(path)
    best = MountEntry("/", "/", "", "", "")
    for entry in read_mounts():
        inside = real == entry.target or real.startswith(entry.target.rstrip("/") + "/")
        if inside and len(entry.target) >= len(best.target) and _device_of(entry.target) == device:
            best = entry
    return best


def _device_of(path: str) -> int:
    try:
        return os.stat(path).st_dev
    except OSError:
        return -1


def mounts_below(directory: Path) -> list[str]:
    """Targets at or beneath ``directory``, deepest mount first, ready to be unmounted in that order."""
    prefix = os.path.realpath(directory)
    found = [m.target for m in read_mounts() if m.target == prefix or m.target.startswith(prefix + "/")]
    return found[::-1]


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
