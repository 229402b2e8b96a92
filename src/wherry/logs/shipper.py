"""Delivers one container's log: reads the local copy from the last position, delivers it, and stores the new
position.

The position is stored in ``log.cursor`` beside the log, together with the sink's state that prevents double
delivery. It is written at most once a second and at every end. So after a kill at most a second's lines are
delivered again (with json-file none, because it sees what it has written).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from wherry import threads
from wherry.linux import files as whole_files
from wherry.logs.beginnings import Streams, unfinished
from wherry.logs.drivers.base import Retry, Sink
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Consumer
from wherry.logs.messages import LogMessage, MessageAssembler, Resume
from wherry.logs.options import Backlog
from wherry.logs.reader import Position, Reader
from wherry.logs.records import Selection
from wherry.model import typed

log = logging.getLogger(__name__)

_SAVE_EVERY = 1.0
_GATHER = 0.03
"""Seconds to collect lines after a silence, so that lines are not sent one by one."""
_REPORT_EVERY = 10.0
_SLOW = 1.0


class Cursor(msgspec.Struct, frozen=True):
    """``log.cursor``."""

    number: int = 1
    offset: int = 0
    skip: int = 0
    sink: dict[str, int] = {}


def load_cursor(path: Path) -> Cursor:
    """If it is missing or damaged, start at the beginning: delivering twice is better than never."""
    try:
        return typed.from_json(path.read_bytes(), Cursor)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return Cursor()


class Shipper:
    """``report`` is called with the number of dropped bytes, at most every ten seconds."""

    def __init__(
        self,
        name: str,
        *,
        files: LogFiles,
        consumer: Consumer,
        sink: Sink,
        backlog: Backlog,
        retry: Retry,
        cursor: Path,
        report: Callable[[int], None],
    ) -> None:
        self._name = name
        self._files = files
        self.consumer = consumer
        self._sink = sink
        self._backlog = backlog
        self._retry = retry
        self._cursor_path = cursor
        self._report = report
        self._cursor = self._saved = load_cursor(cursor)
        self._saved_at = self._reported_at = -_REPORT_EVERY
        self._lost = 0
        self.over = False
        """Whether it accepts nothing more; it may still be closing its sink."""
        self.healthy = True
        """Whether the last delivery was successful, and quick."""
        sink.resume(self._cursor.sink)
        self._begin(Position(self._cursor.number, self._cursor.offset), self._cursor.skip)
        consumer.opened(self._cursor.number)

    def _begin(self, at: Position, skip: int = 0, torn: Streams = frozenset()) -> None:
        self._reader = Reader(self._files, Selection(), at=at, places=True, torn=torn)
        self._assembler = MessageAssembler(skip)

    async def run(self) -> None:
        """Run until the container has ended and everything is delivered. If cancelled, the position is
        stored, and the next shipper continues from there."""
        try:
            while True:
                ended = self.consumer.ended
                messages, progressed = await threads.short(self._collect)
                self._account()
                if not progressed:
                    if ended:
                        await self._deliver(self._assembler.flush())
                        if self.consumer.ended:
                            return
                        continue
                    if await self._idle():
                        continue
                await self._deliver(messages)
        finally:
            self.over = True
            self._reader.close()
            self._save()
            self._report_lost(at_once=True)
            self.consumer.close()
            await self._sink.close()

    def _collect(self) -> tuple[list[LogMessage], bool]:
        records = self._reader.read()
        places = self._reader.places or []
        # The unread part contained the rests of lines that had begun.
        begun = self._assembler.flush() if self._reader.skipped else []
        return begun + self._assembler.feed(list(zip(places, records, strict=False))), bool(records)

    async def _idle(self) -> bool:
        """Wait for more; a change between setting the watch and waiting is not missed."""
        self._save_if_due()
        self.consumer.arm()
        # The next read finds what was written before the watch was set.
        messages, progressed = await threads.short(self._collect)
        if progressed:
            await self._deliver(messages)
            return True
        if self._cursor != self._saved:
            try:
                async with asyncio.timeout(_SAVE_EVERY):
                    await self.consumer.changed()
            except TimeoutError:
                self._save()
        await self.consumer.changed()
        await asyncio.sleep(_GATHER)
        return True

    # ---- delivery --------------------------------------------------------------------------------------

    async def _deliver(self, messages: list[LogMessage]) -> None:
        """Repeat until it is delivered or dropped."""
        if messages:
            await self._until_taken(messages)
        place = self._assembler.resume(self._reader.position)
        self._advance(place)
        self._save_if_due()

    async def _until_taken(self, messages: list[LogMessage]) -> None:
        delay, tries = self._retry.first, 0
        while True:
            began = time.monotonic()
            try:
                await self._sink.deliver(messages)
            except (OSError, EOFError) as e:
                tries += 1
                if self.healthy:
                    log.warning("cannot deliver %s, trying again: %s", self._name, e or type(e).__name__)
                self.healthy = False
            else:
                if not self.healthy and tries:
                    log.info("%s is delivered again", self._name)
                self.healthy = time.monotonic() - began < _SLOW
                if not self.healthy:
                    await self._cut_backlog()
                return
            if self._retry.limit is not None and tries > self._retry.limit:
                self._lost += sum(len(m.line) for m in messages)
                self._report_lost()
                return
            await self._cut_backlog()
            self._account()
            self._save_if_due()
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._retry.longest)

    async def _cut_backlog(self) -> None:
        """In non-blocking mode, drop what waits beyond the bound."""
        if self._backlog.blocking:
            return
        at = self._reader.position
        try:
            target, lost, torn = await threads.short(cut, self._files, at, self._backlog.bound)
        except FileNotFoundError:
            return  # It was rotated away meanwhile; that is counted there.
        if lost:
            self._lost += lost
            self._reader.close()
            self._begin(target, torn=torn)
            self.consumer.advance(target.number, target.number)

    def _account(self) -> None:
        self._lost += self.consumer.take_lost(self._reader.position.number)
        self._report_lost()

    def _report_lost(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._lost and (at_once or now - self._reported_at >= _REPORT_EVERY):
            lost, self._lost, self._reported_at = self._lost, 0, now
            self._report(lost)

    # ---- the position ----------------------------------------------------------------------------------

    def _advance(self, place: Resume) -> None:
        self._cursor = Cursor(place.position.number, place.position.offset, place.skip, self._sink.state())

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        if self._cursor == self._saved:
            return
        self._saved_at = time.monotonic()
        try:
            data = msgspec.json.encode(self._cursor)
            whole_files.write_atomic(self._cursor_path, data, durable=False)
        except OSError as e:
            log.debug("cannot note the delivery of %s: %s", self._name, e)
            return
        self._saved = self._cursor
        # A file may be removed only when it is certain that the next daemon will not need it.
        self.consumer.advance(self._cursor.number, self.consumer.reading)


def cut(files: LogFiles, at: Position, bound: int) -> tuple[Position, int, Streams]:
    """The first whole record after which at most ``bound`` bytes follow; the number of bytes between ``at``
    and it; and the streams whose line continues there.
    If no more than ``bound`` bytes follow ``at``: the same place, and 0."""
    later = [s for s in files.all() if s.number >= at.number and not s.compressed]
    left = bound
    for segment in reversed(later):
        first = at.offset if segment.number == at.number else 0
        if segment.size - first <= left:
            left -= segment.size - first
            continue
        with segment.path.open("rb") as file:
            file.seek(segment.size - left - 1)
            file.readline()
            target = Position(segment.number, file.tell())
        before = sum(
            s.size - (at.offset if s.number == at.number else 0)
            for s in later
            if s.number < segment.number
        )  # fmt: skip
        torn = unfinished(segment.path, target.offset)
        return target, before + target.offset - first, torn
    return at, 0, frozenset()
