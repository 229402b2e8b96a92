"""Who a process runs as: ``--user`` looked up in the image's own ``/etc/passwd`` and ``/etc/group``.

Those files are written by whoever made the image. They are opened beneath the root by the kernel, must be
regular files, and are read up to a bound; ids must fit the kernel's (CVE-2024-40635: an id that overflows
must not become root). A number is always an id: an image that calls an entry ``1000`` does not decide who
``-u 1000`` is. Otherwise the rules are Docker's (moby/sys/user).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.linux import syscalls

ID_MAX = (1 << 31) - 1
_FILE_SIZE_MAX = 4 << 20
_GROUPS_MAX = 4096
_NUMBER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_DIGITS = 20
"""The most digits of a number; more of them only make it larger."""


@dataclass(frozen=True)
class User:
    """Numeric ids, supplementary groups in ascending order, and the home directory (``/`` if unknown).

    The primary group is among the supplementary ones: a set-gid program changes the former, and a file that
    is closed to the group must stay closed to it (CVE-2022-36109).
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def lookup(root_fd: int, spec: str, group_add: Sequence[str] = ()) -> User:
    """Resolve ``[user|uid][:group|gid]`` as Docker does.

    A user by number has the primary group, the home and the supplementary groups of the entry with that id,
    else group 0. A group that is named takes the place of the entry's supplementary groups; those of
    ``group_add`` come on top.

    :param root_fd: directory descriptor of the container's root file system.
    :raises InvalidArgument: a name that the image does not have, or an id out of range; Docker's words.
    """
    wanted_user, colon, wanted_group = spec.partition(":")
    by_id = number(wanted_user or "0")
    entry = _find_user(_passwd(root_fd), wanted_user, by_id)
    uid, gid, home, name = by_id or 0, 0, "/", ""
    if entry is not None:
        name, uid, gid, home = entry
    elif by_id is None:
        raise InvalidArgument(f"unable to find user {wanted_user}: no matching entries in passwd file")
    groups_file = list(_groups(root_fd)) if (wanted_group or group_add or name) else []
    groups = {g for g_name, g, members in groups_file if name and name in members}
    if colon and wanted_group:
        gid = _group(groups_file, wanted_group)
        groups = set()
    groups |= {_group(groups_file, extra) for extra in group_add}
    return User(uid, gid, tuple(sorted({gid, *groups})), home or "/")


def number(text: str) -> int | None:
    """The id that ``text`` is, ``None`` for a name. :raises InvalidArgument: out of range; Docker's words."""
    if not _NUMBER.fullmatch(text):
        return None
    value = int(text) if len(text) <= _DIGITS else -1
    if not 0 <= value <= ID_MAX:
        raise InvalidArgument(f"uids and gids must be in range 0-{ID_MAX}")
    return value


def _find_user(
    passwd: Iterable[tuple[str, int, int, str]], wanted: str, by_id: int | None
) -> tuple[str, int, int, str] | None:
    for entry in passwd:
        if entry[0] == wanted if by_id is None else entry[1] == by_id:
            return entry
    return None


def _group(groups: Iterable[tuple[str, int, frozenset[str]]], wanted: str) -> int:
    by_id = number(wanted)
    if by_id is not None:
        return by_id
    for name, gid, _members in groups:
        if name == wanted:
            return gid
    raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")


def _passwd(root_fd: int) -> Iterable[tuple[str, int, int, str]]:
    for line in _lines(root_fd, "etc/passwd"):
        fields = line.split(":")
        if len(fields) >= 4 and _is_id(fields[2]) and _is_id(fields[3]):
            yield fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else ""


def _groups(root_fd: int) -> Iterable[tuple[str, int, frozenset[str]]]:
    for line in _lines(root_fd, "etc/group"):
        fields = line.split(":")
        if len(fields) >= 4 and _is_id(fields[2]):
            yield fields[0], int(fields[2]), frozenset(fields[3].split(",")[:_GROUPS_MAX])


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= ID_MAX


def _lines(root_fd: int, path: str) -> list[str]:
    try:
        # NONBLOCK: a FIFO at this path must not block the daemon.
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
                return [line.strip() for line in data.decode("utf-8", "surrogateescape").split("\n")]
            data += chunk
    finally:
        os.close(fd)
    raise InvalidArgument(f"cannot read /{path} of the image: larger than {_FILE_SIZE_MAX} bytes")
