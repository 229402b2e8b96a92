"""Times as users write them: ``10m`` ago, ``2026-01-02T15:04``, seconds since the epoch."""

from __future__ import annotations

import time

from wherry.cli.grammar.values import duration
from wherry.errors import InvalidArgument

FORMATS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def timestamp(text: str, what: str = "", *, now: float | None = None) -> str:
    """Convert a time into ``seconds.nanoseconds``, the API's form; empty stays empty.

    A duration counts back from now; a date without a zone is local time.

    :raises InvalidArgument: neither a time nor a duration.
    """
    if not text:
        return ""
    try:
        back = duration(text)
        moment = (time.time_ns() if now is None else round(now * 1e9)) - back
        return f"{moment // 10**9}.{moment % 10**9:09d}"
    except ValueError:
        pass
    seconds, dot, fraction = text.partition(".")
    if seconds.removeprefix("-").isdecimal() and (not dot or fraction.isdecimal()):
        return f"{seconds}.{(fraction + '0' * 9)[:9]}" if dot else text
    moment = _date(text)
    if moment < 0:
        prefix = f"{what}: " if what else ""
        raise InvalidArgument(f'{prefix}failed to parse value as time or duration: "{text}"')
    return f"{moment // 10**9}.{moment % 10**9:09d}"


def _date(text: str) -> int:
    """Nanoseconds since the epoch; -1 if it is not a date."""
    import calendar

    text, offset = _zone(text)
    text, _, fraction = text.partition(".")
    if fraction and not fraction.isdecimal():
        return -1
    for layout in FORMATS:
        try:
            parsed = time.strptime(text, layout)
        except ValueError:
            continue
        seconds = calendar.timegm(parsed) - offset if offset is not None else int(time.mktime(parsed))
        return seconds * 10**9 + int((fraction + "0" * 9)[:9])
    return -1


def _zone(text: str) -> tuple[str, int | None]:
    """Split off ``Z`` or ``+hh:mm``; the offset in seconds east of UTC."""
    if text.endswith(("Z", "z")):
        return text[:-1], 0
    sign = text[-6:-5]
    if "T" in text and sign in ("+", "-") and text[-3:-2] == ":" and (text[-5:-3] + text[-2:]).isdecimal():
        offset = int(text[-5:-3]) * 3600 + int(text[-2:]) * 60
        return text[:-6], offset if sign == "+" else -offset
    return text, None
