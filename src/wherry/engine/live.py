"""State that exists only while the daemon runs: locks, running tasks, waiters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from wherry.model.container import Health
    from wherry.storage.confined.containerfiles import Job


_SOON = 0.1
"""Seconds between the end of a task and the closing of its layer's file system."""


class Waiting(Protocol):
    """A session that came before a start and wants everything the container prints, from the first byte."""

    def connect(self, bundle: Path) -> None:
        """Called once the task's attach socket is there, before anything prints."""

    def abandon(self) -> None:
        """The container will not be started: the session ends."""


@dataclass
class Task:
    """A running process tree. Its descriptors stay open as long as this object is in use."""

    directory: Path
    pid: int
    conmon_pid: int
    process_fd: int
    conmon_fd: int

    @contextmanager
    def process(self) -> Iterator[int]:
        """A duplicated descriptor for the first process; it stays valid after this object is closed."""
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


class _PuttingAway:
    def __init__(self, close: Callable[[], Future[None]]) -> None:
        self._close = close
        self._work: Future[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_SOON, self.begin)

    def begin(self) -> Future[None]:
        if self._work is None:
            self._timer.cancel()
            self._work = self._close()
        return self._work


@dataclass(frozen=True)
class Exit:
    """How a wait ended. ``error`` is set when the container could not be started at all."""

    code: int
    error: str = ""


class Live:
    """The in-memory state of one container. All of it belongs to the loop's thread.

    :ivar lock: held while the container starts, is cleaned up after its exit, is renamed or removed.
    :ivar stopping: the coming exit was asked for, so no restart policy applies.
    :ivar coming_back: the exit is part of a restart, so a container with ``--rm`` is not removed.
    :ivar restart_after: seconds between the coming exit and the next start, whatever the restart policy says;
        ``None``: the policy decides.
    :ivar health: results of the health checks in this run; ``None`` without checks, and while it does not
    run.
    :ivar frozen: the container is frozen as long as ``lock`` is held; signals wait until it is thawed.
    :ivar files: held while somebody writes to the container's files from outside, and while a start mounts
    them.
    :ivar exec_ids: execs that can be inspected. :ivar open_execs: those of them that have not ended.
    :ivar pending: attach sessions that came before the start; they are connected before anything is printed.
    """

    def __init__(self, container_id: str) -> None:
        self.id = container_id
        self.lock = asyncio.Lock()
        self.files = asyncio.Lock()
        self._file_jobs: set[Job] = set()
        self._no_file_jobs = asyncio.Event()
        self.task: Task | None = None
        self.stopping = False
        self.removing = False
        self.coming_back = False
        self.frozen = False
        self.restart_after: float | None = None
        self.health: Health | None = None
        self.restart: asyncio.Task[None] | None = None
        self.pending: list[Waiting] = []
        self.exec_ids: list[str] = []
        self.open_execs: dict[str, None] = {}
        self._exit_waiters: list[asyncio.Future[Exit]] = []
        self._removal_waiters: list[asyncio.Future[Exit]] = []
        self._on_exit: list[Callable[[], None]] = []
        self.last_exit = Exit(0)
        self._putting_away: _PuttingAway | None = None

    def put_away(self, close: Callable[[], Future[None]]) -> None:
        """``close`` begins to close the layer's file system of the task that has ended.

        The kernel then writes to the disk, and a removal that follows the end would wait for it. So it begins
        a little later, unless a start is to follow.
        """
        self._putting_away = _PuttingAway(close)
        if self.coming_back:
            self._putting_away.begin()

    async def until_put_away(self) -> None:
        """Whoever mounts the layer waits for that, and has it begin."""
        while (work := self._putting_away) is not None:
            await asyncio.gather(asyncio.wrap_future(work.begin()), return_exceptions=True)
            if self._putting_away is work:
                self._putting_away = None

    @contextmanager
    def file_job(self, job: Job) -> Iterator[None]:
        """Enter while reading or writing the container's files from outside; this also uses its volumes."""
        self._file_jobs.add(job)
        try:
            yield
        finally:
            self._file_jobs.discard(job)
            if not self._file_jobs:
                self._no_file_jobs.set()

    def end_file_jobs(self) -> None:
        """Cancel all reads and writes of the container's files from outside."""
        for job in self._file_jobs:
            job.end()

    async def until_no_file_jobs(self) -> None:
        """Cancel them, and wait until they have released everything."""
        while self._file_jobs:
            self.end_file_jobs()
            self._no_file_jobs.clear()
            await self._no_file_jobs.wait()

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
        # A waiter that is cancelled is removed at once: the exit may never come.
        future.add_done_callback(lambda done: waiters.remove(done) if done in waiters else None)
        return future

    def on_exit(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back at the end of the current task. The returned function cancels this."""
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
        """The container is gone. The caller of a failed start has received the error already."""
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
