"""Container logs as conmon writes them (the CRI format, one line a record):

    2026-01-02T03:04:05.123456789+00:00 stdout F the text
    ^ RFC 3339, nanoseconds, UTC        ^stream ^ F: full line, P: the line goes on in the next record

:func:`read` yields what is there; :class:`Follower` waits for more with inotify.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wherry.linux import inotify

_STAMP_LENGTH = 35
_BLOCK = 256 << 10


@dataclass(frozen=True)
class Record:
    """``stamp`` is RFC 3339 with nanoseconds and ``Z``; ``data`` ends in a newline where the line did."""

    stamp: bytes
    stderr: bool
    data: bytes


@dataclass(frozen=True)
class Selection:
    """Which records: of which streams, within which times (stamps, inclusive), and how many from the end.

    ``tail`` is a number of lines, ``None`` for all.
    """

    stdout: bool = True
    stderr: bool = True
    since: bytes | None = None
    until: bytes | None = None
    tail: int | None = None

    def wants(self, record: Record) -> bool:
        if not (self.stderr if record.stderr else self.stdout):
            return False
        return not (self.since is not None and record.stamp < self.since)

    def is_past(self, record: Record) -> bool:
        return self.until is not None and record.stamp > self.until


def stamp(nanoseconds: int) -> bytes:
    """A time as it stands in a record, so that times compare as text."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{rest:09d}Z".encode()


def parse(line: bytes) -> Record | None:
    """One line of the file without its newline; ``None`` for one that is torn or not a record."""
    if len(line) < _STAMP_LENGTH + 10 or line[_STAMP_LENGTH] != 0x20:
        return None
    stamped = line[: _STAMP_LENGTH - 6] + b"Z"
    stream = line[_STAMP_LENGTH + 1 : _STAMP_LENGTH + 7]
    full = line[_STAMP_LENGTH + 8 : _STAMP_LENGTH + 9] == b"F"
    data = line[_STAMP_LENGTH + 10 :]
    return Record(stamped, stream == b"stderr", data + b"\n" if full else data)


class Reader:
    """Reads records from where the last call stopped. A record not yet whole waits for its end."""

    def __init__(self, path: Path, selection: Selection) -> None:
        self._selection = selection
        self._rest = b""
        self.finished = False
        self._file: BinaryIO | None
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            self._file = None
        if self._file is not None and selection.tail is not None:
            self._file.seek(_tail_offset(self._file, selection))

    def batches(self) -> Iterator[list[Record]]:
        """What has come since, a block at a time."""
        if self._file is None:
            return
        while not self.finished and (block := self._file.read(_BLOCK)):
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()
            wanted = []
            for line in lines:
                record = parse(line)
                if record is None:
                    continue
                if self._selection.is_past(record):
                    self.finished = True
                    break
                if self._selection.wants(record):
                    wanted.append(record)
            if wanted:
                yield wanted

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _tail_offset(file: BinaryIO, selection: Selection) -> int:
    """Where the last ``tail`` wanted lines begin, found from the end backwards."""
    assert selection.tail is not None
    end = file.seek(0, os.SEEK_END)
    if selection.tail <= 0:
        return end
    position, rest, seen = end, b"", 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size) + rest
        lines = block.split(b"\n")
        # The first piece may have begun in the block before.
        rest = lines[0]
        offset = position + len(block)
        for line in reversed(lines[1:]):
            offset -= len(line)
            record = parse(line)
            if record is not None and _counts(record, selection):
                # Counting the ends of lines: the one after the last wanted starts the tail.
                seen += 1
                if seen > selection.tail:
                    return offset + len(line) + 1
            offset -= 1
    first = parse(rest)
    if first is not None and _counts(first, selection) and seen + 1 > selection.tail:
        return len(rest) + 1
    return 0


def _counts(record: Record, selection: Selection) -> bool:
    return record.data.endswith(b"\n") and selection.wants(record) and not selection.is_past(record)


class Follower:
    """Wakes when a log file grows, or when :meth:`stop` says that nothing more will come."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.stopped = False
        self._inotify = inotify.Inotify()
        try:
            self._inotify.watch(str(path), inotify.IN_MODIFY)
        except OSError:
            self._inotify.close()
            raise
        self._loop.add_reader(self._inotify.fd, self._on_event)

    def _on_event(self) -> None:
        self._inotify.read()
        self._changed.set()

    def stop(self) -> None:
        """Nothing more will be written."""
        self.stopped = True
        self._changed.set()

    async def changed(self) -> None:
        """Wait for growth or the stop."""
        if not self.stopped:
            await self._changed.wait()
            self._changed.clear()

    def close(self) -> None:
        self._loop.remove_reader(self._inotify.fd)
        self._inotify.close()
