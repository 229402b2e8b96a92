from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.logs import reader as module
from wherry.logs import records
from wherry.logs.files import LogFiles
from wherry.logs.reader import Position, Reader
from wherry.logs.records import Record, Selection

Line = tuple[int, bool, bool, bytes]


def entry(number: int, stderr: bool, full: bool, text: bytes) -> bytes:
    stream, tag = b"stderr" if stderr else b"stdout", b"F" if full else b"P"
    return b"2026-01-02T03:04:05.%09d+00:00 %s %s %s\n" % (number, stream, tag, text)


def write(directory: Path, *files: bytes, compress: tuple[int, ...] = ()) -> LogFiles:
    """A log in several files, the last one being the current."""
    found = LogFiles(directory / "log")
    for number, content in enumerate(files[:-1], 1):
        (directory / f"log.{number}").write_bytes(content)
    found.path.write_bytes(files[-1])
    for segment in found.rotated():
        if segment.number in compress:
            found.compress(segment)
    return found


def drain(reader: Reader) -> list[Record]:
    found = []
    while records_ := reader.read():
        found += records_
    return found


def read_files(files: LogFiles, selection: Selection, at: Position | None = None) -> list[Record]:
    reader = Reader(files, selection, at=at)
    try:
        return drain(reader)
    finally:
        reader.close()


def read(content: bytes, selection: Selection) -> list[Record]:
    with tempfile.TemporaryDirectory() as directory:
        return read_files(write(Path(directory), content), selection)


lines = st.lists(
    st.tuples(
        st.just(0), st.booleans(), st.booleans(), st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"_"))
    ),
    max_size=30,
).map(lambda found: [(n, *rest[1:]) for n, rest in enumerate(found)])


@pytest.fixture(params=[64, 100, 1000, 256 << 10])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "_BLOCK", request.param)
    return int(request.param)


def expected_tail(written: list[Line], tail: int, stdout: bool, stderr: bool) -> bytes:
    """The last ``tail`` lines of the chosen streams; what goes on in a further record is one line, as is
    the end of a stream that has no newline."""
    wanted = [w for w in written if (stderr if w[1] else stdout)]
    kept: list[Line] = []
    ends = 0
    heard: set[bool] = set()
    for one in reversed(wanted):
        ends += one[2] or one[1] not in heard
        heard.add(one[1])
        if ends > tail:
            break
        kept.append(one)
    return b"".join(text + (b"\n" if full else b"") for _, _, full, text in reversed(kept))


@pytest.mark.parametrize("size", [64, 100, 1000])
@settings(max_examples=150, deadline=None)
@given(written=lines, tail=st.integers(0, 12), stdout=st.booleans(), stderr=st.booleans())
def test_tail_on_any_block_boundary(
    size: int, written: list[Line], tail: int, stdout: bool, stderr: bool
) -> None:
    content = b"".join(entry(*line) for line in written)
    before = module._BLOCK
    module._BLOCK = size
    try:
        found = read(content, Selection(stdout=stdout, stderr=stderr, tail=tail))
    finally:
        module._BLOCK = before
    got = b"".join(r.data for r in found)
    want = expected_tail(written, tail, stdout, stderr)
    if tail == 0:
        assert got == b""
    else:
        assert got == want


def test_everything_in_order(block: int) -> None:
    written = [(n, bool(n % 3 == 0), n % 5 != 0, b"line %d" % n) for n in range(200)]
    found = read(b"".join(entry(*w) for w in written), Selection())
    assert [r.stderr for r in found] == [w[1] for w in written]
    assert b"".join(r.data for r in found) == b"".join(w[3] + (b"\n" if w[2] else b"") for w in written)


def test_times_are_inclusive(block: int) -> None:
    content = b"".join(entry(n, False, True, b"%d" % n) for n in range(10))
    since, until = b"2026-01-02T03:04:05.000000003Z", b"2026-01-02T03:04:05.000000006Z"
    found = read(content, Selection(since=since, until=until))
    assert [r.data for r in found] == [b"3\n", b"4\n", b"5\n", b"6\n"]
    tail = read(content, Selection(until=until, tail=2))
    assert [r.data for r in tail] == [b"5\n", b"6\n"]


def test_torn_and_foreign_lines_are_left_out() -> None:
    good = entry(1, False, True, b"good")
    assert [r.data for r in read(b"garbage\n\n" + good + good[:-1], Selection())] == [b"good\n"]


def test_a_record_still_being_written_waits(tmp_path: Path) -> None:
    line = entry(1, False, True, b"whole")
    files = write(tmp_path, line[:20])
    reader = Reader(files, Selection())
    assert reader.read() == []
    with files.path.open("ab") as more:
        more.write(line[20:])
    assert [r.data for r in reader.read()] == [b"whole\n"]
    reader.close()


def test_no_log_yet(tmp_path: Path) -> None:
    assert read_files(LogFiles(tmp_path / "none"), Selection(tail=5)) == []


# ---- several files ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    written=lines,
    cuts=st.lists(st.integers(0, 30), max_size=4),
    packed=st.sets(st.integers(1, 4)),
    tail=st.none() | st.integers(1, 12),
    stderr=st.booleans(),
)
def test_files_read_as_one(
    written: list[Line], cuts: list[int], packed: set[int], tail: int | None, stderr: bool
) -> None:
    """However the records are spread over files, compressed or not, they read as if they were in one."""
    edges = [0, *sorted(min(c, len(written)) for c in cuts), len(written)]
    parts = [b"".join(entry(*line) for line in written[a:b]) for a, b in itertools.pairwise(edges)]
    selection = Selection(stderr=stderr, tail=tail)
    with tempfile.TemporaryDirectory() as directory:
        found = read_files(write(Path(directory), *parts, compress=tuple(packed)), selection)
    assert found == read(b"".join(parts), selection)


@pytest.mark.parametrize("packed", [(), (1,), (2,), (1, 2), (1, 2, 3)])
def test_every_tail_over_compressed_files(tmp_path: Path, packed: tuple[int, ...]) -> None:
    edges = [0, 3, 4, 9, 11]
    parts = [
        b"".join(entry(n, False, True, b"%d" % n) for n in range(a, b)) for a, b in itertools.pairwise(edges)
    ]
    files = write(tmp_path, *parts, compress=packed)
    for tail in range(14):
        got = [r.data for r in read_files(files, Selection(tail=tail))]
        assert got == [b"%d\n" % n for n in range(max(0, 11 - tail), 11)], tail


def test_a_reader_crosses_a_rotation_once(tmp_path: Path) -> None:
    files = write(tmp_path, entry(1, False, True, b"one"))
    reader = Reader(files, Selection())
    assert [r.data for r in reader.read()] == [b"one\n"]
    (tmp_path / "log.1").hardlink_to(files.path)
    assert reader.read() == [], "linked, but conmon has not opened another file yet"
    with files.path.open("ab") as more:
        more.write(entry(2, False, True, b"two"))
    fresh = tmp_path / "log.tmp"
    fresh.write_bytes(entry(3, False, True, b"three"))
    fresh.rename(files.path)
    assert [r.data for r in drain(reader)] == [b"two\n", b"three\n"]
    assert reader.position == Position(2, len(entry(3, False, True, b"three")))
    reader.close()


def test_a_rotation_under_way_is_not_read_twice(tmp_path: Path) -> None:
    files = write(tmp_path, entry(1, False, True, b"one"))
    (tmp_path / "log.1").hardlink_to(files.path)
    assert [r.data for r in read_files(files, Selection())] == [b"one\n"]
    assert [r.data for r in read_files(files, Selection(tail=3))] == [b"one\n"]


@pytest.mark.parametrize("packed", [(), (1, 2)])
def test_a_position_is_found_again(tmp_path: Path, packed: tuple[int, ...]) -> None:
    parts = [b"".join(entry(n, False, True, b"%d" % n) for n in range(k, k + 3)) for k in (0, 3, 6)]
    files = write(tmp_path, *parts, compress=packed)
    half = Position(2, len(entry(3, False, True, b"3")))
    assert [r.data for r in read_files(files, Selection(), half)] == [b"4\n", b"5\n", b"6\n", b"7\n", b"8\n"]


def test_files_that_went_before_they_were_read_are_passed_over(tmp_path: Path) -> None:
    files = write(tmp_path, *(entry(n, False, True, b"%d" % n) for n in range(5)))
    reader = Reader(files, Selection(), at=Position(1, 0))
    assert [r.data for r in reader.read()] == [b"0\n"]
    (tmp_path / "log.2").unlink()
    (tmp_path / "log.3").unlink()
    assert [r.data for r in drain(reader)] == [b"3\n", b"4\n"]
    reader.close()


def test_a_damaged_file_ends_where_the_damage_begins(tmp_path: Path) -> None:
    files = write(
        tmp_path, b"".join(entry(n, False, True, b"x" * 90) for n in range(999)), b"", compress=(1,)
    )
    packed = tmp_path / "log.1.gz"
    packed.write_bytes(packed.read_bytes()[:-40])
    files.path.write_bytes(entry(1, False, True, b"after"))
    assert read_files(files, Selection())[-1].data == b"after\n"
    assert read_files(files, Selection(tail=1))[-1].data == b"after\n"


def test_the_count_goes_on_where_no_rotated_file_is_kept(tmp_path: Path) -> None:
    files = write(tmp_path, entry(1, False, True, b"one"), entry(2, False, True, b"two"))
    files.remove(files.rotated(), newest=1)
    assert [(s.number, s.size > 0) for s in files.all()] == [(1, False), (2, True)]
    assert [r.data for r in read_files(files, Selection())] == [b"two\n"]


def test_a_line_left_torn_does_not_spoil_the_next(tmp_path: Path) -> None:
    files = write(tmp_path, entry(1, False, True, b"one") + b"2026-01-02T03:04")
    files.settle()
    with files.path.open("ab") as more:
        more.write(entry(2, False, True, b"two"))
    assert [r.data for r in read_files(files, Selection())] == [b"one\n", b"two\n"]


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
def test_stamps_compare_as_times_do(one: int, two: int) -> None:
    assert (records.stamp(one) < records.stamp(two)) == (one < two)


@pytest.mark.parametrize("tail", [None, 1])
def test_a_bounded_reader_ends_where_the_log_ended(tmp_path: Path, tail: int | None) -> None:
    """A container that prints faster than its log is read would otherwise never let go of the client."""
    files = write(tmp_path, entry(1, False, True, b"old"), entry(2, False, True, b"one"))
    reader = Reader(files, Selection(tail=tail), bounded=True)
    with files.path.open("ab") as more:
        more.write(entry(3, False, True, b"later"))
    (tmp_path / "log.2").hardlink_to(files.path)
    fresh = tmp_path / "log.tmp"
    fresh.write_bytes(entry(4, False, True, b"later still"))
    fresh.rename(files.path)
    assert [r.data for r in drain(reader)] == ([b"one\n"] if tail else [b"old\n", b"one\n"])
    assert reader.finished
    reader.close()
