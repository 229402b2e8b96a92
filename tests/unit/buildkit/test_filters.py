"""Filters of ``du``, ``prune`` and the history."""

from __future__ import annotations

import time

import pytest

from wherry.buildkit.filters import duration, parse
from wherry.errors import InvalidArgument

RECORD = {"id": "abc", "type": "regular", "description": "RUN make all", "inuse": "false", "shared": "true"}


@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        ([], True),
        ([""], True),
        (["type==regular"], True),
        (["type=regular"], True),
        (["type!=regular"], False),
        (["type==exec.cachemount"], False),
        (["type==exec.cachemount", "id==abc"], True),
        (["type==regular,id==other"], False),
        (["description~=make"], True),
        (["description~=^RUN .* all$"], True),
        (["description~=^make"], False),
        (['description=="RUN make all"'], True),
        (["shared"], True),
        (["inuse"], False),
        (["absent"], False),
    ],
)
def test_filters(texts: list[str], fits: bool) -> None:
    assert parse(texts)(RECORD) is fits


def test_times_and_durations() -> None:
    hour = 3600 * 10**9
    record = {"duration": str(90 * 10**9), "startedAt": str(time.time_ns() - 2 * hour)}
    assert parse(["duration>1m"])(record) and not parse(["duration>2m"])(record)
    assert parse(["startedAt<1h"])(record) and not parse(["startedAt>1h"])(record)
    assert duration("1h30m") == hour * 3 // 2 and duration("1.5s") == 1_500_000_000


@pytest.mark.parametrize("text", ["==", "a==b,,", "é==x", "a~=(", "x" * 2000, "a>soon"])
def test_what_is_no_filter(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse([text])
