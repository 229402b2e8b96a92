"""Logs that begin in the middle of a line, because their older files were removed.

conmon ends a record where its read of the pipe ends. So a line may continue in the next record, and that may
be in the next file. If the older files are removed, the rest of the line stays, and no reader can tell it
from a whole line. So the code that removes files first makes a note beside them:

    <id>.log.begin    "7 stdout stderr": file 7 begins with the rest of a line of these streams
"""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from wherry.linux import files
from wherry.logs.records import parse

_MODE = 0o640
_BACK = 256 << 10
"""Bytes that are searched for the last record of a stream;
an earlier record is taken as the end of its line."""
_SUFFIX = ".begin"

Streams = frozenset[bool]
"""``True`` is standard error, ``False`` standard output."""


def unfinished(path: Path, end: int | None = None) -> Streams:
    """Streams whose last line before ``end`` (in bytes; plain files only) continues after it. Blocks."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                return _of(_tail_of(cast("BinaryIO", packed)))
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END) if end is None else end
            begin = max(0, size - _BACK)
            file.seek(begin)
            return _of(file.read(size - begin))
    except (FileNotFoundError, EOFError, zlib.error, gzip.BadGzipFile):
        return frozenset()


def note(log: Path, number: int, streams: Streams) -> None:
    """File ``number`` is about to become the oldest of the log. If the disk is full the note is not written,
    and readers may see half a line; nothing worse happens."""
    path = log.with_name(log.name + _SUFFIX)
    with contextlib.suppress(OSError):
        if streams:
            words = " ".join("stderr" if stderr else "stdout" for stderr in sorted(streams))
            files.write_atomic(path, f"{number} {words}\n".encode(), mode=_MODE, durable=False)
        else:
            path.unlink(missing_ok=True)


def noted(log: Path, number: int) -> Streams:
    """Streams for which file ``number`` begins with the rest of a line."""
    try:
        first, *words = log.with_name(log.name + _SUFFIX).read_text().split()
    except (OSError, ValueError):
        return frozenset()
    return frozenset(word == "stderr" for word in words) if first == str(number) else frozenset()


def _tail_of(file: BinaryIO) -> bytes:
    kept = b""
    while block := file.read(_BACK):
        kept = (kept + block)[-_BACK:]
    return kept


def _of(tail: bytes) -> Streams:
    open_: dict[bool, bool] = {}
    for line in tail.split(b"\n"):
        if (record := parse(line)) is not None:
            open_[record.stderr] = not record.data.endswith(b"\n")
    return frozenset(stderr for stderr, goes_on in open_.items() if goes_on)
