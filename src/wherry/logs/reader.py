"""Read a log over all of its files, oldest first, while it is written and rotated."""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from wherry.logs import beginnings
from wherry.logs.files import LogFiles, Segment
from wherry.logs.records import Record, Selection, parse, stamp

_BLOCK = 256 << 10
T = TypeVar("T")


class Position(NamedTuple):
    """A place in the log: the file's number, and the (uncompressed) bytes of it before that place."""

    number: int
    offset: int


class Reader:
    """Reads records from where the last call stopped. An incomplete record waits for its end.

    Calls read files, so they belong on a thread; one at a time.

    :param torn: streams that are in the middle of a line at ``at``; the rest of that line is left out.
    :ivar finished: a record after ``selection.until`` was found, so nothing relevant follows.
    :ivar places: with ``places``, the beginning of each record of the last read.
    """

    def __init__(
        self,
        files: LogFiles,
        selection: Selection,
        *,
        at: Position | None = None,
        places: bool = False,
        bounded: bool = False,
        torn: beginnings.Streams = frozenset(),
    ) -> None:
        self._files = files
        self._lines = _Lines(selection, set(torn))
        # A reader may be closed while an abandoned thread still reads.
        self._lock = threading.Lock()
        self._rest = b""
        self._file: BinaryIO | None = None
        self._segment: Segment | None = None
        self._offset = 0
        self._start = 0
        """Where the lines of the last block begin."""
        self._number = 0
        self._joined = False
        """Whether the file before the next one was checked."""
        self.skipped = 0
        """Files that were removed before they were read, just before what the last call returned."""
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
        """Just before the first record that was not returned yet."""
        if self._segment is None:
            return max(self._seek, Position(self._number + 1, 0))
        return Position(self._segment.number, self._offset)

    @property
    def number(self) -> int:
        """The first file still needed; 0 before anything was opened."""
        return self._segment.number if self._segment is not None else self._number + 1 if self._number else 0

    @property
    def takes_all(self) -> bool:
        """Whether every record is wanted, so that :meth:`read_lines` may be called."""
        return self._lines.selection.is_everything

    def read(self) -> list[Record]:
        """The next wanted records, a block's worth; empty when there is nothing more for now.

        Sets :attr:`skipped`.
        """
        with self._lock:
            self.skipped = 0
            return self._read(self._records)

    def read_lines(self) -> list[bytes]:
        """The same as the lines of the file, without their newlines, where everything is wanted: nothing is
        made for each of them. One that is no record may be among them.
        """
        with self._lock:
            self.skipped = 0
            return self._read(self._lines.kept)

    def _read(self, select: Callable[[list[bytes]], list[T]]) -> list[T]:
        while not self.finished:
            if self._file is None and not self._open_next():
                break
            assert self._file is not None
            block = self._read_block()
            if not block:
                if self.finished or not self._is_closed():
                    break
                # Bytes that were written between the last read and the end of this file.
                block = self._read_block()
                if not block:
                    self._advance()
                    continue
            wanted = select(self._take(block))
            if wanted:
                return wanted
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

    def _take(self, block: bytes) -> list[bytes]:
        """The lines that are whole with ``block``."""
        self._start = self._offset
        self._offset += len(block) + len(self._rest)
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        self._offset -= len(self._rest)
        return lines

    def _records(self, lines: list[bytes]) -> list[Record]:
        assert self._segment is not None
        if self.places is None:
            records = self._lines.wanted(lines)
            self.finished = self._lines.over
            return records
        self.places, wanted, start = [], [], self._start
        for line in lines:
            if records := self._lines.wanted([line]):
                self.places.append(Position(self._segment.number, start))
                wanted += records
            start += len(line) + 1
        return wanted

    def _is_closed(self) -> bool:
        """Whether nothing more will be written to the open file."""
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
        """Open the file after :attr:`_number`; False if there is none yet."""
        while True:
            # The current file first: if it is rotated in between, it then appears among the rotated ones.
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
                    return False  # It was read already; its second name is about to become the only one.
                self._use(current, Segment(last + 1, self._files.path, inode, status.st_size, 0))
                return True
            segment = later[0]
            if current is not None and inode == segment.inode:
                self._use(current, segment)
                return True
            if current is not None:
                current.close()
            if self._is_too_old(segment):
                self._number, self._joined = segment.number, True
                self._lines.jump(beginnings.unfinished(segment.path))
                continue
            file = _open(segment.path)
            if file is not None:
                self._use(file, segment)
                return True

    def _is_too_old(self, segment: Segment) -> bool:
        since = self._lines.selection.since
        return since is not None and stamp(segment.changed_ns) < since

    def _use(self, file: BinaryIO, segment: Segment) -> None:
        if self._number and segment.number > self._number + 1:
            self.skipped += segment.number - self._number - 1
        self._file, self._segment, self._rest, self._offset = file, segment, b"", 0
        if segment.number == self._seek.number:
            file.seek(self._seek.offset)
            self._offset = self._seek.offset
        if not self._offset and not (self._joined and segment.number == self._number + 1):
            self._lines.jump(beginnings.noted(self._files.path, segment.number))
        self._joined = True

    def close(self) -> None:
        with self._lock:
            self.finished = True
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._segment = None
        self._rest = b""


class _Lines:
    """Selects records: all records of the selected lines. A line has the time of its first record.

    :ivar torn: streams (stderr or not) in the middle of a line that is not selected, or has no beginning.
    :ivar over: nothing relevant follows.
    """

    def __init__(self, selection: Selection, torn: set[bool]) -> None:
        self.selection = selection
        self.torn = torn
        self.over = False
        self._open: set[bool] = set()
        """Streams in the middle of a selected line; recorded if the selection has an end."""

    def jump(self, torn: beginnings.Streams) -> None:
        """What follows does not continue the former records; lines of ``torn`` began before it."""
        self.torn, self._open = set(torn), set()

    def wanted(self, lines: list[bytes]) -> list[Record]:
        if self.selection.is_everything and not self.torn:
            return [record for line in lines if (record := parse(line)) is not None]
        found = []
        for line in lines:
            record = parse(line)
            if record is not None and self._is_wanted(record):
                found.append(record)
            if self.over:
                break
        return found

    def kept(self, lines: list[bytes]) -> list[bytes]:
        """:meth:`wanted` as lines, where the selection is of everything."""
        if not self.torn:
            return lines
        return [line for line in lines if (found := parse(line)) is not None and self._is_wanted(found)]

    def _is_wanted(self, record: Record) -> bool:
        ends, stream = record.data.endswith(b"\n"), record.stderr
        if stream in self.torn:
            if ends:
                self.torn.discard(stream)
            return False
        if stream in self._open:
            if ends:
                self._open.discard(stream)
            return True
        if self.selection.is_past(record):
            self.over = not self._open
            return False
        wanted = self.selection.wants(record)
        if not ends:
            (self._open if wanted else self.torn).add(stream)
        return wanted


def _open(path: Path) -> BinaryIO | None:
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path, "rb"))
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _tail(files: LogFiles, selection: Selection) -> Position:
    """Where the last ``tail`` selected lines begin, searched from the end backwards."""
    assert selection.tail is not None
    segments = files.all()
    if not segments:
        return Position(1, 0)
    if selection.tail <= 0:
        return Position(segments[-1].number, segments[-1].size)
    left = selection.tail
    heard: set[bool] = set()
    for segment in reversed(segments):
        file = _open(segment.path)
        if file is None:
            return _tail(files, selection)  # It was compressed or removed meanwhile.
        with file:
            if segment.compressed:
                offset, seen = _tail_forwards(file, selection, left, heard)
            else:
                offset, seen = _tail_backwards(file, selection, left, heard)
        if offset is not None:
            return Position(segment.number, offset)
        left -= seen
    return Position(segments[0].number, 0)


def _ends(line: bytes, selection: Selection, heard: set[bool]) -> bool:
    """Whether a line that ``tail`` counts ends here, searching from the end of the log backwards.

    The last line of a stream may have no end yet, for example a prompt.
    :param heard: streams (stderr or not) of which something was found already.
    """
    record = parse(line)
    if record is None or not selection.counts(record):
        return False
    is_last = record.stderr not in heard
    heard.add(record.stderr)
    return is_last or record.data.endswith(b"\n")


def _tail_backwards(
    file: BinaryIO, selection: Selection, tail: int, heard: set[bool]
) -> tuple[int | None, int]:
    """Where the last ``tail`` lines of this file begin, ``None`` if the file has no line before them; and the
    number of lines that were counted."""
    position, rest, seen = file.seek(0, os.SEEK_END), b"", 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size) + rest
        lines = block.split(b"\n")
        # The first piece may have begun in the former block.
        rest = lines[0]
        offset = position + len(block)
        for line in reversed(lines[1:]):
            offset -= len(line)
            if _ends(line, selection, heard):
                # Counting the ends of lines: the one after the last wanted starts the tail.
                seen += 1
                if seen > tail:
                    return offset + len(line) + 1, seen
            offset -= 1
    if _ends(rest, selection, heard):
        seen += 1
        if seen > tail:
            return len(rest) + 1, seen
    return None, seen


def _tail_forwards(
    file: BinaryIO, selection: Selection, tail: int, heard: set[bool]
) -> tuple[int | None, int]:
    """The same for a file that can only be read from its beginning."""
    ends: deque[int] = deque(maxlen=tail + 1)
    last: dict[bool, tuple[int, bool]] = {}
    offset, seen = 0, 0
    try:
        for line in file:
            offset += len(line)
            record = parse(line.removesuffix(b"\n"))
            if record is None or not selection.counts(record):
                continue
            is_whole = record.data.endswith(b"\n")
            last[record.stderr] = (offset, is_whole)
            if is_whole:
                seen += 1
                ends.append(offset)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        pass
    open_ends = [at for stream, (at, is_whole) in last.items() if stream not in heard and not is_whole]
    heard |= set(last)
    seen += len(open_ends)
    counted = sorted((*ends, *open_ends))[-tail - 1 :]
    return (counted[0] if seen > tail else None), seen
