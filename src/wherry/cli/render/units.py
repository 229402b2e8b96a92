"""Sizes and times in the words of Docker's client (docker/go-units)."""

from __future__ import annotations

import time

from wherry.wire.durations import duration as duration

DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def size(count: float, precision: int = 3) -> str:
    """Bytes as ``4.27MB``, in powers of 1000."""
    return _scaled(count, 1000, DECIMAL, precision)


def binary_size(count: float) -> str:
    """Bytes as ``7.75GiB``, in powers of 1024."""
    return _scaled(count, 1024, BINARY, 4)


def _scaled(count: float, base: int, units: tuple[str, ...], precision: int) -> str:
    index = 0
    while abs(count) >= base and index < len(units) - 1:
        count /= base
        index += 1
    return f"{count:.{precision}g}{units[index]}"


def ago(timestamp: float, now: float | None = None) -> str:
    return duration((time.time() if now is None else now) - timestamp) + " ago"


def go_time(timestamp: int) -> str:
    """Seconds since the epoch as Go prints a local time: ``2026-01-02 15:04:05 +0100 CET``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(timestamp))


def rfc3339(timestamp: int) -> str:
    """Seconds since the epoch as ``2026-01-02T15:04:05+01:00``, or ``Z`` for UTC."""
    local = time.localtime(timestamp)
    zone = time.strftime("%z", local)
    shown = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + shown


def parse_time(text: str) -> int:
    """Whole seconds since the epoch of an RFC 3339 time; 0 for what is none."""
    if len(text) < 20 or text[10] not in "Tt":
        return 0
    import calendar

    try:
        seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0
    zone = text[19:].lstrip(".0123456789")
    if len(zone) != 6 or zone[0] not in "+-" or not (zone[1:3] + zone[4:]).isdecimal():
        return seconds
    offset = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
    return seconds - offset if zone[0] == "+" else seconds + offset


def ellipsis(text: str, width: int) -> str:
    """Cut to ``width`` characters, the last of them ``…``."""
    if len(text) <= width:
        return text
    return "…" if width <= 1 else text[: width - 1] + "…"


def short_id(identifier: str) -> str:
    """Twelve hex digits, without ``sha256:``."""
    return identifier.partition(":")[2][:12] if identifier.startswith("sha256:") else identifier[:12]
