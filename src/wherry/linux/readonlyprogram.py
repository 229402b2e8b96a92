"""A program on a read-only mount of its own, for those that would else make themselves one at every start.

An OCI runtime enters containers, whose processes can open its file by ``/proc/<pid>/exe`` and could write
to it (CVE-2019-5736). So crun and runc 1.1 execute themselves a second time, from a bind mount that is
read-only and no longer mounted anywhere: two mounts, an unmount and a second start, at every call. They
leave it out when they find themselves on a read-only mount already, and their variable says that somebody
meant it.

One such mount serves all calls. It is made in a mount namespace that ends at once, so it is nowhere to be
seen, belongs to no namespace, and so nobody can change its flags any more: opening the file through it for
writing is refused (EROFS). A sealed copy in memory would be recognised as well, but can be opened for
writing by root, and while somebody has it open so, nobody can execute it (ETXTBSY): one container could
keep all others from starting.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from wherry.linux import syscalls
from wherry.linux.netns import on_thread

_VARIABLE = "_LIBCONTAINER_CLONED_BINARY"
"""By it the program's second start knows itself; a program that has this name in its bytes knows of all
this.
"""
_CHUNK = 1 << 20


class ReadOnlyProgram:
    """The program at ``path`` and, where that spares work, its read-only mount. Safe to use from any
    thread.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd = -1
        self._of: tuple[int, ...] = ()
        with self._lock:
            self._renew()

    def runnable(self) -> str:
        """What to execute, with :meth:`environment`: a path that is valid while this process lives, else the
        program's own. A program that was replaced on the disk is looked at again.
        """
        with self._lock:
            self._renew()
            path = f"/proc/{os.getpid()}/fd/{self._fd}"
            try:
                # /proc may be that of another pid namespace, where the number is another process's.
                if self._fd >= 0 and os.path.samestat(os.stat(path), os.fstat(self._fd)):
                    return path
            except OSError:
                pass
            return self._path

    def environment(self) -> Mapping[str, str]:
        """Variables that the program is to have. Without the mount they change nothing: it looks at both."""
        return {_VARIABLE: "1"} if self._fd >= 0 else {}

    def _renew(self) -> None:
        try:
            now = _identity(os.stat(self._path))
        except OSError:
            return  # it is being replaced: the one before is as good
        if now == self._of:
            return
        self._of = now
        try:
            fd = on_thread(lambda: _mounted(self._path)) if _knows(self._path) else -1
        except OSError:
            fd = -1  # this host refuses: then the program does it itself
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        """Release the mount. The program can still be executed."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _knows(path: str) -> bool:
    """Whether the program is one that looks where it lies; a script is not, whatever it says."""
    name, before = _VARIABLE.encode(), b""
    with Path(path).open("rb") as f:
        if f.read(4) != b"\x7fELF":
            return False
        while chunk := f.read(_CHUNK):
            if name in before + chunk:
                return True
            before = chunk[-len(name) :]
    return False


def _mounted(path: str) -> int:
    """A descriptor (O_PATH) of the program on its mount. Runs on a thread that ends, and its namespace with
    it.
    """
    real = os.path.realpath(path)
    syscalls.unshare(syscalls.CLONE_FS)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # Else what is mounted here would appear on the host.
    syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(real, real, "none", syscalls.MS_BIND)
    syscalls.mount("none", real, "none", syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY)
    fd = os.open(real, os.O_PATH | os.O_CLOEXEC)
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return fd
    os.close(fd)
    raise OSError(f"{real} is not read-only on its mount")
