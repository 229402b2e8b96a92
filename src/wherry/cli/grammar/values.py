"""The kinds of flag values: each :class:`Kind` converts text into a value, or raises an error.

Parse functions raise ValueError with the message of Docker's client.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

INT64_MAX = 2**63 - 1


class Kind:
    """``name`` is the word for the value in help; ``repeats``: the flag can be repeated and collects a list;
    ``splits``: one text can contain several values."""

    __slots__ = ("empty", "name", "parse", "repeats", "splits")

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any],
        *,
        empty: Any = "",
        repeats: bool = False,
        splits: bool = False,
    ) -> None:
        self.name, self.parse, self.empty = name, parse, empty
        self.repeats, self.splits = repeats, splits


def boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(text: str) -> int:
    """A signed 64-bit number in decimal, ``0x``, ``0o``, ``0b`` or ``0`` (octal) notation, as Go reads it."""
    number = _go_number(text.lstrip("+-"), "ParseInt", text)
    if text.startswith("-"):
        number = -number
    if not -INT64_MAX - 1 <= number <= INT64_MAX:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def uint16(text: str) -> int:
    number = _go_number(text, "ParseUint", text)
    if number > 0xFFFF:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number


def _go_number(digits: str, function: str, text: str) -> int:
    try:
        if not digits or not digits[0].isdecimal() or not digits.isascii():
            raise ValueError
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdecimal()
        return int(digits, 8 if octal else 0)
    except ValueError:
        raise ValueError(f'strconv.{function}: parsing "{text}": invalid syntax') from None


_SIZE_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def memory(text: str) -> int:
    """Bytes from ``64m``, ``1.5GiB``, ``512``: powers of 1024 (docker/go-units, RAMInBytes)."""
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(digits) :].strip().lower()
    given = unit
    if (unit.endswith("ib") and len(unit) == 3) or (unit.endswith("b") and len(unit) == 2):
        unit = unit[0]
    if digits and unit not in _SIZE_UNITS:
        raise ValueError(f"invalid suffix: '{given}'")
    try:
        if not digits[-1:].isdecimal():
            raise ValueError
        number = float(digits)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if number < 0:
        raise ValueError(f"invalid size: '{text}'")
    return int(number * 1024 ** _SIZE_UNITS[unit])


def memory_or_unlimited(text: str) -> int:
    return -1 if text == "-1" else memory(text)


_DURATION_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def duration(text: str) -> int:
    """Nanoseconds from Go's notation: ``1h30m``, ``1.5s``, ``-10ms``, ``0``."""
    rest = text.removeprefix("-").removeprefix("+")
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0.0
    while rest:
        size = _span(rest, "0123456789.")
        number, rest = rest[:size], rest[size:]
        if not number.strip("."):
            raise ValueError(f'time: invalid duration "{text}"')
        letters = 0
        while letters < len(rest) and rest[letters] not in "0123456789.":
            letters += 1
        unit, rest = rest[:letters], rest[letters:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        try:
            total += float(number) * _DURATION_UNITS[unit]
        except ValueError:
            raise ValueError(f'time: invalid duration "{text}"') from None
    if total > INT64_MAX:
        raise ValueError(f'time: invalid duration "{text}"')
    return -round(total) if text.startswith("-") else round(total)


def _span(text: str, allowed: str) -> int:
    size = 0
    while size < len(text) and text[size] in allowed:
        size += 1
    return size


def nano_cpus(text: str) -> int:
    """Billionths of a processor from a decimal or a fraction (``1.5``, ``3/2``)."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise ValueError("value is too precise")
    return int(value)


def filter_pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def key_value(text: str) -> tuple[str, str]:
    """``key=value``; a lone key has an empty value."""
    key, _, value = text.partition("=")
    return key, value


def label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    return key, value


def environment(text: str) -> str:
    """``NAME=value``, or ``NAME`` alone, which later gets its value from this client's environment."""
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


BOOL = Kind("", boolean, empty=False)
STRING = Kind("string", str)
INT = Kind("int", integer, empty=0)
UINT16 = Kind("uint16", uint16, empty=0)
BYTES = Kind("bytes", memory, empty=0)
SWAP_BYTES = Kind("bytes", memory_or_unlimited, empty=0)
DURATION = Kind("duration", duration, empty=0)
CPUS = Kind("decimal", nano_cpus, empty=0)
LIST = Kind("list", str, repeats=True)
STRINGS = Kind("strings", lambda text: text.split(","), repeats=True, splits=True)
MAP = Kind("map", key_value, repeats=True)
LABELS = Kind("list", label, repeats=True)
FILTER = Kind("filter", filter_pair, repeats=True)
ENV = Kind("list", environment, repeats=True)
