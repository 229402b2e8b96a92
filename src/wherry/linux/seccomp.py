"""The default system call filter: Docker's policy, as data and one function.

An allow-list: what is not named fails with EPERM. What needs a capability is allowed to containers that
were given it. Two answers differ on purpose: ``clone3`` fails with ENOSYS, because its flags are behind a
pointer that a filter cannot read and C libraries then fall back to ``clone``; and ``clone`` is allowed only
without namespace flags. Sockets of AF_VSOCK (40) and AF_ALG (38) reach host services that no namespace
bounds. ``socketcall``, which 32-bit programs use, hides the family behind a pointer: as with Docker it is
allowed, and only a security module could tell.

Sources: seccomp(2), libseccomp's syscall tables, docs.docker.com/engine/security/seccomp.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from wherry.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

_CLONE_NEWCGROUP = 0x02000000
_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | _CLONE_NEWCGROUP
)
_EPERM, _ENOSYS = 1, 38
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_ALWAYS = """
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod
chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range
creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32
fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents
getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32
getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get
ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr
lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat
mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect
poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigpending
sigprocmask sigreturn sigsuspend socketcall socketpair splice stat stat64 statfs statfs64 statmount
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes
vfork vmsplice wait4 waitid waitpid write writev
""".split()

_BY_ARCHITECTURE: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "amd64": ("arch_prctl", "modify_ldt"),
        "386": ("modify_ldt",),
        "arm": (
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ),
        "arm64": (
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ),
        "ppc64le": ("sync_file_range2", "swapcontext"),
        "s390x": ("s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"),
        "riscv64": ("riscv_flush_icache",),
    }
)

_BY_CAPABILITY: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
        "CAP_SYS_ADMIN": (
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ),
        "CAP_SYS_BOOT": ("reboot",),
        "CAP_SYS_CHROOT": ("chroot",),
        "CAP_SYS_MODULE": ("delete_module", "init_module", "finit_module"),
        "CAP_SYS_PACCT": ("acct",),
        "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
        "CAP_SYS_RAWIO": ("iopl", "ioperm"),
        "CAP_SYS_TIME": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
        "CAP_SYS_TTY_CONFIG": ("vhangup",),
        "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
        "CAP_SYSLOG": ("syslog",),
        "CAP_BPF": ("bpf",),
        "CAP_PERFMON": ("perf_event_open",),
    }
)

_OCI_ARCHITECTURES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        "386": ("SCMP_ARCH_X86",),
        "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
        "arm": ("SCMP_ARCH_ARM",),
        "ppc64le": ("SCMP_ARCH_PPC64LE",),
        "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
        "riscv64": ("SCMP_ARCH_RISCV64",),
    }
)


def default_profile(capabilities: Collection[str], architecture: str) -> dict[str, Any]:
    """The filter for a process with these bounding capabilities (``CAP_…``), as OCI ``linux.seccomp``.

    :param architecture: Go's name (``amd64``), of the host.
    """
    allowed = set(_ALWAYS) | set(_BY_ARCHITECTURE.get(architecture, ()))
    for capability in capabilities:
        allowed.update(_BY_CAPABILITY.get(capability, ()))
    rules: list[dict[str, Any]] = []
    allowed.discard("socket")
    rules.append({"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"})
    rules += [_allow("personality", 0, value, "SCMP_CMP_EQ") for value in _PERSONALITIES]
    rules += _sockets()
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if architecture == "s390x" else 0
        rules.append(_allow("clone", flags, _NAMESPACES, "SCMP_CMP_MASKED_EQ"))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_OCI_ARCHITECTURES.get(architecture, ())),
        "syscalls": rules,
    }


def _allow(name: str, index: int, value: int, op: str) -> dict[str, Any]:
    argument = {"index": index, "value": value, "op": op}
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]}


_INT = 0xFFFFFFFF
_FAMILIES = ((0, 32), (32, 4), (36, 2), (39, 1), (41, 1), (42, 2), (44, 4), (48, 16), (64, 64), (128, 128))
"""Address families that are allowed, as blocks of a power of two: all up to 255 but AF_ALG and AF_VSOCK. A
kernel of today knows 46."""


def _sockets() -> list[dict[str, Any]]:
    """Every address family but the two refused, told by the low half of the argument.

    The kernel takes the family as an int and drops the upper half of the register, while a filter compares
    all 64 bits: with ``> 40`` or ``!= 40``, family ``2**32 + 40`` would pass and be AF_VSOCK. What is above
    all families is refused with the rest.
    """
    rules = []
    for first, count in _FAMILIES:
        argument = {
            "index": 0,
            "value": _INT & ~(count - 1),
            "valueTwo": first,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        rules.append({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [argument]})
    return rules


def from_docker_profile(
    profile: Mapping[str, Any], capabilities: Collection[str], architecture: str
) -> dict[str, Any]:
    """Turn a profile file in Docker's format (``includes``/``excludes``/``archMap``) into OCI's.

    :raises KeyError: a rule has no action.
    """
    rules: list[dict[str, Any]] = []
    for rule in profile.get("syscalls") or ():
        if not _applies(rule, capabilities, architecture):
            continue
        names = list(rule.get("names") or ()) or [rule["name"]]
        out: dict[str, Any] = {"names": names, "action": rule["action"]}
        if rule.get("args"):
            out["args"] = rule["args"]
        if rule.get("errnoRet") is not None:
            out["errnoRet"] = rule["errnoRet"]
        rules.append(out)
    result = {
        k: profile[k] for k in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath") if k in profile
    }
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") in _OCI_ARCHITECTURES.get(architecture, ())[:1]:
            architectures = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return {**result, "architectures": architectures, "syscalls": rules}


def _applies(rule: Mapping[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if any(c in capabilities for c in unwanted.get("caps") or ()):
        return False
    if architecture in (unwanted.get("arches") or ()):
        return False
    if wanted.get("arches") and architecture not in wanted["arches"]:
        return False
    return all(c in capabilities for c in wanted.get("caps") or ())
