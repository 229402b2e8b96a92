"""Delivery of one container's log: read the local copy from where the last delivery ended, hand it over, note
how far it came.

The note is ``log.cursor`` beside the log: the place, and what the sink needs to deliver nothing twice. It is
written at most once a second and at every end, so a daemon that is killed delivers at most a second's lines
again (json-file, which can see what it wrote, none).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from wherry.linux import files as whole_files
from wherry.logs.drivers.base import Retry, Sink
from wherry.logs.files import LogFiles
from wherry.logs.keeper import Consumer
from wherry.logs.messages import Assembler, Message, Resume
from wherry.logs.options import Backlog
from wherry.logs.reader import Position, Reader
from wherry.logs.records import Selection
from wherry.model import typed

log = logging.getLogger(__name__)

_SAVE_EVERY = 1.0
_GATHER = 0.03
"""Seconds to let lines gather after a silence, so that a chatty container is not sent line by line."""
_REPORT_EVERY = 10.0
_SLOW = 1.0


class Cursor(msgspec.Struct, frozen=True):
    """``log.cursor``."""

    number: int = 1
    offset: int = 0
    skip: int = 0
    sink: dict[str, int] = {}


def load_cursor(path: Path) -> Cursor:
    """One that is missing or damaged begins at the beginning: better twice than never."""
    try:
        return typed.from_json(path.read_bytes(), Cursor)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return Cursor()


class Shipper:
    """``report`` is told of bytes that were dropped, never more often than every ten seconds."""

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
        """Whether it takes nothing on any more, though it may still be closing its sink."""
        self.healthy = True
        """Whether the last delivery succeeded, and soon."""
        sink.resume(self._cursor.sink)
        self._begin(Position(self._cursor.number, self._cursor.offset), self._cursor.skip)
        consumer.needs = consumer.reading = self._cursor.number

    def _begin(self, at: Position, skip: int = 0) -> None:
        self._reader = Reader(self._files, Selection(), at=at, places=True)
        self._assembler = Assembler(skip)

    async def run(self) -> None:
        """Until the container has ended and everything is delivered, or cancelled: then what was delivered
        is noted, and the next one goes on there."""
        try:
            while True:
                ended = self.consumer.ended
                messages, progressed = await asyncio.to_thread(self._collect)
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

    def _collect(self) -> tuple[list[Message], bool]:
        records = self._reader.read()
        places = self._reader.places or []
        return self._assembler.feed(list(zip(places, records, strict=False))), bool(records)

    async def _idle(self) -> bool:
        """Wait for more; what came in between asking and waiting is not missed."""
        self._save_if_due()
        self.consumer.arm()
        # Whatever was written before the watch was set is found by the next read.
        messages, progressed = await asyncio.to_thread(self._collect)
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

    async def _deliver(self, messages: list[Message]) -> None:
        """Until it is delivered or given up."""
        if messages:
            await self._until_taken(messages)
        place = self._assembler.resume(self._reader.position)
        self._advance(place)
        self._save_if_due()

    async def _until_taken(self, messages: list[Message]) -> None:
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
        """Without blocking, what waits beyond the bound is let go."""
        if self._backlog.blocking:
            return
        at = self._reader.position
        try:
            target, lost = await asyncio.to_thread(cut, self._files, at, self._backlog.bound)
        except FileNotFoundError:
            return  # Rotated away meanwhile, which is counted where that is done.
        if lost:
            self._lost += lost
            self._reader.close()
            self._begin(target)
            self.consumer.advance(target.number, target.number)

    def _account(self) -> None:
        self.consumer.reading = self._reader.position.number
        lost, self.consumer.lost = self.consumer.lost, 0
        self._lost += lost
        self._report_lost()

    def _report_lost(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._lost and (at_once or now - self._reported_at >= _REPORT_EVERY):
            lost, self._lost, self._reported_at = self._lost, 0, now
            self._report(lost)

    # ---- the note --------------------------------------------------------------------------------------

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
        # A file goes only when it is certain that the next daemon will not ask for it.
        self.consumer.advance(self._cursor.number, self.consumer.reading)


def cut(files: LogFiles, at: Position, bound: int) -> tuple[Position, int]:
    """The first whole record from which at most ``bound`` bytes follow, and how many bytes lie before it
    from ``at`` on. The same place and 0 where no more than that follow."""
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
        return target, before + target.offset - first
    return at, 0
