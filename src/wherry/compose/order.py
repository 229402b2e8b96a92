"""The order of keys: in JSON by bytes, in YAML with numbers by value (``s2`` before ``s10``)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

JSON, YAML = "json", "yaml"
"""The output formats of a project. YAML omits unset keys, and includes ``x-`` keys."""


def in_order(keys: Iterable[str], form: str) -> list[str]:
    return naturally(keys) if form == YAML else sorted(keys, key=str.encode)


def naturally(keys: Iterable[str]) -> list[str]:
    """Sort numbers by value. At the first difference letters sort after other characters, but within a number
    before them (as Go's YAML library does).
    """
    from functools import cmp_to_key

    return sorted(keys, key=cmp_to_key(_compare))


def _compare(one: str, other: str) -> int:
    within_number = False
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == b:
            within_number = a.isdecimal()
            continue
        if a.isalpha() and b.isalpha():
            return -1 if a < b else 1
        if a.isalpha() or b.isalpha():
            first = a.isalpha() if within_number else b.isalpha()
            return -1 if first else 1
        return _compare_numbers(one, other, at)
    return len(one) - len(other)


def _compare_numbers(one: str, other: str, at: int) -> int:
    begun = _begun(one, at) if "0" in (one[at], other[at]) else 0
    (a, a_size), (b, b_size) = _digits(one, at, begun), _digits(other, at, begun)
    if a != b:
        return a - b
    if a_size != b_size:
        return a_size - b_size
    return -1 if one[at] < other[at] else 1


def _begun(text: str, at: int) -> int:
    """1 if a number that is not all zeros has begun already, so the next digits belong to it."""
    at -= 1
    while at >= 0 and text[at].isdecimal():
        if text[at] != "0":
            return 1
        at -= 1
    return 0


def _digits(text: str, at: int, value: int) -> tuple[int, int]:
    size = 0
    while at < len(text) and text[at].isdecimal():
        value, at, size = value * 10 + int(text[at]), at + 1, size + 1
    return value, size
