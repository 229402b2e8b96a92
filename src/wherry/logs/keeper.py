"""Keeps logs within their bounds while containers run, and wakes their readers.

One inotify descriptor serves all logs. A watch reports one change only (IN_ONESHOT): the first line after a
silence wakes the loop. The loop then checks the size again only after the time that even a fast writer needs
to fill the remaining room. So a silent container costs nothing, and a very fast one a few wake-ups per
second. A follower asks for the next change each time it has read everything.

All of it belongs to the loop's thread; what blocks runs on others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from wherry import threads
from wherry.linux import inotify
from wherry.logs.files import LogFiles, Segment
from wherry.logs.options import LocalLogSize

log = logging.getLogger(__name__)

_FASTEST, _SUDDEN = 400 << 20, 100 << 20
"""The assumed growth in bytes per second until the next check: the most that conmon can write, for a log that
grows fast already; less for a slow one, because a check costs time, and fast output rarely starts."""
_GROWS_FAST = 1 << 20
"""Bytes between two checks."""
_SOONEST, _LATEST = 0.02, 0.5
_FILES_MAX = 1000
"""The most files kept for consumers: every check of a log goes through all of its names."""
_PATIENCE = 10.0
"""Seconds after which a conmon that has not opened its file again is reported in the daemon's log."""
_GRACE = 1.0
_NO_ROOM = 5.0
_COMPRESS_AFTER = 10.0
"""Seconds before a rotated file is compressed: files of very fast output are removed earlier."""
_BOUND_LEAST, _BOUND_MOST, _BOUND_SHARE = 128 << 20, 4 << 30, 10
"""Bytes of rotated files that are kept beyond ``max_file`` for one slow follower: a tenth of the free disk
space, within these limits."""
_READERS = 2.0
"""Seconds that an ended log waits for its readers before it is cut to size;
after that it is left as it is."""


class Consumer:
    """A reader of a log that is still being written.

    :ivar needs: the first file that must be kept. :ivar reading: the file it has open.
    :ivar ended: nothing more will be written. :ivar lost: bytes of files that were removed before they were
        read.
    """

    def __init__(self, keeper: Keeper, log_: Log, bound: int) -> None:
        self._keeper, self._log = keeper, log_
        self._changed = asyncio.Event()
        self.bound = bound
        self.needs = self.reading = self.lost = 0
        self.ended = False

    def arm(self) -> None:
        """From now on a change wakes :meth:`changed`. Read once more after this call, then wait."""
        self._changed.clear()
        self._keeper.arm(self._log)
        if self.ended:
            self._changed.set()

    async def changed(self) -> None:
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()

    def set_ended(self, ended: bool) -> None:
        """Whether nothing more will be written; nobody is woken."""
        self.ended = ended

    def advance(self, needs: int, reading: int) -> None:
        """Files before ``needs`` may be removed."""
        moved = needs > self.needs
        self.needs, self.reading = needs, reading
        if moved:
            self._keeper.let_go(self._log)

    def opened(self, number: int) -> None:
        """It has this file open, and needs none before."""
        self.needs = self.reading = number

    def take_lost(self, reading: int) -> int:
        """Bytes lost since the last call; from now on it has file ``reading`` open."""
        self.reading = reading
        lost, self.lost = self.lost, 0
        return lost

    def close(self) -> None:
        self._keeper.forget(self._log, self)


class Log:
    """One container's log, as long as it is written or read."""

    def __init__(self, container_id: str, files: LogFiles) -> None:
        self.id = container_id
        self.files = files
        self.keep = LocalLogSize(max_size=0)
        self.control: Path | None = None
        self.consumers: set[Consumer] = set()
        self.watch = self.directory_watch = -1
        self.timer: asyncio.TimerHandle | None = None
        self.compress_timer: asyncio.TimerHandle | None = None
        self.rotation: asyncio.Task[None] | None = None
        self.reopened = asyncio.Event()
        self.room = 0
        self.grows_fast = False
        self.held = False
        """Whether there are files that are kept only for consumers."""

    def wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()


class Keeper:
    def __init__(self) -> None:
        self._inotify = inotify.Inotify()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify.fd, self._on_events)
        self._logs: dict[str, Log] = {}
        self._watches: dict[int, Log] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._compressing = asyncio.Lock()
        self._fitting: dict[str, asyncio.Task[None]] = {}

    # ---- writing ---------------------------------------------------------------------------------------

    def run(self, container_id: str, path: Path, control: Path, keep: LocalLogSize) -> None:
        """The log is being written by the conmon that reads ``control``."""
        log_ = self._get(container_id, path)
        log_.control, log_.keep = control, keep
        self._check(log_)

    def end(self, container_id: str) -> None:
        """Nothing more will be written."""
        log_ = self._logs.get(container_id)
        if log_ is None:
            return
        log_.control = None
        if log_.rotation is not None:
            log_.rotation.cancel()
        for timer in (log_.timer, log_.compress_timer):
            if timer is not None:
                timer.cancel()
        log_.timer = log_.compress_timer = None
        self._unwatch(log_)
        for consumer in list(log_.consumers):
            consumer.end()
        self._drop_unused(log_)

    async def fit(self, container_id: str, path: Path, keep: LocalLogSize) -> None:
        """Cut an ended log to its exact bounds: a container may print more than a file's worth and end before
        the first check. Must be finished before the next conmon opens it."""
        files = LogFiles(path)
        if not await threads.short(files.is_oversize, keep.max_size):
            return
        deadline = self._loop.time() + _READERS
        while (log_ := self._logs.get(container_id)) is not None and log_.consumers:
            if self._loop.time() > deadline:
                return
            await asyncio.sleep(_SOONEST)
        self._fitting[container_id] = asyncio.create_task(
            threads.disk.to_end(files.fit, keep.max_size, keep.max_file)
        )
        try:
            await self._fitting[container_id]
        finally:
            del self._fitting[container_id]

    async def settled(self, container_id: str) -> None:
        """Wait before reading, until the files are not being cut."""
        fitting = self._fitting.get(container_id)
        if fitting is not None:
            await asyncio.wait([fitting])

    # ---- reading ---------------------------------------------------------------------------------------

    def consume(self, container_id: str, path: Path, *, bound: int | None = None) -> Consumer:
        """Register a reader:
        files that it needs are kept, up to ``bound`` bytes beyond what is kept anyway."""
        log_ = self._get(container_id, path)
        consumer = Consumer(self, log_, _bound(path) if bound is None else bound)
        log_.consumers.add(consumer)
        return consumer

    def forget(self, log_: Log, consumer: Consumer) -> None:
        log_.consumers.discard(consumer)
        self.let_go(log_)
        self._drop_unused(log_)

    def let_go(self, log_: Log) -> None:
        """A reader needs less than before: prune. If a rotation is under way, that will prune."""
        if log_.held and log_.rotation is None:
            log_.held = False
            self._spawn(self._prune(log_))

    def _get(self, container_id: str, path: Path) -> Log:
        log_ = self._logs.get(container_id)
        if log_ is None:
            log_ = self._logs[container_id] = Log(container_id, LogFiles(path))
        return log_

    def _drop_unused(self, log_: Log) -> None:
        if log_.control is None and not log_.consumers:
            self._unwatch(log_)
            self._logs.pop(log_.id, None)

    # ---- watching --------------------------------------------------------------------------------------

    def arm(self, log_: Log) -> None:
        if log_.watch >= 0 or log_.control is None:
            return
        try:
            log_.watch = self._inotify.watch(str(log_.files.path), inotify.IN_MODIFY | inotify.IN_ONESHOT)
        except FileNotFoundError:
            return
        except OSError as e:
            # Without a watch nothing wakes the loop, so check again after a while.
            log.warning("cannot watch the log of container %s: %s", log_.id[:12], e)
            self._later(log_, _LATEST)
            return
        self._watches[log_.watch] = log_

    def _unwatch(self, log_: Log) -> None:
        for watch in (log_.watch, log_.directory_watch):
            if watch >= 0:
                self._watches.pop(watch, None)
                self._inotify.unwatch(watch)
        log_.watch = log_.directory_watch = -1

    def _on_events(self) -> None:
        for event in self._inotify.read():
            log_ = self._watches.pop(event.watch, None)
            if log_ is None:
                continue
            if event.watch == log_.directory_watch:
                log_.directory_watch = -1
                log_.reopened.set()
                continue
            log_.watch = -1
            log_.wake()
            if log_.keep.max_size:
                speed = _FASTEST if log_.grows_fast else _SUDDEN
                self._later(log_, min(max(log_.room / speed, _SOONEST), _LATEST))

    def _later(self, log_: Log, delay: float) -> None:
        if log_.timer is None and log_.rotation is None and log_.control is not None:
            log_.timer = self._loop.call_later(delay, self._check, log_)

    def _check(self, log_: Log) -> None:
        log_.timer = None
        if not log_.keep.max_size or log_.control is None or log_.rotation is not None:
            return
        # Set the watch before the check, so that no growth between the two is missed.
        self.arm(log_)
        status = log_.files.current()
        room = log_.keep.max_size - (status.st_size if status is not None else 0)
        log_.grows_fast = not 0 <= log_.room - room <= _GROWS_FAST
        log_.room = room
        log_.wake()
        if log_.room <= 0:
            log_.rotation = self._spawn(self._rotate(log_, log_.control))

    # ---- rotation --------------------------------------------------------------------------------------

    async def _rotate(self, log_: Log, control: Path) -> None:
        delay = 0.0
        try:
            if await self._begin(log_, control):
                await self._until_reopened(log_)
                await self._prune(log_)
            else:
                delay = _NO_ROOM
        except OSError as e:
            delay = _NO_ROOM
            if e.errno != errno.ENXIO:  # conmon is ending.
                log.warning("cannot rotate the log of container %s: %s", log_.id[:12], e)
        finally:
            log_.rotation = None
        log_.wake()
        if delay:
            self._later(log_, delay)
        else:
            self._check(log_)
            self._compress_later(log_)

    async def _begin(self, log_: Log, control: Path) -> bool:
        """Ask conmon for a new file; False if the disk has no room for that."""
        files = log_.files
        self._await_reopening(log_)
        if await threads.short(files.is_rotating):
            # An earlier daemon has asked, or was about to. Asking twice would lose a file.
            if not files.is_asked(control):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._reopened(log_), _GRACE)
                if files.is_rotating():
                    files.ask(control)
            return True
        while True:
            try:
                await threads.short(files.begin_rotation, control)
            except OSError as e:
                if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                rotated = await threads.short(files.rotated)
                if not [s for s in rotated if s.size]:
                    return False
                log.warning("dropped the oldest log file of container %s: the disk is full", log_.id[:12])
                await threads.short(files.remove, rotated[:1], newest=rotated[-1].number)
            else:
                return True

    def _await_reopening(self, log_: Log) -> None:
        log_.reopened.clear()
        if log_.directory_watch < 0:
            log_.directory_watch = self._inotify.watch(
                str(log_.files.path.parent), inotify.IN_MOVED_TO | inotify.IN_ONESHOT
            )
            self._watches[log_.directory_watch] = log_

    async def _reopened(self, log_: Log) -> None:
        while log_.files.is_rotating():
            await log_.reopened.wait()
            self._await_reopening(log_)

    async def _until_reopened(self, log_: Log) -> None:
        try:
            await asyncio.wait_for(self._reopened(log_), _PATIENCE)
        except TimeoutError:
            log.warning("conmon of container %s does not answer; its log grows meanwhile", log_.id[:12])
            await self._reopened(log_)
        if log_.watch >= 0:  # The watch is on the file that was closed.
            self._watches.pop(log_.watch, None)
            self._inotify.unwatch(log_.watch)
            log_.watch = -1

    async def _prune(self, log_: Log) -> None:
        """Remove surplus files. Never the file being written, which has two names during a rotation."""
        rotated = await threads.short(log_.files.closed)
        allowed = log_.keep.max_file - 1
        doomed = surplus(rotated, allowed, log_.consumers)
        stays = [s for s in rotated if s not in doomed]
        log_.held = len(stays) > allowed and any(s.size for s in stays)
        for segment in doomed:
            for consumer in log_.consumers:
                if segment.number > consumer.reading and consumer.needs <= segment.number:
                    consumer.lost += segment.size
        if doomed:
            await threads.disk(log_.files.remove, doomed, newest=rotated[-1].number)

    # ---- compression -----------------------------------------------------------------------------------

    def _compress_later(self, log_: Log) -> None:
        if log_.keep.compress and log_.compress_timer is None and log_.control is not None:
            log_.compress_timer = self._loop.call_later(_COMPRESS_AFTER, self._start_compressing, log_)

    def _start_compressing(self, log_: Log) -> None:
        log_.compress_timer = None
        self._spawn(self._compress(log_))

    async def _compress(self, log_: Log) -> None:
        """Compress files that were left alone for a while and that no reader has open;
        one at a time per daemon."""
        async with self._compressing:
            left = False
            for segment in await threads.short(log_.files.closed):
                if segment.compressed or not segment.size:
                    continue
                needed = min((c.needs for c in log_.consumers), default=segment.number + 1)
                young = time.time_ns() - segment.changed_ns < _COMPRESS_AFTER * 1e9
                if young or segment.number >= needed:
                    left = True
                    continue
                try:
                    await threads.disk(log_.files.compress, segment)
                except FileNotFoundError:
                    continue
                except OSError as e:
                    log.warning("cannot compress the log of container %s: %s", log_.id[:12], e)
                    return
        if left:
            self._compress_later(log_)

    # ---- end -------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("keeping a log failed", exc_info=task.exception())

    async def close(self) -> None:
        """Stop. Logs are still being written; the next daemon takes them over."""
        for log_ in list(self._logs.values()):
            self.end(log_.id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.remove_reader(self._inotify.fd)
        self._inotify.close()


def _bound(path: Path) -> int:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return _BOUND_LEAST
    return min(max(_BOUND_LEAST, found.f_bavail * found.f_frsize // _BOUND_SHARE), _BOUND_MOST)


def surplus(rotated: list[Segment], allowed: int, consumers: Iterable[Consumer]) -> list[Segment]:
    """The rotated files to remove:
    beyond the newest ``allowed``, and needed by no consumer within its bound."""
    extra = rotated[: max(0, len(rotated) - allowed)]
    too_many = len(extra) - _FILES_MAX
    doomed = []
    bytes_from = sum(s.size for s in extra)
    for place, segment in enumerate(extra):
        fits = place >= too_many
        held = fits and any(c.needs <= segment.number and bytes_from <= c.bound for c in consumers)
        bytes_from -= segment.size
        if not held:
            doomed.append(segment)
    return doomed
