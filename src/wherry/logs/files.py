"""A container's log on disk: the file conmon writes, and the rotated ones before it.

    <id>.log          written by conmon; the newest
    <id>.log.<n>      rotated; n counts up for ever, so a number names one file for as long as there is a log
    <id>.log.<n>.gz   the same, compressed
    <id>.log.tmp      what conmon is about to open (it renames it over <id>.log)
    <id>.log.begin    what the oldest file begins with (beginnings.py)

A rotation needs a second name and a request. ``<id>.log`` is linked to ``<id>.log.<n>``, then conmon is told
to open its file again (``ctl`` FIFO, message 2). conmon closes the old file, makes ``<id>.log.tmp`` and
renames it over ``<id>.log``, all between two writes. So no output is lost or torn, and ``<id>.log`` always
exists. Until then both names are one file, the one being written.

If conmon cannot open its file, it ends, and the container's output ends with it. So the ``.tmp`` file is made
here before the request: neither opening an existing file nor the rename needs room on a full disk.

If no rotated file is to be kept, the newest one stays as an empty file, because its name holds the count.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wherry.linux import fifo, files
from wherry.logs import beginnings

_MODE = 0o640
_BLOCK = 1 << 20
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31
"""The fastest level:
text shrinks tenfold, several times faster than at the default level. 31: a gzip header."""
_REOPEN = b"2 0 0\n"


@dataclass(frozen=True)
class Segment:
    """One file of the log. ``number`` is its place in the count; ``size`` in bytes on disk."""

    number: int
    path: Path
    inode: int
    size: int
    changed_ns: int

    @property
    def compressed(self) -> bool:
        return self.path.suffix == ".gz"


class LogFiles:
    """The files of one log. Every call reads the directory, so nothing here can be out of date."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotated(self) -> list[Segment]:
        """Oldest first. If a file exists both plain and compressed, the plain one."""
        found: dict[int, Segment] = {}
        prefix = self.path.name + "."
        try:
            entries = list(os.scandir(self.path.parent))
        except FileNotFoundError:
            return []
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            text, dot, rest = entry.name[len(prefix) :].partition(".")
            if not (text.isascii() and text.isdigit()) or (dot and rest != "gz"):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                number = int(text)
                if number not in found or not dot:
                    found[number] = Segment(
                        number, self.path.parent / entry.name, status.st_ino, status.st_size,
                        status.st_mtime_ns,
                    )  # fmt: skip
        return [found[number] for number in sorted(found)]

    def current(self) -> os.stat_result | None:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat()
        return None

    def all(self) -> list[Segment]:
        """Oldest first, the one being written last; its number is the next after the rotated ones."""
        status = self.current()
        rotated = self.rotated()
        if status is None or (rotated and rotated[-1].inode == status.st_ino):
            return rotated
        number = rotated[-1].number + 1 if rotated else 1
        return [*rotated, Segment(number, self.path, status.st_ino, status.st_size, status.st_mtime_ns)]

    def closed(self) -> list[Segment]:
        """The rotated files that are no longer written, oldest first."""
        status = self.current()
        return [s for s in self.rotated() if status is None or s.inode != status.st_ino]

    def is_rotating(self) -> bool:
        """Whether conmon has not carried out the last rotation yet."""
        status, rotated = self.current(), self.rotated()
        return status is not None and bool(rotated) and rotated[-1].inode == status.st_ino

    def begin_rotation(self, control: Path) -> None:
        """Link the current file and ask conmon for a new one. Not while another rotation is under way: conmon
        would rename its second new file over the first.

        :raises OSError: no room for the names, or nobody reads the control FIFO; then nothing has changed.
        """
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        rotated = self.rotated()
        name = self.path.with_name(f"{self.path.name}.{rotated[-1].number + 1 if rotated else 1}")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE))
        os.link(self.path, name)
        try:
            self.ask(control)
        except OSError:
            name.unlink()
            raise

    @staticmethod
    def ask(control: Path) -> None:
        """:raises OSError: nobody reads the FIFO."""
        fifo.write(control, _REOPEN)

    @staticmethod
    def is_asked(control: Path) -> bool:
        """Whether conmon has not read a request from the FIFO yet. :raises OSError: as :meth:`ask`."""
        return fifo.unread(control) > 0

    def settle(self) -> None:
        """Before a new conmon:
        complete a rotation that the last one has not seen, and a line that it left incomplete."""
        if self.is_rotating():
            self.path.unlink()
        self.path.with_name(f"{self.path.name}.tmp").unlink(missing_ok=True)
        # No pattern: each log has its own name, and a new pattern is compiled anew.
        for name in os.listdir(self.path.parent):
            if name.startswith(f"{self.path.name}.") and name.endswith(".part"):
                self.path.with_name(name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")

    def is_oversize(self, max_size: int) -> bool:
        """Whether a file is larger than allowed, and can be cut."""
        return bool(max_size) and any(s.size > max_size for s in self.all() if not s.compressed)

    def fit(self, max_size: int, max_file: int) -> None:
        """Cut larger files into files of at most ``max_size`` bytes (a single longer record stays whole), and
        keep the newest ``max_file``. Meanwhile nobody may write or read the log, or have stored a position in
        it.

        :raises OSError: no room; then nothing has changed.
        """
        if self.is_rotating():
            # conmon ended before it opened its file again: undo that rotation.
            self.rotated()[-1].path.unlink()
        segments = self.all()
        first = next(
            (n for n, s in enumerate(segments) if s.size > max_size and not s.compressed), len(segments)
        )
        if first == len(segments):
            return
        cut, old = [], segments[first:]
        for segment in old:
            cut += [(segment, begin, end) for begin, end in _pieces(segment, max_size, max_file)]
        cut = cut[-max_file:]
        made: list[tuple[Path, Path]] = []
        try:
            for number, (segment, begin, end) in enumerate(cut, old[0].number):
                name = f"{self.path.name}.{number}"
                part = self.path.with_name(f"{name}.part")
                made.append((part, self.path.with_name(name + (".gz" if segment.compressed else ""))))
                _copy(segment, begin, end, part)
        except BaseException:
            for part, _ in made:
                part.unlink(missing_ok=True)
            raise
        made[-1] = made[-1][0], self.path
        if len(cut) == max_file and (cut[0][1] or cut[0][0] is not segments[0]):
            # It becomes the oldest.
            beginnings.note(self.path, old[0].number, self._open_lines(segments, *cut[0][:2]))
        for part, target in made:
            part.rename(target)
        for path in {s.path for s in old} - {target for _, target in made}:
            path.unlink(missing_ok=True)
        closed = self.closed()
        surplus = closed[: max(0, len(closed) - (max_file - 1))]
        if len(cut) == max_file:
            for segment in surplus:
                self._remove(segment, newest=segment.number == closed[-1].number)
        else:
            self.remove(surplus, newest=closed[-1].number if closed else 0)

    @staticmethod
    def _open_lines(segments: list[Segment], segment: Segment, begin: int) -> beginnings.Streams:
        """Streams whose line continues at byte ``begin`` of a file."""
        if begin:
            return beginnings.unfinished(segment.path, begin)
        before = [s for s in segments if s.number < segment.number]
        return beginnings.unfinished(before[-1].path) if before else frozenset()

    def remove(self, doomed: Sequence[Segment], *, newest: int) -> None:
        """Remove rotated files, given oldest first;
        of the one with the number ``newest`` the empty file stays."""
        if doomed:
            last = doomed[-1]
            beginnings.note(self.path, last.number + 1, beginnings.unfinished(last.path))
        for segment in doomed:
            self._remove(segment, newest=segment.number == newest)

    def _remove(self, segment: Segment, *, newest: bool) -> None:
        if not newest:
            segment.path.unlink(missing_ok=True)
            return
        plain = self.path.with_name(f"{self.path.name}.{segment.number}")
        if plain != segment.path:
            plain.touch(mode=_MODE)
            segment.path.unlink(missing_ok=True)
        elif segment.size:
            # Replaced by an empty file, not truncated: a reader that has it open can go on.
            files.write_atomic(plain, b"", mode=_MODE, durable=False)

    def compress(self, segment: Segment) -> None:
        """Replace a rotated file by its compressed form; the modification time stays. Blocks for long.

        :raises OSError: no room; the plain file stays.
        """
        target = segment.path.with_name(f"{segment.path.name}.gz")
        gzipped(segment.path, target)
        segment.path.unlink(missing_ok=True)


def _pieces(segment: Segment, max_size: int, most: int) -> list[tuple[int, int]]:
    """Where to cut: the newest ``most`` pieces of whole records, oldest first, each as long as possible."""
    if segment.compressed or segment.size <= max_size:
        return [(0, segment.size)]
    found: list[tuple[int, int]] = []
    end = segment.size
    with segment.path.open("rb") as file:
        while end and len(found) < most:
            begin = max(0, end - max_size)
            if begin:
                # The first record that begins in the piece; the byte before it may end the former record.
                file.seek(begin - 1)
                at = file.read(end - begin).find(b"\n")
                begin = begin + at if at >= 0 else _begin_of_record(file, end)
            found.append((begin, end))
            end = begin
    return found[::-1]


def _copy(segment: Segment, begin: int, end: int, target: Path) -> None:
    """A piece of a file, with the file's time of change."""
    with segment.path.open("rb") as file, target.open("wb", buffering=0) as out:
        os.fchmod(out.fileno(), _MODE)
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK, end - begin))):
            _write(out.fileno(), block)
            begin += len(block)
    os.utime(target, ns=(segment.changed_ns, segment.changed_ns))


def _begin_of_record(file: BinaryIO, end: int) -> int:
    """The beginning of the record that ends at ``end``."""
    at = end - 1
    while at:
        begin = max(0, at - _BLOCK)
        file.seek(begin)
        found = file.read(at - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        at = begin
    return 0


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def gzipped(source: Path, target: Path) -> None:
    """Write a compressed copy with the same modification time; completely or not at all. Blocks for long.

    :raises OSError: no room.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with source.open("rb", buffering=0) as plain, part.open("wb", buffering=0) as out:
            os.fchmod(out.fileno(), _MODE)
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
            while block := plain.read(_BLOCK):
                _write(out.fileno(), packer.compress(block))
            _write(out.fileno(), packer.flush())
            changed = os.fstat(plain.fileno()).st_mtime_ns
        os.utime(part, ns=(changed, changed))
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
