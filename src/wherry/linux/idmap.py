"""Idmapped mounts (mount_setattr(2), ``MOUNT_ATTR_IDMAP``) that exchange two owners of a mount's files.

Files that belong to ``disk`` on the disk appear as ``shown``'s, and files that ``shown`` creates belong to
``disk`` on the disk. All other owners stay. The map belongs to a user namespace, which exists only until the
kernel has it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import Unavailable
from wherry.linux import process, syscalls

_IDS = (1 << 32) - 1
"""The last id means "none" (user_namespaces(7))."""
_TIMEOUT = 5.0


@dataclass(frozen=True)
class IdOwner:
    uid: int
    gid: int


def swap(one: int, other: int) -> list[tuple[int, int, int]]:
    """Lines of a uid_map that exchange two ids: (inside, outside, count)."""
    if one == other:
        return [(0, 0, _IDS)]
    low, high = sorted((one, other))
    lines = [
        (0, 0, low),
        (low, high, 1),
        (low + 1, low + 1, high - low - 1),
        (high, low, 1),
        (high + 1, high + 1, _IDS - high - 1),
    ]
    return [line for line in lines if line[2]]


def map_tree(tree: int, disk: IdOwner, shown: IdOwner, *, recursive: bool) -> None:
    """Map a tree of mounts that is not attached yet (``OPEN_TREE_CLONE``).

    :raises OSError: EINVAL where its file system cannot be mapped. :raises Unavailable: no user namespace
        can be made on this host.
    """
    if disk == shown:
        return
    namespace = _namespace(swap(disk.uid, shown.uid), swap(disk.gid, shown.gid))
    try:
        flags = syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0)
        syscalls.mount_setattr(tree, "", flags, set_=syscalls.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    finally:
        os.close(namespace)


def _namespace(uids: Sequence[tuple[int, int, int]], gids: Sequence[tuple[int, int, int]]) -> int:
    """A descriptor of a user namespace with these maps. Only a process of one thread can make one."""
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=pipe, stdout=pipe, stderr=pipe, env=process.environment()
    )
    try:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        try:
            child.stdin.write(b"\n")
            child.stdin.flush()
            if not child.stdout.read(1):  # cat answers, so unshare has finished
                reason = child.stderr.read(300).decode(errors="replace").strip()
                raise Unavailable(f"cannot make a user namespace: {reason}")
            directory = Path(f"/proc/{child.pid}")
            (directory / "uid_map").write_text("".join(f"{a} {b} {c}\n" for a, b, c in uids))
            (directory / "gid_map").write_text("".join(f"{a} {b} {c}\n" for a, b, c in gids))
            return os.open(directory / "ns" / "user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise Unavailable(f"cannot make a user namespace: {e.strerror or e}") from e
    finally:
        child.kill()
        child.communicate(timeout=_TIMEOUT)
