"""OCI ``linux.seccomp`` compiled to a BPF program by libseccomp (seccomp_init(3), seccomp_export_bpf(3)).

An OCI runtime compiles the filter anew at every start: 20 ms for Docker's policy on three architectures.
The daemon compiles each distinct filter once and hands the program on (crun(1),
``run.oci.seccomp_bpf_data``). The program is a binary tree, so system calls in the container are filtered
in fewer steps as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_OPTIMIZE, _BINARY_TREE = 8, 2
_UNKNOWN_SYSCALL = -1
_EPERM = 1


class _Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp`` (seccomp_rule_add(3))."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def compile_profile(profile: Mapping[str, Any]) -> bytes | None:
    """The filter as an array of ``struct sock_filter``, or ``None`` where only the runtime can do it.

    That is where libseccomp is not there, or where the profile uses what a bare program cannot carry
    (listeners, flags) or a name this library does not know in a place that matters.
    """
    library = _library()
    if library is None or profile.get("flags") or profile.get("listenerPath"):
        return None
    default = _action(profile, "defaultAction", "defaultErrnoRet")
    if default is None:
        return None
    context = library.seccomp_init(default)
    if not context:
        return None
    try:
        if not _fill(library, context, profile, default):
            return None
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _action(rule: Mapping[str, Any], key: str, errno_key: str) -> int | None:
    name = rule.get(key)
    code = _ACTIONS.get(str(name))
    if code is not None and name in _WITH_ERRNO:
        value = rule.get(errno_key)
        code |= (_EPERM if value is None else int(value)) & 0xFFFF
    return code


def _fill(library: ctypes.CDLL, context: int, profile: Mapping[str, Any], default: int) -> bool:
    for name in profile.get("architectures") or ():
        token = library.seccomp_arch_resolve_name(str(name).removeprefix("SCMP_ARCH_").lower().encode())
        if token == 0:
            return False
        result = library.seccomp_arch_add(context, token)
        if result < 0 and result != -errno.EEXIST:
            return False
    # A library too old for it makes a plain list instead, which filters the same.
    library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
    for rule in profile.get("syscalls") or ():
        action = _action(rule, "action", "errnoRet")
        if action is None:
            return False
        if action == default:
            continue
        comparisons = _comparisons(rule.get("args") or ())
        if comparisons is None:
            return False
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(str(name).encode())
            if number == _UNKNOWN_SYSCALL:
                continue  # The kernel may know it; the default then applies, as with the runtime.
            if library.seccomp_rule_add_array(context, action, number, len(comparisons), comparisons) < 0:
                return False
    return True


def _comparisons(arguments: Any) -> ctypes.Array[_Comparison] | None:
    found = []
    for argument in arguments:
        operator = _COMPARISONS.get(argument.get("op"))
        if operator is None:
            return None
        found.append(_Comparison(argument["index"], operator, argument["value"], argument.get("valueTwo", 0)))
    return (_Comparison * len(found))(*found)


def _export(library: ctypes.CDLL, context: int) -> bytes | None:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        if library.seccomp_export_bpf(context, fd) < 0:
            return None
        size = os.lseek(fd, 0, os.SEEK_END)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)
