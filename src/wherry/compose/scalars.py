"""Scalars: numbers, sizes, durations. Each function takes the value in the file and raises ValueError."""

from __future__ import annotations

from wherry.compose.kinds import INT64_MAX, Scalar, go_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZES = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_SECONDS |= {"h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("" if not isinstance(value, (int, float)) else f'write "{go_text(value)}"')
    return value


def text_or_number(value: Any) -> str:
    if isinstance(value, bool):
        raise ValueError
    return go_text(value)


def word(value: Any) -> str:
    """A string, a number or a boolean, as a string."""
    return go_text(value)


def boolean(value: Any) -> bool:
    """A boolean; strings may also be the words of YAML 1.1, because interpolation can produce them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        lower = value.lower()
        if lower in ("true", "y", "yes", "on", "1", "t"):
            return True
        if lower in ("false", "n", "no", "off", "0", "f"):
            return False
    raise ValueError


def integer(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        digits = value.strip().removeprefix("-").removeprefix("+")
        if not digits.isdecimal() or not digits.isascii() or len(digits) > 20:
            raise ValueError
        value = int(value)
    if not isinstance(value, int) or not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise ValueError
    return value


def natural(value: Any) -> int:
    found = integer(value)
    if found < 0:
        raise ValueError
    return found


def number(value: Any) -> float:
    """A decimal number, kept in 32 bits as Docker's plugin keeps ``cpus``."""
    import struct

    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str) and not value.replace(".", "").replace("e", "").replace("-", "").isalnum():
        raise ValueError
    found = float(value)
    if not abs(found) < 3e38:
        raise ValueError
    packed = struct.pack("f", found)
    for digits in range(1, 10):
        short = float(f"{found:.{digits}g}")
        if struct.pack("f", short) == packed:
            return short
    return found


def size(value: Any) -> int:
    """Bytes from ``64m``, ``1.5gb``, ``512``; powers of 1024."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, (int, float)):
        return int(value)
    if value == "-1":
        return -1
    digits = value.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = value.strip()[len(digits) :].strip().lower()
    if (unit.endswith("ib") and len(unit) == 3) or (unit.endswith("b") and len(unit) == 2):
        unit = unit[0]
    if unit not in _SIZES or not digits[-1:].isdecimal() or not digits.replace(".", "", 1).isdecimal():
        raise ValueError("write a number and b, k, m or g")
    return int(float(digits) * 1024 ** _SIZES[unit])


def duration(value: Any) -> int:
    """Nanoseconds from ``1h30m``, ``90s``, ``1d12h``."""
    if not isinstance(value, str):
        raise ValueError("write a number and ns, us, ms, s, m, h or d")
    rest = value.strip().removeprefix("-").removeprefix("+")
    if rest == "0":
        return 0
    total, rest_before = 0.0, ""
    if not rest:
        raise ValueError("write a number and ns, us, ms, s, m, h or d")
    while rest:
        rest_before = rest
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµμ"))]
        rest = rest[len(unit) :]
        if unit not in _SECONDS or not digits.strip(".") or digits.count(".") > 1 or rest == rest_before:
            raise ValueError("write a number and ns, us, ms, s, m, h or d")
        total += float(digits) * _SECONDS[unit]
    if total > INT64_MAX:
        raise ValueError("too long")
    return -round(total) if value.strip().startswith("-") else round(total)


def duration_text(nanoseconds: int) -> str:
    """A duration in Go's format: ``1m30s``, ``2m0s``, ``1.5s``, ``0s``."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest < 10**9:
        for unit, factor in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if rest >= factor:
                return f"{sign}{_decimal(rest, factor)}{unit}"
    minutes, within = divmod(rest, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(within, 10**9)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}s"
    return f"{sign}{minutes}m{seconds}s" if minutes else f"{sign}{seconds}s"


def _decimal(value: int, factor: int) -> str:
    whole, part = divmod(value, factor)
    if not part:
        return str(whole)
    digits = str(part).rjust(len(str(factor)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def octal(value: Any) -> str:
    """A file's mode, such as ``"0440"``: a number is its value, a string has octal digits."""
    if isinstance(value, (bool, float)):
        raise ValueError
    mode = int(value, 8) if isinstance(value, str) else value
    if not 0 <= mode <= 0o7777:
        raise ValueError
    return f"0{mode:o}"


def count(value: Any) -> int:
    """The number of devices; ``all`` is -1."""
    if value == "all":
        return -1
    try:
        return integer(value)
    except ValueError:
        raise ValueError('write a number or "all"') from None


STRING = Scalar("a string", text)
STRING_OR_NULL = Scalar("a string", text, null=True)
STRING_OR_NUMBER = Scalar("a string or a number", text_or_number)
WORD = Scalar("a string, a number or a boolean", word)
BOOL = Scalar("true or false", boolean)
BOOL_SET = Scalar("true or false", boolean, keep=True)
INT = Scalar("a whole number", integer)
INT_SET = Scalar("a whole number", integer, keep=True)
NATURAL = Scalar("a whole number from 0 on", natural)
NATURAL_SET = Scalar("a whole number from 0 on", natural, keep=True)
NUMBER = Scalar("a number", number)
SIZE = Scalar("a size in bytes, like 64m", lambda value: str(size(value)) if size(value) else "")
DURATION = Scalar("a duration, like 1m30s", lambda value: duration_text(duration(value)), keep=True)
MODE = Scalar('a mode in octal digits, like "0440"', octal, keep=True)
COUNT = Scalar('a whole number or "all"', count)
