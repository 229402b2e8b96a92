"""What the confined children of the storage have in common. They start often, so this imports little.

The daemon's side is :mod:`wherry.storage.children`.
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
_MEMORY = 1 << 30
_PIECE = 1 << 20


def begin() -> None:
    """What each of them does first: it ends with the thread that started it, and nobody may look into it.

    A container that shares the host's processes sees the child too. As soon as that has given up its
    capabilities, root in there has all of what is left, which is enough to trace it: to read and write its
    memory, and to reach its root and its descriptors by ``/proc/<pid>``. Not dumpable (ptrace(2)), nobody may
    without CAP_SYS_PTRACE. Until then the child's own capabilities keep such a container out.

    :raises OSError: as prctl(2).
    """
    calls.prctl(calls.PR_SET_PDEATHSIG, 9)
    calls.prctl(calls.PR_SET_DUMPABLE, 0)


def failure(error: BaseException, task: str) -> tuple[bytes, ...]:
    """The fields of a result that say what went wrong.

    :param task: what may not need more memory than a child has.
    """
    if isinstance(error, BadTar):
        return (b"bad", str(error).encode("utf-8", "replace"))
    if isinstance(error, OSError):
        clause = (error.strerror or str(error)).encode("utf-8", "replace")
        return (b"os", str(error.errno or 0).encode(), clause)
    if isinstance(error, MemoryError):
        return (b"bad", f"it needs more memory than one {task} may use".encode())
    # a traceback would read source files, in whatever root this is
    return (b"os", b"0", f"{error.__class__.__name__}: {error}".encode("utf-8", "replace"))


def give_up(keep: tuple[int, ...], *, files: int, mapped: int = 0) -> None:
    """All but the capabilities ``keep``, with bounds. The system calls are denied by who has no threads to
    start any more.

    :param mapped: bytes of a file that is mapped, which are no memory of the child's.
    """
    confine.drop_capabilities(keep)
    confine.limit(
        {resource.RLIMIT_AS: _MEMORY + mapped, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: files}
    )
    confine.deny_new_code()


def standard_input() -> tuple[Callable[[int], bytes], str]:
    """How to read descriptor 0, and which compression it starts with."""
    head = b""
    while len(head) < 6 and (piece := os.read(0, _PIECE)):
        head += piece
    held = [head] if head else []

    def read(size: int) -> bytes:
        return held.pop() if held else os.read(0, max(size, 1 << 16))

    return read, detect(head[:6])
