"""Lines of a log's file become frames, whether they are looked at one by one or put together in bulk."""

from __future__ import annotations

import random

import pytest

from wherry.engine.logs.encoding import Encoder
from wherry.logs.records import parse

STAMP = b"2026-01-02T03:04:05.123456789+00:00"


def lines_of(seed: int) -> list[bytes]:
    """What conmon might write: mostly whole lines of one stream, pieces, others', and what is no record."""
    chance = random.Random(seed)
    stream = chance.choice([b"stdout", b"stderr"])
    found = []
    for _ in range(chance.randrange(400)):
        size = chance.choice([0, 1, 99, 200, 5000, 17000])
        text = bytes(chance.choices(b"ab \xff stdout F \r", k=min(size, 40))) + b"x" * max(0, size - 40)
        kind = b"P" if chance.random() < 0.03 else b"F"
        of = stream if chance.random() < 0.97 else chance.choice([b"stdout", b"stderr"])
        found.append(b" ".join((STAMP, of, kind, text)))
        if chance.random() < 0.01:
            found.append(chance.choice([b"", b"half a reco", STAMP + b" stdout", b"x" * 60]))
    return found


def in_blocks(seed: int, lines: list[bytes]) -> list[list[bytes]]:
    chance, found = random.Random(seed), []
    while lines:
        size = chance.randrange(1, 120)
        found.append(lines[:size])
        lines = lines[size:]
    return found


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_lines_in_bulk_are_the_same(seed: int, framed: bool, timestamps: bool) -> None:
    bulk, single = (Encoder(b"", framed=framed, timestamps=timestamps) for _ in range(2))
    for number, block in enumerate(in_blocks(seed, lines_of(seed))):
        records = [record for line in block if (record := parse(line)) is not None]
        assert bulk.feed_lines(block) == single.feed(records)
        if number % 5 == 4:
            assert bulk.flush() == single.flush()
        if number % 7 == 6:
            assert bulk.skip(2) == single.skip(2)


def test_each_line_has_a_frame() -> None:
    encoder = Encoder(b"", framed=True, timestamps=False)
    out = encoder.feed_lines([STAMP + b" stdout F one", STAMP + b" stdout F ", STAMP + b" stderr F no"])
    assert out == b"\1\0\0\0\0\0\0\4one\n" + b"\1\0\0\0\0\0\0\1\n" + b"\2\0\0\0\0\0\0\3no\n"
