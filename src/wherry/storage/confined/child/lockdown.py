"""What the confined children of the storage share. They are started often, so this imports little.

The daemon's side is :mod:`wherry.storage.confined.children`.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from wherry.linux import confine
from wherry.linux import syscalls as calls
from wherry.model.tarformat import BadTar
from wherry.storage.streams import detect

READS = (confine.CAP_DAC_READ_SEARCH,)
WRITES = (
    confine.CAP_CHOWN,
    confine.CAP_DAC_OVERRIDE,
    confine.CAP_FOWNER,
    confine.CAP_FSETID,
    confine.CAP_MKNOD,
    confine.CAP_SETFCAP,
)
FINDS = (*READS, confine.CAP_SYS_ADMIN)
"""``trusted.overlay.opaque`` is visible only with CAP_SYS_ADMIN."""
_MEMORY = 1 << 30
_PIECE = 1 << 20


def begin() -> None:
    """The first thing each child does: it will end with the thread that started it, and nobody may inspect
    it.

    A container that shares the host's process namespace sees the child too. Once the child has given up its
    capabilities, root in that container has all capabilities that the child still has. That is enough to
    trace the child: to read and write its memory, and to reach its root and its descriptors by
    ``/proc/<pid>``. If it is not dumpable (ptrace(2)), only a process with CAP_SYS_PTRACE may do so. Before
    that, the child's own capabilities keep such a container out.

    :raises OSError: as prctl(2).
    """
    calls.prctl(calls.PR_SET_PDEATHSIG, 9)
    calls.prctl(calls.PR_SET_DUMPABLE, 0)


def failure(error: BaseException, task: str) -> tuple[bytes, ...]:
    """The fields of a result that describe an error.

    :param task: the work that did not fit into the child's memory limit.
    """
    if isinstance(error, BadTar):
        return (b"bad", str(error).encode("utf-8", "replace"))
    if isinstance(error, OSError):
        clause = (error.strerror or str(error)).encode("utf-8", "replace")
        return (b"os", str(error.errno or 0).encode(), clause)
    if isinstance(error, MemoryError):
        return (b"bad", f"it needs more memory than one {task} may use".encode())
    # a traceback would read source files, but the root may be a hostile one
    return (b"os", b"0", f"{error.__class__.__name__}: {error}".encode("utf-8", "replace"))


def give_up(keep: tuple[int, ...], *, files: int, mapped: int = 0) -> None:
    """Give up all capabilities except ``keep``, and set limits. The caller installs the system call filter
    when it will start no more threads.

    :param mapped: bytes of a mapped file, which do not count as the child's memory.
    """
    confine.drop_capabilities(keep)
    confine.limit(
        {resource.RLIMIT_AS: _MEMORY + mapped, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: files}
    )
    confine.deny_new_code()


def standard_input() -> tuple[Callable[[int], bytes], str]:
    """A function that reads descriptor 0, and the compression that the data starts with."""
    head = b""
    while len(head) < 6 and (piece := os.read(0, _PIECE)):
        head += piece
    held = [head] if head else []

    def read(size: int) -> bytes:
        return held.pop() if held else os.read(0, max(size, 1 << 16))

    return read, detect(head[:6])
