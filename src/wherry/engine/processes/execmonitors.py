"""Monitors of execs that were created and not started yet.

A client that creates an exec starts it next, a millisecond later. Its monitor (conmon) takes three to begin.
So it is begun at the creation and waits; the start takes it, or makes one as if there had been none. What is
not taken soon is ended. A waiting monitor can run nothing: the description of the process (``process.json``)
is written by the start. If the daemon is killed, its monitors find their pipes closed, try to run what is not
described, and end; the next daemon removes their directories (``ExecService.adopt``).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from wherry import threads
from wherry.errors import WherryError
from wherry.linux import files
from wherry.linux.descriptors import readable
from wherry.mishaps import contained
from wherry.runtime import task as tasks
from wherry.runtime.monitor import PendingExec

_MOST = 8
"""Monitors that wait at once; a client may create any number of execs."""
_PATIENCE = 2.0
"""Seconds that one waits."""
_DEATH = 5.0
"""Seconds that a killed one has to end."""


@dataclass
class _Waiting:
    work: Future[PendingExec]
    timer: asyncio.TimerHandle


class Monitors:
    """Use it from the loop's thread only."""

    def __init__(self, *, most: int = _MOST, patience: float = _PATIENCE) -> None:
        self._most, self._patience = most, patience
        self._waiting: dict[str, _Waiting] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def expect(self, exec_id: str, begin: Callable[[], PendingExec]) -> None:
        """Run ``begin`` on a thread, if not too many wait already."""
        if len(self._waiting) >= self._most:
            return
        timer = asyncio.get_running_loop().call_later(self._patience, self.drop, exec_id)
        self._waiting[exec_id] = _Waiting(threads.runtime.submit(begin), timer)

    async def take(self, exec_id: str) -> PendingExec | None:
        """The exec's monitor, which is the caller's now; ``None`` if there is none, or it could not begin."""
        waiting = self._waiting.pop(exec_id, None)
        if waiting is None:
            return None
        waiting.timer.cancel()
        try:
            return await asyncio.shield(asyncio.wrap_future(waiting.work))
        except asyncio.CancelledError:
            self._end_soon(waiting.work)
            raise
        except (WherryError, OSError):
            return None  # the start tries again, and has the words

    def drop(self, exec_id: str) -> None:
        """End the exec's monitor, if it has one that waits."""
        waiting = self._waiting.pop(exec_id, None)
        if waiting is not None:
            waiting.timer.cancel()
            if not waiting.work.cancel():
                self._end_soon(waiting.work)

    def _end_soon(self, work: Future[PendingExec]) -> None:
        task = asyncio.create_task(self._end(work))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, work: Future[PendingExec]) -> None:
        try:
            pending = await asyncio.wrap_future(work)
        except (WherryError, OSError):
            return
        await threads.runtime(end, pending)

    def close(self) -> None:
        """The daemon ends: end all that wait. Blocks for as long as a process needs to be killed."""
        for exec_id in list(self._waiting):
            waiting = self._waiting.pop(exec_id)
            waiting.timer.cancel()
            if waiting.work.cancel():
                continue
            with contained(f"end the monitor of exec {exec_id[:12]}"):
                end(waiting.work.result(_DEATH))


def end(pending: PendingExec) -> None:
    """Kill the monitor and remove its directory."""
    with contained(f"end the monitor of exec {pending.directory.name[:12]}"):
        try:
            _kill(pending)
        finally:
            pending.close()
            files.remove_tree(pending.directory)


def _kill(pending: PendingExec) -> None:
    """Before its pipes are closed: else it would go on."""
    try:
        pid = int((pending.directory / "conmon.pid").read_text())
    except (FileNotFoundError, ValueError):
        return  # its container has ended, and the directory with it: it finds nothing to run
    fd = tasks.conmon_fd(pending.directory, pid)
    if fd is not None:
        try:
            tasks.send_signal(fd, signal.SIGKILL)
            readable(fd, _DEATH)
        finally:
            os.close(fd)
