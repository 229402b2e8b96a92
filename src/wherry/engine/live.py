"""What lives only while the daemon does: locks, running tasks, and who waits for what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wherry.engine.attach import AttachSession
    from wherry.model.container import Health
    from wherry.storage.containerfiles import Job


@dataclass
class Task:
    """A running process tree: its descriptors are open as long as this object is in use."""

    directory: Path
    pid: int
    conmon_pid: int
    process_fd: int
    conmon_fd: int

    @contextmanager
    def process(self) -> Iterator[int]:
        """A descriptor of its own for the first process, which outlives this object's."""
        fd = os.dup(self.process_fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        for fd in (self.process_fd, self.conmon_fd):
            if fd >= 0:
                os.close(fd)
        self.process_fd = self.conmon_fd = -1


@dataclass(frozen=True)
class Exit:
    """How a wait ended. ``error`` is set when the container could not be started at all."""

    code: int
    error: str = ""


class Live:
    """One container's living half. All of it belongs to the loop's thread.

    :ivar lock: held while the container starts, is cleaned up after its exit, is renamed or removed.
    :ivar stopping: the coming exit was asked for, so no restart policy applies.
    :ivar coming_back: the exit is part of a restart, so a container that removes itself stays.
    :ivar restart_after: seconds between the coming exit and the start that follows it, whatever the restart
        policy says; ``None`` leaves it to the policy.
    :ivar health: what its checks found in this run; ``None`` without checks, and while it does not run.
    :ivar frozen: held still for as long as ``lock`` is held; signals wait for its end.
    :ivar files: held by whoever writes to the container's files from outside, and while a start mounts them.
    :ivar file_jobs: those writers; a removal ends them.
    :ivar pending: attach sessions that came before the start; they are connected before anything prints.
    """

    def __init__(self, container_id: str) -> None:
        self.id = container_id
        self.lock = asyncio.Lock()
        self.files = asyncio.Lock()
        self.file_jobs: set[Job] = set()
        self.task: Task | None = None
        self.stopping = False
        self.removing = False
        self.coming_back = False
        self.frozen = False
        self.restart_after: float | None = None
        self.health: Health | None = None
        self.restart: asyncio.Task[None] | None = None
        self.pending: list[AttachSession] = []
        self.exec_ids: list[str] = []
        self._exit_waiters: list[asyncio.Future[Exit]] = []
        self._removal_waiters: list[asyncio.Future[Exit]] = []
        self._on_exit: list[Callable[[], None]] = []
        self.last_exit = Exit(0)

    def end_file_jobs(self) -> None:
        """Break off whoever writes to the container's files from outside."""
        for job in self.file_jobs:
            job.end()

    def next_exit(self) -> asyncio.Future[Exit]:
        """Resolves at the next exit (or failed start)."""
        return self._add(self._exit_waiters)

    def removal(self) -> asyncio.Future[Exit]:
        """Resolves when the container has been removed, with its last exit."""
        return self._add(self._removal_waiters)

    @staticmethod
    def _add(waiters: list[asyncio.Future[Exit]]) -> asyncio.Future[Exit]:
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        waiters.append(future)
        # A waiter that leaves is forgotten at once, not at an exit that may never come.
        future.add_done_callback(lambda done: waiters.remove(done) if done in waiters else None)
        return future

    def on_exit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back at the end of the current task; the result takes the callback back."""
        self._on_exit.append(callback)

        def cancel() -> None:
            if callback in self._on_exit:
                self._on_exit.remove(callback)

        return cancel

    def exited(self, how: Exit) -> None:
        self.last_exit = how
        callbacks, self._on_exit = self._on_exit, []
        for callback in callbacks:
            callback()
        _resolve(self._exit_waiters, how)

    def removed(self) -> None:
        """The container is gone. A failed start has told its error to whoever started it."""
        how = Exit(self.last_exit.code)
        _resolve(self._exit_waiters, how)
        _resolve(self._removal_waiters, how)


def _resolve(waiters: list[asyncio.Future[Exit]], how: Exit) -> None:
    for waiter in list(waiters):
        if not waiter.done():
            waiter.set_result(how)
    waiters.clear()


class LiveSet:
    """Every container's :class:`Live`, made on first use."""

    def __init__(self) -> None:
        self._all: dict[str, Live] = {}

    def get(self, container_id: str) -> Live:
        live = self._all.get(container_id)
        if live is None:
            live = self._all[container_id] = Live(container_id)
        return live

    def drop(self, container_id: str) -> None:
        self._all.pop(container_id, None)

    def running(self) -> list[Live]:
        return [live for live in self._all.values() if live.task is not None]
