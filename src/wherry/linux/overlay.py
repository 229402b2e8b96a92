"""Mounting overlayfs with any number of layers (Documentation/filesystems/overlayfs.rst).

mount(2) carries all options in one page, which is full at about a hundred layers. The newer calls
fsopen(2), fsconfig(2), fsmount(2) take the layers one at a time since Linux 6.8. On older kernels the
layers are opened and named ``/proc/self/fd/N``, which lets some 230 of them fit into the page.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack

from wherry.linux import syscalls as sys

SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
LAYERS_MAX = 500
"""The kernel's own bound, OVL_MAX_STACK."""

_PAGE = 4096
_STRING_MAX = 255
_ATTRIBUTES = {sys.MS_RDONLY: 1, sys.MS_NOSUID: 2, sys.MS_NODEV: 4, sys.MS_NOEXEC: 8, sys.MS_NOATIME: 16}


def mount_overlay(source: str, target: str, flags: int, options: Sequence[str]) -> None:
    """Mount an overlay; ``options`` as for mount(8), ``lowerdir=`` with the layers joined by colons.

    :raises OSError: as mount(2); E2BIG for more than 500 layers, or more than the page holds on old kernels.
    """
    data = ",".join(options)
    if len(data) < _PAGE:
        sys.mount(source, target, "overlay", flags, data)
        return
    lower: list[str] = []
    rest: list[str] = []
    for option in options:
        if option.startswith("lowerdir="):
            lower = option.removeprefix("lowerdir=").split(":")
        else:
            rest.append(option)
    if len(lower) > LAYERS_MAX:
        raise OSError(errno.E2BIG, f"{len(lower)} layers are more than the kernel's {LAYERS_MAX}", target)
    try:
        _mount_stepwise(source, target, flags, lower, rest)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        _mount_by_descriptors(source, target, flags, lower, rest)


def _mount_stepwise(source: str, target: str, flags: int, lower: Sequence[str], rest: Sequence[str]) -> None:
    with ExitStack() as stack:
        context = _open(sys._libc.syscall(SYS_FSOPEN, b"overlay", FSOPEN_CLOEXEC), stack)
        _set_string(context, "source", source)
        for layer in lower:
            if len(layer) <= _STRING_MAX:
                _set_string(context, "lowerdir+", layer)
            else:
                _set_directory(context, "lowerdir+", layer, stack)
        for option in rest:
            key, equals, value = option.partition("=")
            if not equals:
                _fsconfig(context, FSCONFIG_SET_FLAG, key, None, 0)
            elif len(value) <= _STRING_MAX:
                _set_string(context, key, value)
            else:
                _set_directory(context, key, value, stack)
        _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0)
        attributes = sum(bit for flag, bit in _ATTRIBUTES.items() if flags & flag)
        mounted = _open(sys._libc.syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes), stack)
        sys.move_mount(mounted, "", -100, target, MOVE_MOUNT_F_EMPTY_PATH)


def _mount_by_descriptors(
    source: str, target: str, flags: int, lower: Sequence[str], rest: Sequence[str]
) -> None:
    with ExitStack() as stack:
        names = []
        for layer in lower:
            fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            names.append(f"/proc/self/fd/{fd}")
        data = ",".join([*rest, "lowerdir=" + ":".join(names)])
        if len(data) >= _PAGE:
            raise OSError(errno.E2BIG, "too many layers for this kernel's mount data", target)
        sys.mount(source, target, "overlay", flags, data)


def _open(fd: int, stack: ExitStack) -> int:
    sys._check(fd)
    stack.callback(os.close, fd)
    return fd


def _set_string(context: int, key: str, value: str) -> None:
    _fsconfig(context, FSCONFIG_SET_STRING, key, value, 0)


def _set_directory(context: int, key: str, path: str, stack: ExitStack) -> None:
    """Name a layer by descriptor (Linux 6.13), as a string parameter holds 255 bytes at most."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    _fsconfig(context, FSCONFIG_SET_FD, key, None, fd)


def _fsconfig(context: int, command: int, key: str | None, value: str | None, aux: int) -> None:
    encoded_key = None if key is None else key.encode()
    encoded_value = None if value is None else os.fsencode(value)
    result = sys._libc.syscall(
        SYS_FSCONFIG, context, command, ctypes.c_char_p(encoded_key), ctypes.c_char_p(encoded_value), aux
    )
    sys._check(result, key or "")
