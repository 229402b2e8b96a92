"""Which mounts there are, by their numbers: listmount(2), statmount(2), Linux 6.8.

A number names one mount for as long as the system runs, so two lists tell what came and what went, in a
hundredth of the time that reading ``/proc/self/mountinfo`` takes.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from wherry.linux import syscalls

_SYS_STATMOUNT, _SYS_LISTMOUNT = 457, 458
_ROOT = 0xFFFF_FFFF_FFFF_FFFF
"""``LSMT_ROOT``: the root of the caller's namespace."""
_REQUEST = struct.Struct("=IIQQ")
_BASIC, _MOUNT, _FROM, _POINT = 0x1, 0x2, 0x4, 0x10
"""``STATMOUNT_SB_BASIC``, ``_MNT_BASIC``, ``_PROPAGATE_FROM``, ``_MNT_POINT``."""
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_SIZE, _STATX_MNT_ID = 256, 0x90
_PIECE = 4096
_STAT_MAX = 16 << 10

_libc = ctypes.CDLL(None, use_errno=True)


def of_path(path: str) -> int:
    """The number of the mount that ``path`` lies on. :raises OSError: no such path, or an older kernel."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(syscalls.AT_FDCWD, os.fsencode(path), 0, _STATX_MNT_ID_UNIQUE, buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    mask, found = struct.unpack_from("=I", buffer)[0], struct.unpack_from("=Q", buffer, _STATX_MNT_ID)[0]
    if not mask & _STATX_MNT_ID_UNIQUE:
        raise OSError(errno.ENOSYS, "this kernel does not number mounts", path)
    return int(found)


def below(mount: int = _ROOT) -> frozenset[int]:
    """The mounts below one, at any depth, or all of this namespace. :raises OSError: an older kernel."""
    found: list[int] = []
    piece = (ctypes.c_uint64 * _PIECE)()
    last = 0
    while True:
        request = _REQUEST.pack(_REQUEST.size, 0, mount, last)
        count = _libc.syscall(_SYS_LISTMOUNT, request, piece, ctypes.c_size_t(_PIECE), 0)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "listmount")
        part = array.array("Q", bytes(piece)[: count * 8])
        found.extend(part)
        if count < _PIECE:
            return frozenset(found)
        last = part[-1]


def described(mounts: Iterable[int]) -> tuple[bytes, ...]:
    """All that tells these mounts apart from others, and from how they were before: where they are, their
    flags, their peers and masters. One that went meanwhile is left out. :raises OSError: an older kernel."""
    found = []
    buffer = ctypes.create_string_buffer(_STAT_MAX)
    for mount in mounts:
        request = _REQUEST.pack(_REQUEST.size, 0, mount, _BASIC | _MOUNT | _FROM | _POINT)
        ctypes.memset(buffer, 0, 4)
        if _libc.syscall(_SYS_STATMOUNT, request, buffer, ctypes.c_size_t(_STAT_MAX), 0) < 0:
            number = ctypes.get_errno()
            if number != errno.ENOENT:
                raise OSError(number, os.strerror(number), "statmount")
            continue
        size = struct.unpack_from("=I", buffer)[0]
        found.append(bytes(memoryview(buffer)[:size]))
    return tuple(found)
