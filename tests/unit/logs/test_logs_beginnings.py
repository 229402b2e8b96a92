"""Half lines: where older files went, nobody is told the rest of a line as if it were one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry.logs import beginnings
from wherry.logs.files import LogFiles
from wherry.logs.reader import Position, Reader
from wherry.logs.records import Selection
from wherry.logs.shipper import cut


def record(second: int, tag: str, text: str, stream: str = "stdout") -> bytes:
    return f"2026-01-02T03:04:{second:02d}.000000000+00:00 {stream} {tag} {text}\n".encode()


OLD = record(1, "F", "one") + record(2, "P", "tw")
"""Ends in the middle of a line of standard output."""
REST = record(3, "F", "an error", "stderr") + record(4, "P", "o a") + record(5, "F", "nd more")
LATER = record(6, "F", "three")


def written(directory: Path, *contents: bytes, compress: bool = False) -> LogFiles:
    files = LogFiles(directory / "log")
    for number, content in enumerate(contents[:-1], 1):
        (directory / f"log.{number}").write_bytes(content)
    files.path.write_bytes(contents[-1])
    if compress:
        for segment in files.rotated():
            files.compress(segment)
    return files


def texts(files: LogFiles, *, at: Position | None = None, **selection: object) -> list[str]:
    reader = Reader(files, Selection(**selection), at=at)  # type: ignore[arg-type]
    found = []
    while records := reader.read():
        found += [record.data.decode() for record in records]
    reader.close()
    return found


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_the_rest_of_a_line_that_went_is_left_out(tmp_path: Path, compress: bool) -> None:
    files = written(tmp_path, OLD, REST, LATER, compress=compress)
    assert texts(files) == ["one\n", "tw", "an error\n", "o a", "nd more\n", "three\n"]
    files.remove(files.rotated()[:1], newest=2)
    assert texts(files) == ["an error\n", "three\n"]
    assert texts(files, tail=3) == ["an error\n", "three\n"]
    assert texts(files, tail=1) == ["three\n"]


def test_the_mark_is_of_one_file_only(tmp_path: Path) -> None:
    files = written(tmp_path, OLD, REST, LATER)
    files.remove(files.rotated(), newest=2)
    assert texts(files) == ["three\n"]
    assert beginnings.noted(files.path, 3) == frozenset()


def test_a_follower_that_lost_a_file_is_told_no_half_line(tmp_path: Path) -> None:
    files = written(tmp_path, record(0, "F", "zero"), OLD, REST, LATER)
    reader = Reader(files, Selection())
    assert [r.data for r in reader.read()] == [b"zero\n"]
    files.remove(files.rotated()[:2], newest=3)
    found = [r.data for r in reader.read()]
    assert reader.skipped == 1 and found == [b"an error\n"]
    reader.close()


@pytest.mark.parametrize(
    ("max_size", "max_file", "want"),
    [
        (len(record(5, "F", "nd more")) + len(LATER), 1, ["three\n"]),
        (len(LATER), 1, ["three\n"]),
        (len(REST + LATER), 1, ["an error\n", "three\n"]),
        (len(OLD + REST), 2, ["one\n", "tw", "an error\n", "o a", "nd more\n", "three\n"]),
    ],
    ids=["within a line", "between lines", "after half a line", "nothing goes"],
)
def test_what_is_cut_begins_with_a_whole_line(
    tmp_path: Path, max_size: int, max_file: int, want: list[str]
) -> None:
    files = written(tmp_path, OLD + REST + LATER)
    files.fit(max_size, max_file)
    assert texts(files) == want


def test_a_cut_below_the_rest_of_a_line(tmp_path: Path) -> None:
    """The file before it goes as a whole."""
    files = written(tmp_path, OLD, REST + LATER * 9)
    files.fit(len(REST + LATER * 8), 2)
    assert texts(files)[:2] == ["an error\n", "three\n"] and len(texts(files)) == 10


@pytest.mark.parametrize(
    ("selection", "want"),
    [
        ({"since": b"2026-01-02T03:04:04.000000000Z"}, ["three\n"]),
        ({"since": b"2026-01-02T03:04:03.000000000Z"}, ["an error\n", "three\n"]),
        ({"since": b"2026-01-02T03:04:02.000000000Z"}, ["tw", "an error\n", "o a", "nd more\n", "three\n"]),
        ({"until": b"2026-01-02T03:04:02.000000000Z"}, ["one\n", "tw", "o a", "nd more\n"]),
        ({"until": b"2026-01-02T03:04:01.000000000Z"}, ["one\n"]),
    ],
    ids=["since a rest", "since between", "since a beginning", "until a beginning", "until before"],
)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_a_line_has_the_time_of_its_beginning(
    tmp_path: Path, selection: dict[str, object], want: list[str], compress: bool
) -> None:
    assert texts(written(tmp_path, OLD, REST, LATER, compress=compress), **selection) == want


def test_a_file_that_is_too_old_may_end_in_half_a_line(tmp_path: Path) -> None:
    files = written(tmp_path, OLD, REST, LATER)
    os.utime(tmp_path / "log.1", (0, 0))
    assert texts(files, since=b"2026-01-02T03:04:03.000000000Z") == ["an error\n", "three\n"]


def test_a_backlog_is_cut_between_lines(tmp_path: Path) -> None:
    files = written(tmp_path, OLD + REST + LATER)
    assert cut(files, Position(1, 0), len(REST + LATER)) == (
        Position(1, len(OLD)), len(OLD), frozenset({False}),
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"\n", b"7", b"seven stdout", b"7 stdout\xff"], ids=repr)
def test_a_damaged_mark_hides_nothing_it_does_not_name(tmp_path: Path, content: bytes) -> None:
    files = written(tmp_path, REST, LATER)
    (tmp_path / "log.begin").write_bytes(content)
    assert texts(files) == ["an error\n", "o a", "nd more\n", "three\n"]


def test_a_mark_stays_where_nothing_goes(tmp_path: Path) -> None:
    files = written(tmp_path, OLD, REST + LATER)
    files.remove(files.rotated(), newest=1)
    (tmp_path / "log.1").unlink()
    files.path.rename(tmp_path / "log.2")
    files.path.write_bytes(LATER)
    files.fit(len(REST), 3)
    assert texts(files) == ["an error\n", "three\n", "three\n"]
