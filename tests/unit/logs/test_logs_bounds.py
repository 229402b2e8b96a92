"""Files cut to their size, and what a reader says of files that went before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.engine.logs.encoding import Encoder
from wherry.logs.files import LogFiles
from wherry.logs.reader import Reader
from wherry.logs.records import Record, Selection

STAMP = b"2026-01-02T03:04:05.123456789+00:00"


def record(number: int, *, full: bool = True, length: int = 0) -> bytes:
    return STAMP + b" stdout " + (b"F" if full else b"P") + b" " + b"%d" % number + b"x" * length + b"\n"


def written(path: Path, numbers: range) -> None:
    path.write_bytes(b"".join(record(n) for n in numbers))


def texts(files: LogFiles) -> list[bytes]:
    reader, found = Reader(files, Selection()), []
    while records := reader.read():
        assert not reader.skipped
        found += [r.data.rstrip() for r in records]
    reader.close()
    return found


def sizes(files: LogFiles) -> list[int]:
    return [segment.size for segment in files.all() if segment.size]


@pytest.mark.parametrize("max_file", [1, 3, 1000])
@pytest.mark.parametrize("max_size", [60, 1000, 4999])
def test_a_file_is_cut_to_the_byte(tmp_path: Path, max_size: int, max_file: int) -> None:
    files = LogFiles(tmp_path / "log")
    written(files.path, range(1000))
    assert files.is_oversize(max_size)
    files.fit(max_size, max_file)
    assert not files.is_oversize(max_size)
    assert max(sizes(files)) <= max_size and len(sizes(files)) <= max_file
    found = texts(files)
    assert found == [b"%d" % n for n in range(1000)][-len(found) :]
    if max_file == 1000:
        assert len(found) == 1000
    else:
        per_file = max_size // len(record(100))
        assert len(found) >= max_file * per_file
    assert not list(tmp_path.glob("*.part"))


def test_rotated_files_are_cut_as_well(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log")
    written(tmp_path / "log.1", range(5))
    written(tmp_path / "log.2", range(5, 105))
    written(tmp_path / "log.3", range(105, 110))
    written(files.path, range(110, 310))
    files.fit(500, 1000)
    assert max(sizes(files)) <= 500
    assert texts(files) == [b"%d" % n for n in range(310)]
    numbers = [segment.number for segment in files.all()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_record_longer_than_a_file_is_one(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log")
    files.path.write_bytes(record(1) + record(2, length=500) + record(3))
    files.fit(100, 1000)
    assert [text[:1] for text in texts(files)] == [b"1", b"2", b"3"]
    assert len(sizes(files)) == 3


def test_a_reader_notes_what_it_missed(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log")
    written(tmp_path / "log.1", range(5))
    written(files.path, range(5, 10))
    reader = Reader(files, Selection())
    assert len(reader.read()) == 5 and not reader.skipped
    (tmp_path / "log.1").unlink()
    written(tmp_path / "log.4", range(50, 55))
    files.path.unlink()
    written(files.path, range(55, 60))
    assert [r.data for r in reader.read()] == [b"%d\n" % n for n in range(50, 55)]
    assert reader.skipped == 2
    reader.read()
    assert not reader.skipped
    reader.close()


def encoder(*, framed: bool = True) -> Encoder:
    return Encoder(b"", framed=framed, timestamps=False)


def test_no_line_is_put_together_over_a_gap() -> None:
    lines = encoder(framed=False)
    out = lines.feed([Record(b"", False, b"whole\n"), Record(b"", False, b"half of ")])
    out += lines.skip(3)
    out += lines.feed(
        [Record(b"", False, b"another\n"), Record(b"", False, b"next\n"), Record(b"", True, b"e\n")]
    )
    assert out == b"whole\nwherry: skipped 3 files of the log: removed before they were read\nnext\n"


def test_half_a_line_that_was_sent_is_ended() -> None:
    lines = encoder(framed=False)
    out = lines.feed([Record(b"", False, b"half of ")]) + lines.flush() + lines.skip(1)
    assert out.startswith(b"half of \nwherry: skipped 1 files")


def test_what_was_skipped_is_said_on_standard_error() -> None:
    said = encoder().skip(2)
    assert said[0] == 2 and int.from_bytes(said[4:8], "big") == len(said) - 8


def test_a_rotation_that_the_end_cut_off_is_taken_back(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log")
    written(files.path, range(100))
    (tmp_path / "log.1").hardlink_to(files.path)
    files.fit(1000, 3)
    assert len(files.all()) == 3 and all(size <= 1000 for size in sizes(files))
    assert texts(files)[-1] == b"99"
