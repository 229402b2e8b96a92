from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import InvalidArgument
from wherry.wire import times

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("0", None),
        ("1", SECOND),
        ("1136073845.000000001", 1136073845 * SECOND + 1),
        ("1136073845.5", 1136073845 * SECOND + SECOND // 2),
        ("1.1234567899", 1123456789),
        ("-5", -5 * SECOND),
        ("2006-01-02T15:04:05Z", 1136214245 * SECOND),
        ("2006-01-02T15:04:05.25+01:00", 1136210645 * SECOND + SECOND // 4),
        ("2006-01-02T15:04Z", 1136214240 * SECOND),
        ("2006-01-02", 1136160000 * SECOND),
        ("9" * 19, (1 << 63) - 1),
    ],
)
def test_timestamps(text: str, expected: int | None) -> None:
    assert times.parse_timestamp(text) == expected


def test_a_duration_is_before_now() -> None:
    before = time.time_ns()
    moment = times.parse_timestamp("1h30m")
    assert moment is not None
    assert before - 5400 * SECOND <= moment <= time.time_ns() - 5400 * SECOND


@pytest.mark.parametrize(
    "text", ["x", "1e5", "²", "1.x", "12:00", "2006-13-01", "2006-02-30T00:00:00Z", "9" * 5000, "h", "1 h"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidArgument):
        times.parse_timestamp(text)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        moment = times.parse_timestamp(text)
    except InvalidArgument:
        return
    assert moment is None or -(1 << 63) < moment < 1 << 63


@given(st.integers(min_value=1, max_value=(1 << 63) - 1))
def test_rfc3339_reads_back(nanoseconds: int) -> None:
    text = times.rfc3339(nanoseconds)
    assert times.parse_timestamp(text) == nanoseconds
    assert not text.rstrip("Z").endswith("0") or "." not in text
    assert datetime.fromisoformat(text[:19] + "+00:00").astimezone(UTC)


def test_never_is_gos_zero_time() -> None:
    assert times.rfc3339(0) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_human_durations(seconds: float, words: str) -> None:
    assert times.human_duration(int(seconds * SECOND)) == words
