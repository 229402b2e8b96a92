"""Parts of a child's work done by forks of it, one for each further processor.

A fork has what the child has: the same root, descriptors and rights, and no more. Nothing but how it ended
comes back from it. It ends with the child: whoever reads the child's result to its end waits for both, as
both hold the pipe.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Sequence

from wherry.linux import syscalls

_NUMBER = struct.Struct("=i")


class Helpers:
    """Of one job; used by its only thread."""

    def __init__(self, most: int | None = None) -> None:
        """:param most: how many may run at once; else one for each processor besides the job's own."""
        self._most = len(os.sched_getaffinity(0)) - 1 if most is None else most
        self._running: dict[int, tuple[int, Callable[[Sequence[int]], None]]] = {}

    def give(self, work: Callable[[], Sequence[int]], then: Callable[[Sequence[int]], None]) -> bool:
        """Have work done in a fork; ``False`` if all that may run do so already.

        :param work: returns numbers, some thousand at most. :param then: called with them, here.
        :raises OSError: what an earlier piece of work has raised.
        """
        self._reap(os.WNOHANG)
        if len(self._running) >= self._most:
            return False
        reading, writing = os.pipe2(os.O_CLOEXEC)
        above = os.getpid()
        try:
            pid = os.fork()
            if not pid:
                _run(work, writing, above)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._running[pid] = reading, then
        return True

    def wait(self) -> None:
        """Until all have ended. :raises OSError: what one of them has raised."""
        while self._running:
            self._reap(0)

    def abandon(self) -> None:
        """The same, after an error: what becomes of them no longer matters."""
        for reading, _ in self._running.values():
            os.close(reading)
        for pid in self._running:
            os.waitpid(pid, 0)
        self._running.clear()

    def _reap(self, options: int) -> None:
        for pid in list(self._running):
            if not os.waitpid(pid, options)[0]:
                continue
            reading, then = self._running.pop(pid)
            with os.fdopen(reading, "rb") as pipe:
                said = pipe.read()
            if not said:
                raise OSError(0, "a part of it ended early")
            number, text = _NUMBER.unpack_from(said)[0], said[_NUMBER.size :]
            if number >= 0:
                raise OSError(number, text.decode("utf-8", "replace"))
            then([one for (one,) in _NUMBER.iter_unpack(text)])


def _run(work: Callable[[], Sequence[int]], writing: int, above: int) -> None:
    """In the fork."""
    said = b""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == above:
            said = b"".join(map(_NUMBER.pack, (-1, *work())))
    except OSError as e:
        said = _NUMBER.pack(e.errno or 0) + (e.strerror or str(e)).encode("utf-8", "replace")
    except BaseException as e:
        said = _NUMBER.pack(0) + f"{e.__class__.__name__}: {e}".encode("utf-8", "replace")
    finally:
        try:
            os.write(writing, said[:_MOST])
        finally:
            os._exit(0)


_MOST = 32 << 10
"""Less than a pipe holds: it is read when the fork has ended."""
