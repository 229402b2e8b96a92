"""Signals by name and number (signal(7)), as users write them."""

from __future__ import annotations

import signal

from wherry.errors import InvalidArgument


def parse_signal(text: str) -> int:
    """``9``, ``KILL``, ``SIGKILL``, ``RTMIN+3``. :raises InvalidArgument: no such signal."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else 0
        if 0 < number <= signal.SIGRTMAX:
            return number
        if number:
            raise InvalidArgument(f"the linux daemon does not support signal {number}")
        raise InvalidArgument(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if plus and base == "RTMIN" and offset.isdigit() and signal.SIGRTMIN + int(offset) <= signal.SIGRTMAX:
        return int(signal.SIGRTMIN) + int(offset)
    base, minus, offset = name.partition("-")
    if minus and base == "RTMAX" and offset.isdigit() and signal.SIGRTMAX - int(offset) >= signal.SIGRTMIN:
        return int(signal.SIGRTMAX) - int(offset)
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError as e:
        raise InvalidArgument(f"invalid signal: {text}") from e
