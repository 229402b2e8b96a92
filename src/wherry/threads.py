"""Blocking work, off the event loop: the one way to run it, and the classes of threads it runs on.

A class is a bound on how much of one kind of work is under way at once, so that no kind takes the threads
of another. What is more waits in line, as a task that can be cancelled. Choose by what the work *waits for*:

    short     16   the database, small files, system calls: a few milliseconds, whatever users keep
    disk       4   as much data as users have: walks, hashes, copies, compression; waits for the disk alone
    unpack    CPU  confined children that unpack layers
    child      8   other programs at work on files: steps of builds, git, mmdebstrap
    runtime   16   containers and execs come and go: conmon, the runtime, mounts, networks, plugins
    probe      2   health checks are started: few, as many fall due at once
    waits    256   a client or a registry, at its pace: archives in and out, layers on their way
    pump     256   moves bytes for a job of ``waits`` that another program makes or takes meanwhile
    names      4   the name servers, for asyncio
    warmup     1   the kernel, for something that will be asked for later

A job may start work of a class that stands in its own class's ``below``, and wait for it; of no other, above
all not of its own: all threads could be waiting for what waits for a thread. :meth:`Pool.submit` refuses it.

Threads end when they had nothing to do for a while. ``docs/threads.md`` has the map, and every lock.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
_Job = tuple["Future[T]", Callable[[], T]]
_IDLE = 5.0
"""Seconds without work after which a thread ends."""

_here = threading.local()


class Pool:
    """A class of threads. Calling it from a coroutine runs work on one of them."""

    def __init__(self, name: str, limit: int, below: Sequence[Pool] = ()) -> None:
        """:param below: classes whose work a job of this class may wait for."""
        self.name, self.limit = name, limit
        self._below = frozenset(below)
        lock = threading.Lock()
        self._changed, self._quiet = threading.Condition(lock), threading.Condition(lock)
        self._waiting: deque[_Job[object]] = deque()
        self._threads = 0
        self._idle = 0

    async def __call__(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run ``work`` with the caller's context variables.

        A caller that is cancelled leaves at once; work that has begun goes on without it, work that still
        waits for a thread is never begun.
        """
        return await asyncio.wrap_future(self._in_context(work, *arguments, **keywords))

    async def to_end(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        """The same, but a caller that is cancelled goes on only when the work has ended: what it works on
        is nobody else's until then."""
        return await _to_end(self._in_context(work, *arguments, **keywords), lambda: None)

    async def surely(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        """The same, for what must be released: it is done even if the caller is cancelled before."""
        return await asyncio.shield(self(work, *arguments, **keywords))

    async def until(
        self, stop: Callable[[], object], work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """The same, and a caller that is cancelled calls ``stop``, which is to end the work soon."""
        return await _to_end(self._in_context(work, *arguments, **keywords), stop)

    def _in_context(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        context = contextvars.copy_context()
        return self.submit(context.run, functools.partial(work, *arguments, **keywords))

    def submit(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        """Have work done; from any thread.

        :raises RuntimeError: a job of this class, or of one that may not wait for it, asks.
        """
        asking: Pool | None = getattr(_here, "pool", None)
        if asking is not None and self not in asking._below:
            raise RuntimeError(f"a job of the threads {asking.name!r} must not wait for one of {self.name!r}")
        future: Future[T] = Future()
        job = (future, functools.partial(work, *arguments, **keywords))
        with self._changed:
            self._waiting.append(job)  # type: ignore[arg-type]
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._threads < self.limit:
                self._threads += 1
                self._start()
        return future

    def _start(self) -> None:
        try:
            threading.Thread(target=self._serve, name=self.name, daemon=True).start()
        except BaseException:
            self._threads -= 1
            if not self._threads:  # nobody will come for it
                self._waiting.pop()
                raise

    def _serve(self) -> None:
        _here.pool = self
        while (job := self._next()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                _carry_out(future, work)
            del job, future, work  # what a job holds must not live until the next one

    def _next(self) -> _Job[object] | None:
        with self._changed:
            self._idle += 1
            if self._idle == self._threads and not self._waiting:
                self._quiet.notify_all()
            try:
                if not self._waiting:
                    self._changed.wait_for(lambda: bool(self._waiting), _IDLE)
                if self._waiting:
                    return self._waiting.popleft()
                self._threads -= 1
                return None
            finally:
                self._idle -= 1

    def load(self) -> tuple[int, int]:
        """How many threads are at work, and how many jobs wait for one."""
        with self._changed:
            return self._threads - self._idle, len(self._waiting)

    def wait_until_quiet(self, deadline: float) -> bool:
        """Wait until no job is under way or in line; whether that came before ``deadline`` (monotonic)."""
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            return self._quiet.wait_for(lambda: self._idle == self._threads and not self._waiting, left)


def _carry_out(future: Future[object], work: Callable[[], object]) -> None:
    try:
        result = work()
    except BaseException as e:
        future.set_exception(e)
    else:
        future.set_result(result)


_CPUS = os.cpu_count() or 1

warmup = Pool("warmup", 1)
probe = Pool("probe", max(2, _CPUS // 2))
names = Pool("names", 4)
short = Pool("short", 16)
disk = Pool("disk", 4)
unpack = Pool("unpack", max(2, _CPUS))
child = Pool("child", max(8, _CPUS), below=(warmup, disk, unpack))
runtime = Pool("runtime", 16, below=(warmup, disk, unpack))
pump = Pool("pump", 256)
waits = Pool("waits", 256, below=(pump, disk, unpack, warmup))
ALL = (short, disk, unpack, child, runtime, probe, waits, pump, warmup)


async def _to_end(work: Future[T], stop: Callable[[], object]) -> T:
    waiting = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not work.cancel():  # It has begun.
            stop()
        while not waiting.done():
            try:
                await asyncio.wait([waiting])
            except asyncio.CancelledError:
                continue
        if not waiting.cancelled():
            waiting.exception()
        raise


class _Names(ThreadPoolExecutor):
    """What asyncio asks of an executor. It does not wait at the end for a server that does not answer."""

    def submit(self, work: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        return names.submit(work, *arguments, **keywords)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        return None


def install(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio does on threads by itself (it looks up names) gets a few of its own."""
    loop.set_default_executor(_Names(1))


async def drain(timeout: float) -> list[str]:
    """Wait until no job is under way, ``timeout`` seconds at most; the classes that still have some."""
    deadline = time.monotonic() + timeout

    def work() -> list[str]:
        # Twice, as what ends in one class may begin something in one looked at before.
        return [pool.name for pool in ALL + ALL if not pool.wait_until_quiet(deadline)]

    return sorted(set(await asyncio.get_running_loop().run_in_executor(None, work)))


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Wait for both, so that the undo of each is complete; then raise the first failure."""
    one, two = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(two, BaseException):
        raise two
    return one, two
