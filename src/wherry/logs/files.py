"""A container's log on disk: the file conmon writes, and the rotated ones before it.

    <id>.log          written by conmon; the newest
    <id>.log.<n>      rotated; n counts up for ever, so a number names one file for as long as there is a log
    <id>.log.<n>.gz   the same, compressed
    <id>.log.tmp      what conmon is about to open (it renames it over <id>.log)

A rotation is a second name and a request: ``<id>.log`` is linked to ``<id>.log.<n>``, then conmon is told to
open its file again (``ctl`` FIFO, message 2). conmon closes the old file, makes ``<id>.log.tmp`` and renames
it over ``<id>.log``, all between two writes, so nothing is lost or torn; and there is a ``<id>.log`` at every
moment. Until it has done so both names are one file, and that file is the one being written.

conmon ends when it cannot open its file, which would take the container's output with it. So the ``.tmp`` is
made here, before it is asked: opening what exists needs no room on a full disk, nor does the rename.

The newest rotated file stays as a name, emptied, where none is to be kept: it carries the count.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from wherry.linux import fifo, files

_MODE = 0o640
_BLOCK = 1 << 20
_GZIP_LEVEL, _GZIP_WINDOW = 1, 31
"""The fastest level: text shrinks tenfold at several times the speed of the default. 31: a gzip header."""
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
    """The files of one log. Every call looks at the directory, so nothing here can be out of date."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rotated(self) -> list[Segment]:
        """Oldest first. Of a file that is there both plain and compressed, the plain one."""
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
        """The rotated files that nobody writes any more, oldest first."""
        status = self.current()
        return [s for s in self.rotated() if status is None or s.inode != status.st_ino]

    def is_rotating(self) -> bool:
        """Whether the rotation begun last still waits for conmon."""
        status, rotated = self.current(), self.rotated()
        return status is not None and bool(rotated) and rotated[-1].inode == status.st_ino

    def begin_rotation(self, control: Path) -> None:
        """Name the current file and ask conmon for a new one. Must not be called while one is under way:
        conmon would put its second new file over the first.

        :raises OSError: no room for the names, or nobody reads the control FIFO; nothing has changed then.
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
        """Whether a request lies in the FIFO that conmon has not read. :raises OSError: as :meth:`ask`."""
        return fifo.unread(control) > 0

    def settle(self) -> None:
        """Before a new conmon: end a rotation that the last one did not see, and a line it left torn."""
        if self.is_rotating():
            self.path.unlink()
        self.path.with_name(f"{self.path.name}.tmp").unlink(missing_ok=True)
        for entry in self.path.parent.glob(f"{self.path.name}.*.part"):
            entry.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError), self.path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")

    def remove(self, segment: Segment, *, newest: bool) -> None:
        """Forget a rotated file; of the newest one the name stays."""
        if not newest:
            segment.path.unlink(missing_ok=True)
            return
        plain = self.path.with_name(f"{self.path.name}.{segment.number}")
        if plain != segment.path:
            plain.touch(mode=_MODE)
            segment.path.unlink(missing_ok=True)
        elif segment.size:
            # Emptied by a rename, not cut: a reader that has it open keeps what it reads.
            files.write_atomic(plain, b"", mode=_MODE, durable=False)

    def compress(self, segment: Segment) -> None:
        """Replace a rotated file by its compressed form; its time of change stays. Blocks for long.

        :raises OSError: no room; the plain file stays.
        """
        target = segment.path.with_name(f"{segment.path.name}.gz")
        gzipped(segment.path, target)
        segment.path.unlink(missing_ok=True)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def gzipped(source: Path, target: Path) -> None:
    """Write a compressed copy with the same time of change; whole or not at all. Blocks for long.

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
