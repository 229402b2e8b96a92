"""The fork server: see :mod:`wherry.linux.forkserver` for the daemon's side, and the messages.

It must be worth no attack. It reads nothing except the daemon's requests, holds no descriptors except the
daemon's channel and those of jobs that it is just handing on, shares no memory with its jobs (a fork has
copies), cannot be inspected except with CAP_SYS_PTRACE, and has only the capabilities that jobs need to shut
themselves in. It has one thread, because a fork has only the thread that called it.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import NoReturn

from wherry.linux import capabilities, confine, syscalls

_READY, _STARTED, _ENDED = b"R", b"S %d", b"E %d %d"
_REQUEST_MAX = 64 << 10
_RIGHTS_MAX = 16
KEEPS = (
    confine.CAP_CHOWN,
    confine.CAP_DAC_OVERRIDE,
    confine.CAP_DAC_READ_SEARCH,
    confine.CAP_FOWNER,
    confine.CAP_FSETID,
    confine.CAP_SETPCAP,
    confine.CAP_SYS_CHROOT,
    confine.CAP_SYS_PTRACE,
    confine.CAP_SYS_ADMIN,
    confine.CAP_SYS_RESOURCE,
    confine.CAP_MKNOD,
    confine.CAP_SETFCAP,
)
"""What jobs need before they have shut themselves in: mounts and namespaces, to enter those of a container
(SYS_PTRACE, SYS_CHROOT), to give up rights for good (SETPCAP), and what they keep."""


def main(arguments: list[str]) -> NoReturn:
    """``CHANNEL DAEMON-PID MODULE,…``"""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if os.getppid() != int(arguments[1]):
        os._exit(1)  # the daemon ended before the line above
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in arguments[2].split(","):
        importlib.import_module(module)
    host = capabilities.available()
    confine.drop_capabilities(one for one in KEEPS if capabilities.ALL[one] in host)
    if shared := shared_memory():
        # Memory that stays shared after a fork would let a job change its server.
        sys.exit(f"the fork server shares memory with its jobs: {shared[0]}")
    gc.collect()
    gc.freeze()  # the collector of a job would copy every page by marking what is on it
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    _Server(channel).run()


def shared_memory() -> list[str]:
    """The mappings of this process that a fork would share and could write to (proc_pid_maps(5))."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        rights = line.split()[1]
        if rights[3] == "s" and rights[1] == "w":
            found.append(line.strip())
    return found


class _Server:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._jobs: dict[int, tuple[int, int]] = {}
        """The number and the process id of each job that runs, by its pidfd."""

    def run(self) -> NoReturn:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        os.dup2(1, 2)  # from now on it has nothing to say
        self._channel.send(_READY)
        while True:
            for fd, _ in poll.poll():
                if fd in self._jobs:
                    poll.unregister(fd)
                    self._end(fd)
                elif (pidfd := self._take()) is not None:
                    poll.register(pidfd, select.POLLIN)

    def _end(self, pidfd: int) -> None:
        number, pid = self._jobs.pop(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._channel.send(_ENDED % (number, status))

    def _take(self) -> int | None:
        """One request; the pidfd of its job, or ``None`` if that could not be started."""
        message, rights, _, _ = socket.recv_fds(
            self._channel, _REQUEST_MAX, _RIGHTS_MAX, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            os._exit(0)  # the daemon wants no more; jobs that still run end by their death signal
        number, module, arguments, places = loads(message)
        server = os.getpid()
        try:
            pid = os.fork()
            if not pid:
                _job(server, module, arguments, rights, places)
        except OSError:  # no memory, or too many processes
            self._channel.send(_ENDED % (number, 1))
            return None
        finally:
            for fd in rights:
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._jobs[pidfd] = number, pid
        socket.send_fds(self._channel, [_STARTED % number], [pidfd])
        return pidfd


def _job(
    server: int, module: str, arguments: list[str], rights: Sequence[int], places: Sequence[int]
) -> NoReturn:
    """In the fork: become what a new process for this job would be, and run it."""
    try:
        place_descriptors(rights, places)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            syscalls.set_name(arguments[1])
            importlib.import_module(module).main(arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)  # a job that did its work has ended by itself
    raise AssertionError


def place_descriptors(held: Sequence[int], places: Sequence[int]) -> None:
    """Give descriptors the numbers that they are expected at, and close all others."""
    above = max((*places, *held)) + 1
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in held]
    for fd, place in zip(safe, places, strict=True):
        os.dup2(fd, place)
    low = 0
    for place in sorted(places):
        if low < place:  # an empty range from 0 would be taken for all there is
            os.closerange(low, place)
        low = place + 1
    os.closerange(low, (1 << 31) - 1)
