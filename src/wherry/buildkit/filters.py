"""Filters in containerd's syntax, as in BuildKit: ``key==value``, ``key!=value``, ``key~=expression``,
``key``, several joined by commas; of several filters one must match. For times and durations also ``>``,
``>=``, ``<``, ``<=``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from wherry.errors import InvalidArgument
from wherry.model import patterns

Test = Callable[[Mapping[str, str]], bool]
_TERM = re.compile(
    r"""(?P<key>[A-Za-z][A-Za-z0-9_.]*)(?:(?P<op>==|!=|~=|>=|<=|>|<|=)(?P<value>"(?:[^"\\]|\\.)*"|[^,]*))?"""
)
_LENGTH_MAX = 1000


def parse(texts: Sequence[str]) -> Test:
    """A test of an object's fields; without filters, or with an empty one, everything matches.

    :raises InvalidArgument: it is malformed.
    """
    filters = [_terms(text) for text in texts if text]

    def test(fields: Mapping[str, str]) -> bool:
        return not filters or any(all(term(fields) for term in terms) for terms in filters)

    return test


history = parse


def _terms(text: str) -> list[Test]:
    if len(text) > _LENGTH_MAX:
        raise InvalidArgument("invalid filter: it is too long")
    terms: list[Test] = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None or (found.end() < len(text) and text[found.end()] != ","):
            raise InvalidArgument(f"invalid filter {text!r}")
        terms.append(_term(found["key"], found["op"] or "", _unquoted(found["value"] or "")))
        at = found.end() + 1
    return terms


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') and len(text) > 1 else text


def _term(key: str, op: str, value: str) -> Test:
    if op == "":
        return lambda fields: fields.get(key, "") not in ("", "false")
    if op in ("==", "="):
        return lambda fields: fields.get(key, "") == value
    if op == "!=":
        return lambda fields: fields.get(key, "") != value
    if op == "~=":
        pattern = patterns.compiled(value)
        return lambda fields: pattern.search(fields.get(key, ""))
    return _compared(key, op, value)


_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def duration(text: str) -> int:
    """Nanoseconds of Go's ``1h30m``. :raises InvalidArgument: it is not a duration."""
    found = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise InvalidArgument(f"invalid duration {text[:80]!r}")
    return sum(int(float(number) * _UNITS[unit]) for number, unit in found)


def _compared(key: str, op: str, value: str) -> Test:
    import time

    wanted = int(value) if value.isdecimal() else duration(value)
    if key.endswith("At") and not value.isdecimal():
        wanted = time.time_ns() - wanted

    def test(fields: Mapping[str, str]) -> bool:
        text = fields.get(key, "")
        if not text.isdecimal():
            return False
        number = int(text)
        return {
            ">": number > wanted,
            ">=": number >= wanted,
            "<": number < wanted,
            "<=": number <= wanted,
        }[op]

    return test
