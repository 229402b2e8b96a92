"""Reading a log over all of its files, oldest first, while it is written and rotated."""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections import deque
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from wherry.logs.files import LogFiles, Segment
from wherry.logs.records import Record, Selection, parse, stamp

_BLOCK = 256 << 10


class Position(NamedTuple):
    """A place in the log: the file's number, and the bytes of it (uncompressed) that lie before."""

    number: int
    offset: int


class Reader:
    """Reads records from where the last call stopped. A record not yet whole waits for its end.

    Calls read files, so they belong on a thread; one at a time.

    :ivar finished: a record after ``selection.until`` came, so nothing wanted follows.
    :ivar places: with ``places``, where each record of the last read begins.
    """

    def __init__(
        self,
        files: LogFiles,
        selection: Selection,
        *,
        at: Position | None = None,
        places: bool = False,
        bounded: bool = False,
    ) -> None:
        self._files = files
        self._selection = selection
        # A reader is closed while a thread that nobody waits for any more still reads.
        self._lock = threading.Lock()
        self._rest = b""
        self._file: BinaryIO | None = None
        self._segment: Segment | None = None
        self._offset = 0
        self._number = 0
        self.places: list[Position] | None = [] if places else None
        self.finished = False
        self._end: Position | None = None
        """With ``bounded``, where the log ended when the reader was made."""
        if bounded and (last := files.all()[-1:]) and not last[0].compressed:
            self._end = Position(last[0].number, last[0].size)
        start = at if at is not None else _tail(files, selection) if selection.tail is not None else None
        if start is not None:
            self._number = start.number - 1
            self._seek = start
        else:
            self._seek = Position(0, 0)

    @property
    def position(self) -> Position:
        """Before the first record not yet returned."""
        if self._segment is None:
            return max(self._seek, Position(self._number + 1, 0))
        return Position(self._segment.number, self._offset)

    @property
    def number(self) -> int:
        """The first file still needed; 0 before anything was opened."""
        return self._segment.number if self._segment is not None else self._number + 1 if self._number else 0

    def read(self) -> list[Record]:
        """The next wanted records, a block's worth; empty when there is nothing more for now."""
        with self._lock:
            return self._read()

    def _read(self) -> list[Record]:
        while not self.finished:
            if self._file is None and not self._open_next():
                break
            assert self._file is not None
            block = self._read_block()
            if not block:
                if self.finished or not self._is_closed():
                    break
                # What was written between the last read and the end of the file's turn.
                block = self._read_block()
                if not block:
                    self._advance()
                    continue
            records = self._take(block)
            if records:
                return records
        return []

    def _read_block(self) -> bytes:
        assert self._file is not None and self._segment is not None
        size = _BLOCK
        if self._end is not None and self._segment.number >= self._end.number:
            offset = self._offset + len(self._rest)
            size = min(size, self._end.offset - offset) if self._segment.number == self._end.number else 0
            if size <= 0:
                self.finished = True
                return b""
        try:
            return self._file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b""  # A damaged file ends where the damage begins.

    def _take(self, block: bytes) -> list[Record]:
        start = self._offset
        self._offset += len(block) + len(self._rest)
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        self._offset -= len(self._rest)
        selection = self._selection
        if self.places is not None:
            return self._placed(lines, start)
        if selection.is_everything:
            return [record for line in lines if (record := parse(line)) is not None]
        wanted = []
        for line in lines:
            record = parse(line)
            if record is None:
                continue
            if selection.is_past(record):
                self.finished = True
                break
            if selection.wants(record):
                wanted.append(record)
        return wanted

    def _placed(self, lines: list[bytes], offset: int) -> list[Record]:
        assert self._segment is not None
        self.places, number, wanted = [], self._segment.number, []
        for line in lines:
            record = parse(line)
            if record is not None:
                self.places.append(Position(number, offset))
                wanted.append(record)
            offset += len(line) + 1
        return wanted

    def _is_closed(self) -> bool:
        """Whether nothing will be written to the open file any more."""
        assert self._segment is not None
        if self._segment.compressed:
            return True
        status = self._files.current()
        return status is not None and status.st_ino != self._segment.inode

    def _advance(self) -> None:
        assert self._segment is not None
        self._number = self._segment.number
        self._close()

    def _open_next(self) -> bool:
        """Open the file after :attr:`_number`; False while there is none."""
        while True:
            # The current file first: one rotated in between then appears among the rotated ones.
            current = _open(self._files.path)
            rotated = self._files.rotated()
            inode = os.fstat(current.fileno()).st_ino if current is not None else 0
            later = [s for s in rotated if s.number > self._number]
            if not later:
                if current is None:
                    return False
                last = rotated[-1].number if rotated else 0
                status = os.fstat(current.fileno())
                if rotated and rotated[-1].inode == inode:
                    current.close()
                    return False  # Read already, under the name it is about to have.
                self._use(current, Segment(last + 1, self._files.path, inode, status.st_size, 0))
                return True
            segment = later[0]
            if current is not None and inode == segment.inode:
                self._use(current, segment)
                return True
            if current is not None:
                current.close()
            if self._is_too_old(segment):
                self._number = segment.number
                continue
            file = _open(segment.path)
            if file is not None:
                self._use(file, segment)
                return True

    def _is_too_old(self, segment: Segment) -> bool:
        since = self._selection.since
        return since is not None and stamp(segment.changed_ns) < since

    def _use(self, file: BinaryIO, segment: Segment) -> None:
        self._file, self._segment, self._rest, self._offset = file, segment, b"", 0
        if segment.number == self._seek.number:
            file.seek(self._seek.offset)
            self._offset = self._seek.offset

    def close(self) -> None:
        with self._lock:
            self.finished = True
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._segment = None
        self._rest = b""


def _open(path: Path) -> BinaryIO | None:
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path, "rb"))
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _tail(files: LogFiles, selection: Selection) -> Position:
    """Where the last ``tail`` wanted lines begin, found from the end backwards."""
    assert selection.tail is not None
    segments = files.all()
    if not segments:
        return Position(1, 0)
    if selection.tail <= 0:
        return Position(segments[-1].number, segments[-1].size)
    left = selection.tail
    for segment in reversed(segments):
        file = _open(segment.path)
        if file is None:
            return _tail(files, selection)  # It has been compressed or removed meanwhile.
        with file:
            if segment.compressed:
                offset, seen = _tail_forwards(file, selection, left)
            else:
                offset, seen = _tail_backwards(file, selection, left)
        if offset is not None:
            return Position(segment.number, offset)
        left -= seen
    return Position(segments[0].number, 0)


def _tail_backwards(file: BinaryIO, selection: Selection, tail: int) -> tuple[int | None, int]:
    """Where the last ``tail`` lines of this file begin, ``None`` when it has no line before them; and how
    many lines were counted."""
    position, rest, seen = file.seek(0, os.SEEK_END), b"", 0
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
            if record is not None and selection.counts(record):
                # Counting the ends of lines: the one after the last wanted starts the tail.
                seen += 1
                if seen > tail:
                    return offset + len(line) + 1, seen
            offset -= 1
    first = parse(rest)
    if first is not None and selection.counts(first):
        seen += 1
        if seen > tail:
            return len(rest) + 1, seen
    return None, seen


def _tail_forwards(file: BinaryIO, selection: Selection, tail: int) -> tuple[int | None, int]:
    """The same for a file that can only be read from its beginning."""
    ends: deque[int] = deque(maxlen=tail + 1)
    offset, seen = 0, 0
    try:
        for line in file:
            offset += len(line)
            record = parse(line.removesuffix(b"\n"))
            if record is not None and selection.counts(record):
                seen += 1
                ends.append(offset)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass
    return (ends[0] if seen > tail else None), seen
