"""Values of log options: sizes, durations, choices, as Docker writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wherry.errors import InvalidArgument
from wherry.model import patterns
from wherry.model.patterns import Pattern

MAX_SIZE, MAX_FILE = 20 << 20, 5
"""Bytes and files of a log without options."""
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)i?b?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def size(options: Mapping[str, str], name: str, default: int) -> int:
    """Bytes: ``64k``, ``20m``, ``1.5g``. :raises InvalidArgument: anything else, or nothing."""
    text = options.get(name, "")
    if not text:
        return default
    match = _SIZE.fullmatch(text.strip())
    value = int(float(match[1]) * _UNITS[match[2].lower()]) if match is not None else 0
    if not 0 < value < 1 << 50:
        raise InvalidArgument(f"invalid value for log opt {name}: {text!r} is not a size")
    return value


def boolean(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """As Go's ``strconv.ParseBool``."""
    text = options.get(name, "")
    if not text:
        return default
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidArgument(f"invalid value for log opt {name}: {text!r} is neither true nor false")


def integer(options: Mapping[str, str], name: str, default: int, *, low: int, high: int) -> int:
    text = options.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,12}", text, re.ASCII) or not low <= int(text) <= high:
        raise InvalidArgument(
            f"invalid value for log opt {name}: {text!r} is not a number from {low} to {high}"
        )
    return int(text)


def duration(options: Mapping[str, str], name: str, default: float) -> float:
    """Seconds, from Go's form: ``500ms``, ``1m30s``."""
    text = options.get(name, "")
    if not text:
        return default
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise InvalidArgument(f"invalid value for log opt {name}: {text!r} is not a duration")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def choice(options: Mapping[str, str], name: str, known: tuple[str, ...], default: str = "") -> str:
    text = options.get(name, "") or default
    if text not in known and text != default:
        raise InvalidArgument(
            f"invalid value for log opt {name}: {text!r} is none of {', '.join(k for k in known if k)}"
        )
    return text


def pattern(options: Mapping[str, str], name: str) -> Pattern | None:
    """:raises InvalidArgument: not a valid regular expression in Go's syntax."""
    text = options.get(name, "")
    if not text:
        return None
    try:
        return patterns.compiled(text)
    except InvalidArgument as e:
        raise InvalidArgument(f"invalid value for log opt {name}: {text[:200]!r}: {e.message}") from e
