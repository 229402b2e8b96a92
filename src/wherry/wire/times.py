"""Times and durations in the formats of the Engine API."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from wherry.errors import InvalidArgument
from wherry.wire.durations import duration

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time: how the API says "never"."""

_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?", re.ASCII
)
_SECONDS = re.compile(r"(-?\d{1,20})(?:\.(\d+))?", re.ASCII)
_LATEST = (1 << 63) - 1
"""The largest time in 64 bits of nanoseconds since the epoch: in the year 2262."""
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def rfc3339(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, trailing zeros dropped, in UTC; zero is Go's zero time."""
    if nanoseconds <= 0:
        return ZERO
    seconds, rest = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def parse_timestamp(text: str) -> int | None:
    """``1136073845[.000000001]`` (seconds), RFC 3339, or a Go duration before now; ns since the epoch.

    ``0`` and the empty string mean "not set"; a time beyond 64 bits becomes the nearest one within.
    :raises InvalidArgument: none of these.
    """
    if text in ("", "0"):
        return None
    seconds = _SECONDS.fullmatch(text)
    if seconds is not None:
        moment = int(seconds[1]) * 10**9 + int((seconds[2] or "")[:9].ljust(9, "0"))
    elif (before := parse_duration(text)) is not None:
        moment = time.time_ns() - before
    else:
        moment = _parse_rfc3339(text)
    return max(-_LATEST, min(moment, _LATEST))


def parse_duration(text: str) -> int | None:
    """A Go duration (``1h30m``, ``1.5s``) in nanoseconds; ``None`` when it is not one."""
    if not text or _DURATION.sub("", text):
        return None
    return sum(int(float(number) * _UNITS[unit]) for number, unit in _DURATION.findall(text))


def _parse_rfc3339(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text[:80]}"')
    day, clock, fraction, zone = match.groups()
    clock = clock or "00:00:00"
    if clock.count(":") == 1:
        clock += ":00"
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in (None, 'Z') else zone}")
    except ValueError as e:
        raise InvalidArgument(f"invalid time: {text!r}: {e}") from e
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    whole = round((moment - epoch).total_seconds())
    return whole * 10**9 + int((fraction or "0").ljust(9, "0"))


def human_duration(nanoseconds: int) -> str:
    """A duration in Docker's words: ``About a minute``, ``3 hours``, ``2 weeks``."""
    return duration(nanoseconds / 10**9)
