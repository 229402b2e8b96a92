"""System calls that Python's ``os`` lacks: each a tiny typed function that raises ``OSError``.

Numbers of calls without a glibc 2.36 wrapper come from asm-generic/unistd.h (they are the same on every
architecture since Linux 5.0's table was unified).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)

SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_BIND, MS_REC = 32, 1024, 4096, 16384
MS_SYNCHRONOUS, MS_DIRSYNC, MS_NODIRATIME = 16, 128, 2048
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_TIME_ERROR = 5
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_IDMAP = 0x00100000

CLONE_FS = 0x00000200
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10

PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15

_OPENAT2_TRIES = 256


def _check(result: int, *names: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *names[:1])
    return result


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). ``data`` is limited to one page by the kernel; a longer one raises EINVAL or E2BIG."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, target)


RENAME_EXCHANGE = 2


def exchange(one: os.PathLike[str] | str, other: os.PathLike[str] | str) -> None:
    """renameat2(2) with RENAME_EXCHANGE: each takes the other's place, in one step."""
    result = _libc.renameat2(
        AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), ctypes.c_uint(RENAME_EXCHANGE)
    )
    _check(result, os.fspath(one))


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def syncfs(fd: int) -> None:
    """syncfs(2): returns when all that was written to the file system of ``fd`` is on its device."""
    _check(_libc.syncfs(fd))


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread (CLONE_NEWNS needs an unshared CLONE_FS, which it implies)."""
    _check(_libc.unshare(flags))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2), for the calling thread: only ever on a thread that ends afterwards, or in a child."""
    _check(_libc.setns(fd, nstype))


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    arguments = [ctypes.c_ulong(a) for a in (arg2, arg3, arg4, arg5)]
    return _check(_libc.prctl(option, *arguments))


def set_name(name: str) -> None:
    """Name this thread, as ``ps -o comm`` shows it: PR_SET_NAME of prctl(2), cut to 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, os.fsencode(name)[:15], *(ctypes.c_ulong(0),) * 3))


def openat2(dirfd: int, path: str, flags: int, *, resolve: int = RESOLVE_IN_ROOT) -> int:
    """openat2(2): open ``path`` with the kernel holding it beneath ``dirfd``. The descriptor is CLOEXEC.

    The kernel gives up a path with ``..`` in it when anything at all on the host is renamed or mounted in
    that moment, and says EAGAIN: that is no answer about the path, so it is asked again.

    :raises OSError: as openat2(2); EAGAIN after very many tries.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    encoded, size = os.fsencode(path), ctypes.c_size_t(len(how))
    for _ in range(_OPENAT2_TRIES):
        result = _libc.syscall(SYS_OPENAT2, dirfd, encoded, how, size)
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(result, path)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2)."""
    return _check(_libc.syscall(SYS_OPEN_TREE, dirfd, os.fsencode(path), flags), path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """move_mount(2)."""
    result = _libc.syscall(
        SYS_MOVE_MOUNT, from_fd, os.fsencode(from_path), to_fd, os.fsencode(to_path), flags
    )
    _check(result, to_path)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    set_: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2) with the first ``struct mount_attr`` (32 bytes)."""
    attr = struct.pack("=QQQQ", set_, 0, propagation, userns_fd)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, dirfd, os.fsencode(path), flags, attr, ctypes.c_size_t(len(attr))
    )
    _check(result, path)


_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6


def fsopen(fstype: str) -> int:
    """fsopen(2): a context to configure a new file system in."""
    return _check(_libc.syscall(SYS_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC), fstype)


def fsconfig_set(fd: int, key: str, value: str | None) -> None:
    """fsconfig(2): one option, a flag where ``value`` is None."""
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    data = None if value is None else value.encode()
    _check(_libc.syscall(SYS_FSCONFIG, fd, command, key.encode(), data, 0), key)


def fsconfig_create(fd: int) -> None:
    """fsconfig(2) with ``FSCONFIG_CMD_CREATE``."""
    _check(_libc.syscall(SYS_FSCONFIG, fd, _FSCONFIG_CMD_CREATE, None, None, 0))


def fsmount(fd: int, attributes: int) -> int:
    """fsmount(2): a detached mount of what was configured; ``attributes`` are ``MOUNT_ATTR_*``."""
    return _check(_libc.syscall(SYS_FSMOUNT, fd, _FSMOUNT_CLOEXEC, attributes))


def filesystem_type(fd: int) -> int:
    """``f_type`` of fstatfs(2), the file system's magic number; works on O_PATH descriptors."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, buffer))
    return int.from_bytes(buffer.raw[:8], sys.byteorder, signed=True) & 0xFFFFFFFF


def clock_synchronised() -> bool:
    """Whether the kernel's clock is kept in step with another one (adjtimex(2))."""
    state = ctypes.create_string_buffer(512)
    result = int(_libc.adjtimex(state))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result != _TIME_ERROR
