"""Jobs of the fork server under test; they run in forks of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wherry.linux import confine, syscalls

seen: list[str] = []


def main(arguments: list[str]) -> None:
    """``FD ROLE …``"""
    _ROLES[arguments[1]](int(arguments[0]), arguments[2:])
    os._exit(0)


def _facts(say: int, _rest: list[str]) -> None:
    """What a job finds: descriptors, what jobs before it left, what it may do."""
    status = Path("/proc/self/status").read_text().splitlines()
    capabilities = next(line.split()[1] for line in status if line.startswith("CapPrm"))
    held = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory that was just listed
            held.append(f"{fd}={os.readlink(f'/proc/self/fd/{fd}')}")
    os.write(say, "\n".join([capabilities, ",".join(seen), *held]).encode())
    seen.append("a job was here")


def _echo(_say: int, _rest: list[str]) -> None:
    while piece := os.read(0, 1 << 16):
        os.write(1, piece)


def _fail(_say: int, _rest: list[str]) -> None:
    raise RuntimeError("this job fails")


def _status(_say: int, rest: list[str]) -> None:
    os._exit(int(rest[0]))


def _sleep(say: int, _rest: list[str]) -> None:
    os.write(say, b"%d" % os.getpid())
    time.sleep(1000)


def _attack(say: int, _rest: list[str]) -> None:
    """Everything that a job that has shut itself in could try on its server; the names of what worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.getppid()
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    memory = ctypes.create_string_buffer(16)
    limits = (ctypes.c_ulong * 2)(10, 10)
    confine.drop_capabilities((confine.CAP_CHOWN, confine.CAP_DAC_OVERRIDE, confine.CAP_FOWNER))
    confine.deny_new_code()
    confine.deny_system_calls()
    tries: dict[str, Callable[[], int]] = {
        "signal": lambda: libc.kill(server, 0),
        "ptrace": lambda: libc.ptrace(16, server, 0, 0),
        "its memory": lambda: os.open(f"/proc/{server}/mem", os.O_RDWR),
        "its descriptors": lambda: len(os.readlink(f"/proc/{server}/fd/0")),
        "its root": lambda: len(os.listdir(f"/proc/{server}/root/")),
        "limits": lambda: libc.prlimit(server, 7, limits, None),
        "priority": lambda: libc.setpriority(0, server, 19),
        "affinity": lambda: libc.sched_setaffinity(server, 8, b"\1" + bytes(7)),
        "process group": lambda: libc.setpgid(server, 0),
        "reading": lambda: libc.process_vm_readv(server, memory, 1, memory, 1, 0),
        "pidfd": lambda: libc.syscall(434, server, 0),
        "advice": lambda: libc.syscall(440, 0, 0, 0, 0, 0),
    }
    worked = []
    for name, attempt in tries.items():
        try:
            if attempt() >= 0:
                worked.append(name)
        except OSError:
            continue
    os.write(say, ",".join(worked).encode() or b"nothing")


def _shared(say: int, _rest: list[str]) -> None:
    from wherry.linux.forkserver_main import shared_memory

    os.write(say, "\n".join(shared_memory()).encode() or b"nothing")


def _deaf(say: int, _rest: list[str]) -> None:
    """It ends with its server, whatever it does about signals."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _sleep(say, [])


_ROLES: dict[str, Callable[[int, list[str]], None]] = {
    name.removeprefix("_"): role
    for name, role in list(vars(sys.modules[__name__]).items())
    if name in ("_facts", "_echo", "_fail", "_status", "_sleep", "_attack", "_shared", "_deaf")
}
