"""Who a process runs as: ``--user`` looked up in the image's own ``/etc/passwd`` and ``/etc/group``.

Those files are written by whoever made the image. They are opened beneath the root by the kernel, must be
regular files, and are read up to a bound; ids must fit the kernel's (CVE-2024-40635: an id that overflows
must not become root).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.linux import syscalls

ID_MAX = (1 << 31) - 1
_FILE_SIZE_MAX = 4 << 20
_GROUPS_MAX = 4096


@dataclass(frozen=True)
class User:
    """Numeric ids, supplementary groups in ascending order, and the home directory (``/`` if unknown)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def lookup(root_fd: int, spec: str, group_add: Sequence[str] = ()) -> User:
    """Resolve ``[user|uid][:group|gid]`` as Docker does.

    :param root_fd: directory descriptor of the container's root file system.
    :raises InvalidArgument: a name that the image does not have, or an id out of range; Docker's words.
    """
    wanted_user, colon, wanted_group = spec.partition(":")
    passwd = list(_passwd(root_fd))
    entry = _find_user(passwd, wanted_user)
    uid, gid, home, name = 0, 0, "/", ""
    if entry is not None:
        name, uid, gid, home = entry
    elif wanted_user:
        uid = _numeric(wanted_user, f"unable to find user {wanted_user}: no matching entries in passwd file")
    groups_file = list(_groups(root_fd)) if (wanted_group or group_add or name) else []
    groups = {g for g_name, g, members in groups_file if name and name in members}
    if colon and wanted_group:
        gid = _group(groups_file, wanted_group)
        groups = set()
    groups |= {_group(groups_file, extra) for extra in group_add}
    return User(uid, gid, tuple(sorted(groups)), home or "/")


def _find_user(passwd: Iterable[tuple[str, int, int, str]], wanted: str) -> tuple[str, int, int, str] | None:
    numeric = int(wanted or "0") if not wanted or _is_id(wanted) else None
    by_id = None
    for entry in passwd:
        if wanted and entry[0] == wanted:
            return entry
        if by_id is None and numeric is not None and entry[1] == numeric:
            by_id = entry
    return by_id


def _group(groups: Iterable[tuple[str, int, frozenset[str]]], wanted: str) -> int:
    for name, gid, _members in groups:
        if name == wanted:
            return gid
    return _numeric(wanted, f"unable to find group {wanted}: no matching entries in group file")


def _numeric(text: str, message: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(message)
    if len(text) > 10 or int(text) > ID_MAX:
        raise InvalidArgument(f"uids and gids must be in range 0-{ID_MAX}")
    return int(text)


def _passwd(root_fd: int) -> Iterable[tuple[str, int, int, str]]:
    for line in _lines(root_fd, "etc/passwd"):
        fields = line.split(":")
        if len(fields) >= 6 and _is_id(fields[2]) and _is_id(fields[3]):
            yield fields[0], int(fields[2]), int(fields[3]), fields[5]


def _groups(root_fd: int) -> Iterable[tuple[str, int, frozenset[str]]]:
    for line in _lines(root_fd, "etc/group"):
        fields = line.split(":")
        if len(fields) >= 4 and _is_id(fields[2]):
            yield fields[0], int(fields[2]), frozenset(fields[3].split(",")[:_GROUPS_MAX])


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= ID_MAX


def _lines(root_fd: int, path: str) -> list[str]:
    try:
        # NONBLOCK: a FIFO in this place must not hold the daemon.
        fd = syscalls.openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        data = bytearray()
        while len(data) <= _FILE_SIZE_MAX:
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return data.decode("utf-8", "surrogateescape").splitlines()
            data += chunk
    finally:
        os.close(fd)
    raise InvalidArgument(f"cannot read /{path} of the image: larger than {_FILE_SIZE_MAX} bytes")
