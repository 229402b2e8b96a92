from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.processes.attach import _DetachScanner, parse_detach_keys

KEYS = b"\x10\x11"
alphabet = st.binary(max_size=60).map(lambda b: bytes(b"\x10\x11ab"[x % 4] for x in b))


def scan(chunks: list[bytes], keys: bytes = KEYS) -> tuple[bytes, bool]:
    scanner = _DetachScanner(keys)
    out = b""
    for chunk in chunks:
        passed, detached = scanner.scan(chunk)
        out += passed
        if detached:
            return out, True
    return out + scanner.rest(), False


@given(alphabet, st.lists(st.integers(0, 60), max_size=5))
def test_how_it_is_split_does_not_matter(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(c, len(data)) for c in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]
    assert scan(chunks) == scan([data])


@given(alphabet)
def test_what_comes_before_the_keys_is_passed_on(data: bytes) -> None:
    before, found, _after = data.partition(KEYS)
    assert scan([data]) == (before, bool(found))


@given(st.binary(max_size=100))
def test_without_keys_everything_passes(data: bytes) -> None:
    assert scan([data], b"") == (data, False)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-_", b"\0\x1b\x1f"),
        ("ctrl-a,DEL,b", b"\x01\x7fb"),
    ],
)
def test_key_lists(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


_WRONG = ["", "ctrl-", "ctrl-1", "ctrl-pp", "ab", "ä", "a,,b", "shift-a", "CTRL-A,b", "del"]


@pytest.mark.parametrize("text", _WRONG)
def test_bad_key_lists(text: str) -> None:
    with pytest.raises(ValueError):
        parse_detach_keys(text)
