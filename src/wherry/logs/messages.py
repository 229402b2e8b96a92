"""Lines for log drivers: joined from records.

conmon ends a record where its read of the pipe ends, so a line may arrive in several records. They are
joined, up to 16 KiB per message as in Docker; a longer line is sent in marked parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wherry.logs.reader import Position
from wherry.logs.records import Record

MAX = 16 << 10


class LinePart(NamedTuple):
    """One piece of a long line:
    the id that all pieces share, its number from 1, and whether it is the last."""

    id: str
    ordinal: int
    last: bool


class LogMessage(NamedTuple):
    """``line`` has no newline; ``ended``: whether it had one."""

    stamp: bytes
    stderr: bool
    line: bytes
    ended: bool
    part: LinePart | None


class Resume(NamedTuple):
    """Where to continue: read from ``position``, and skip the first ``skip`` messages from there."""

    position: Position
    skip: int


@dataclass
class _Pending:
    start: Position
    stamp: bytes
    line: bytearray
    ordinal: int = 0
    since: int = 0


class MessageAssembler:
    """Makes messages of records. Equal records give equal messages, however they are divided into batches."""

    def __init__(self, skip: int = 0) -> None:
        self._pending: dict[bool, _Pending] = {}
        self._skip = skip
        self._emitted = 0

    def feed(self, records: Sequence[tuple[Position, Record]]) -> list[LogMessage]:
        found: list[LogMessage] = []
        pending = self._pending
        for start, (stamp, stderr, data) in records:
            ended = data.endswith(b"\n")
            if ended and stderr not in pending and len(data) <= MAX:
                self._emit(found, LogMessage(stamp, stderr, data[:-1], True, None))
                continue
            open_ = pending.get(stderr)
            if open_ is None:
                open_ = pending[stderr] = _Pending(start, stamp, bytearray(), since=self._emitted)
            open_.line += data[:-1] if ended else data
            while len(open_.line) > MAX:
                self._emit(found, self._piece(open_, stderr, bytes(open_.line[:MAX]), last=False))
                del open_.line[:MAX]
            if ended:
                del pending[stderr]
                self._emit(found, self._piece(open_, stderr, bytes(open_.line), last=True))
        return found

    def flush(self) -> list[LogMessage]:
        """Emit the rest; call it when no more records will come."""
        found: list[LogMessage] = []
        for stderr, open_ in self._pending.items():
            piece = self._piece(open_, stderr, bytes(open_.line), last=True)
            self._emit(found, piece._replace(ended=False))
        self._pending.clear()
        return found

    def resume(self, read_to: Position) -> Resume:
        """How to reach this state again, once the emitted messages have been delivered."""
        oldest = min(self._pending.values(), key=lambda p: p.start, default=None)
        if oldest is None:
            return Resume(read_to, self._skip)
        return Resume(oldest.start, self._emitted - oldest.since + self._skip)

    def _emit(self, found: list[LogMessage], message: LogMessage) -> None:
        if self._skip:
            self._skip -= 1
        else:
            found.append(message)
        self._emitted += 1

    @staticmethod
    def _piece(open_: _Pending, stderr: bool, line: bytes, *, last: bool) -> LogMessage:
        part = None
        if not last or open_.ordinal:
            open_.ordinal += 1
            # Derived from the position, so that the same line has the same id after a restart.
            part = LinePart(f"{open_.start.number:x}-{open_.start.offset:x}", open_.ordinal, last)
        return LogMessage(open_.stamp, stderr, line, last, part)
