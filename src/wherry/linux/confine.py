"""Give up privileges for good: how a child that reads hostile bytes confines itself.

The order matters: namespaces and the new root need privileges, so they come first. Capabilities, the system
call filter and the limits come last, and nothing can give the privileges back (capabilities(7), seccomp(2)).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys as interpreter
from collections.abc import Iterable, Mapping

from wherry.linux import syscalls as sys

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID = 0, 1, 2, 3, 4
CAP_SETPCAP, CAP_SYS_CHROOT, CAP_SYS_PTRACE = 8, 18, 19
CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_MKNOD, CAP_SETFCAP = 21, 24, 27, 31
_CAP_LAST = 63
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_SECUREBITS, _SECBITS_LOCKED = 28, 0x2F
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_EPERM_ACTION, _ALLOW_ACTION, _KILL_ACTION = 0x00050001, 0x7FFF0000, 0x80000000
_PROT_EXEC = 4
_MAPPING = {"x86_64": (9, 10, 329), "aarch64": (222, 226, 288)}
"""mmap, mprotect, pkey_mprotect: the third argument of each is the protection."""
_DENIED = {
    # kill, tkill, tgkill, execve, execveat, ptrace, socket, socketpair, connect, bind, mount, umount2,
    # pivot_root, chroot, setns, unshare, bpf, keyctl, add_key, init_module, process_vm_writev,
    # open_by_handle_at, userfaultfd, pidfd_open, pidfd_send_signal, pidfd_getfd, io_uring_setup,
    # open_tree, move_mount, fsopen, mount_setattr, perf_event_open, reboot, swapon, rt_sigqueueinfo;
    # and what root may do to root's other processes without any capability: prlimit64, setpriority,
    # ioprio_set, sched_setaffinity, sched_setscheduler, sched_setparam, sched_setattr, setpgid, setsid,
    # migrate_pages, move_pages, process_vm_readv, process_madvise, kcmp, rt_tgsigqueueinfo
    "x86_64": (
        *(62, 200, 234, 59, 322, 101, 41, 53, 42, 49, 165, 166, 155, 161, 308, 272, 321, 250, 248, 175, 311),
        *(304, 323, 434, 424, 438, 425, 428, 429, 430, 442, 298, 169, 167, 129),
        *(302, 141, 251, 203, 144, 142, 314, 109, 112, 256, 279, 310, 440, 312, 297),
    ),
    "aarch64": (
        *(129, 130, 131, 221, 281, 117, 198, 199, 203, 200, 40, 39, 41, 51, 268, 97, 280, 219, 217, 105, 271),
        *(265, 282, 434, 424, 438, 425, 428, 429, 430, 442, 241, 142, 224, 138),
        *(261, 140, 30, 122, 119, 118, 274, 154, 157, 238, 239, 270, 440, 272, 240),
    ),
}


def new_namespaces() -> None:
    """Own mounts (nothing propagates back), own empty network, own IPC.

    :raises OSError: as unshare(2).
    """
    sys.unshare(sys.CLONE_NEWNS | sys.CLONE_NEWNET | sys.CLONE_NEWIPC)
    sys.mount("none", "/", "none", sys.MS_REC | sys.MS_PRIVATE)


def enter_root(directory: str) -> None:
    """Make ``directory`` the root of this process's mount namespace and detach everything else.

    From then on device nodes, set-user-id bits and programs below it have no effect.

    :raises OSError: as mount(2), pivot_root(2).
    """
    inert = sys.MS_NODEV | sys.MS_NOSUID | sys.MS_NOEXEC
    sys.mount(directory, directory, "none", sys.MS_BIND)
    sys.mount("none", directory, "none", sys.MS_BIND | sys.MS_REMOUNT | inert)
    enter_mounted_root(directory)


def enter_mounted_root(directory: str) -> None:
    """As :func:`enter_root`, for a directory that is a mount point already; its flags stay as they are.

    :raises OSError: as pivot_root(2).
    """
    os.chdir(directory)
    sys._check(sys._libc.syscall(_SYS_PIVOT_ROOT[platform.machine()], b".", b"."))
    sys.umount(".", sys.MNT_DETACH)
    os.chdir("/")


def limit(limits: Mapping[int, int]) -> None:
    """Lower resource limits for good; a limit above the present hard one is left at that."""
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def drop_capabilities(keep: Iterable[int]) -> None:
    """Keep only these capabilities, for this process and for every program it could ever execute.

    :raises OSError: as capset(2), prctl(2).
    """
    mask = sum(1 << capability for capability in keep)
    for capability in range(_CAP_LAST + 1):
        if not mask >> capability & 1:
            try:
                sys.prctl(sys.PR_CAPBSET_DROP, capability)
            except OSError:
                break  # EINVAL: past the kernel's last capability
    sys.prctl(_PR_SET_SECUREBITS, _SECBITS_LOCKED)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=II", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    sys._check(sys._libc.capset(header, data))
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)


def deny_new_code() -> None:
    """From now on no library and no module can be loaded, whatever file system is visible.

    Memory cannot become executable any more (so dlopen(3) fails, and so does anything that the C library
    loads by itself), and Python finds nothing to import. Call it before :func:`deny_system_calls`.

    :raises OSError: as prctl(2).
    """
    interpreter.meta_path.clear()
    interpreter.path.clear()
    interpreter.path_hooks.clear()
    calls = _MAPPING.get(platform.machine())
    if calls is None:
        return
    program = [_bpf(0x20, 0, 0, 0)]  # load the number
    program += [_bpf(0x15, len(calls) - at, 0, number) for at, number in enumerate(calls)]
    program += [
        _bpf(0x06, 0, 0, _ALLOW_ACTION),
        _bpf(0x20, 0, 0, 16 + 2 * 8),  # load the low half of the third argument
        _bpf(0x45, 0, 1, _PROT_EXEC),
        _bpf(0x06, 0, 0, _EPERM_ACTION),
        _bpf(0x06, 0, 0, _ALLOW_ACTION),
    ]
    _install(program)


def deny_system_calls() -> None:
    """Refuse (EPERM) what an unpacker never needs: programs, signals, sockets, mounts, tracing.

    On an architecture without a table nothing happens here; the other protections remain.

    :raises OSError: as prctl(2).
    """
    machine = platform.machine()
    denied = _DENIED.get(machine)
    if denied is None:
        return
    program = [
        _bpf(0x20, 0, 0, 4),  # load the architecture
        _bpf(0x15, 1, 0, _AUDIT_ARCH[machine]),
        _bpf(0x06, 0, 0, _KILL_ACTION),
        _bpf(0x20, 0, 0, 0),  # load the number
        _bpf(0x35, len(denied) + 1, 0, _X32_BIT),
    ]
    for position, number in enumerate(denied):
        program.append(_bpf(0x15, len(denied) - position, 0, number))
    program += [_bpf(0x06, 0, 0, _ALLOW_ACTION), _bpf(0x06, 0, 0, _EPERM_ACTION)]
    _install(program)


def _install(program: list[bytes]) -> None:
    code = ctypes.create_string_buffer(b"".join(program))
    filter_ = struct.pack("@HP", len(program), ctypes.addressof(code))
    argument = ctypes.create_string_buffer(filter_)
    sys._check(sys._libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, argument, 0, 0))


def _bpf(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
