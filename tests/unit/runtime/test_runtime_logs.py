from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.runtime import logs
from wherry.runtime.logs import Reader, Record, Selection

Line = tuple[int, bool, bool, bytes]


def entry(number: int, stderr: bool, full: bool, text: bytes) -> bytes:
    stream, tag = b"stderr" if stderr else b"stdout", b"F" if full else b"P"
    return b"2026-01-02T03:04:05.%09d+00:00 %s %s %s\n" % (number, stream, tag, text)


def read(content: bytes, selection: Selection) -> list[Record]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        reader = Reader(Path(file.name), selection)
        try:
            return [record for batch in reader.batches() for record in batch]
        finally:
            reader.close()


lines = st.lists(
    st.tuples(
        st.just(0), st.booleans(), st.booleans(), st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"_"))
    ),
    max_size=30,
).map(lambda found: [(n, *rest[1:]) for n, rest in enumerate(found)])


@pytest.fixture(params=[64, 100, 1000, 256 << 10])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(logs, "_BLOCK", request.param)
    return int(request.param)


def expected_tail(written: list[Line], tail: int, stdout: bool, stderr: bool) -> bytes:
    """The last ``tail`` lines of the chosen streams; what goes on in a further record is one line."""
    wanted = [w for w in written if (stderr if w[1] else stdout)]
    kept: list[Line] = []
    ends = 0
    for one in reversed(wanted):
        ends += one[2]
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
    before = logs._BLOCK
    logs._BLOCK = size
    try:
        found = read(content, Selection(stdout=stdout, stderr=stderr, tail=tail))
    finally:
        logs._BLOCK = before
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
    file = tmp_path / "log"
    line = entry(1, False, True, b"whole")
    file.write_bytes(line[:20])
    reader = Reader(file, Selection())
    assert list(reader.batches()) == []
    with file.open("ab") as more:
        more.write(line[20:])
    assert [r.data for batch in reader.batches() for r in batch] == [b"whole\n"]
    reader.close()


def test_no_log_yet(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "none", Selection(tail=5))
    assert list(reader.batches()) == []
    reader.close()


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
def test_stamps_compare_as_times_do(one: int, two: int) -> None:
    assert (logs.stamp(one) < logs.stamp(two)) == (one < two)
