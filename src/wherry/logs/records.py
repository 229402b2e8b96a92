"""Records as conmon writes them (the CRI log format, one line a record):

2026-01-02T03:04:05.123456789+00:00 stdout F the text
^ RFC 3339, nanoseconds, UTC        ^stream ^ F: full line, P: the line goes on in the next record
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

_STAMP_LENGTH = 35
_TEXT = _STAMP_LENGTH + 10


class Record(NamedTuple):
    """``stamp`` is RFC 3339 with nanoseconds and ``Z``; ``data`` ends in a newline where the line did."""

    stamp: bytes
    stderr: bool
    data: bytes


@dataclass(frozen=True)
class Selection:
    """Which records: their streams, their times (stamps, inclusive), and how many from the end.

    ``tail`` is a number of lines, ``None`` for all.
    """

    stdout: bool = True
    stderr: bool = True
    since: bytes | None = None
    until: bytes | None = None
    tail: int | None = None

    @property
    def is_everything(self) -> bool:
        return self.stdout and self.stderr and self.since is None and self.until is None

    def wants(self, record: Record) -> bool:
        if not (self.stderr if record.stderr else self.stdout):
            return False
        return not (self.since is not None and record.stamp < self.since)

    def is_past(self, record: Record) -> bool:
        return self.until is not None and record.stamp > self.until

    def counts(self, record: Record) -> bool:
        """Whether it belongs to a line that ``tail`` counts."""
        return self.wants(record) and not self.is_past(record)


def stamp(nanoseconds: int) -> bytes:
    """A time in the form that records use, so that times can be compared as text."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{rest:09d}Z".encode()


def parse(line: bytes) -> Record | None:
    """One line of the file without its newline; ``None`` if it is incomplete or not a record."""
    if len(line) < _TEXT or line[_STAMP_LENGTH - 6 : _STAMP_LENGTH + 1] != b"+00:00 ":
        return None
    data = line[_TEXT:]
    # 0x46 is F, a full line.
    if line[_STAMP_LENGTH + 8] == 0x46:
        data += b"\n"
    return Record(line[: _STAMP_LENGTH - 6] + b"Z", line[36:42] == b"stderr", data)
