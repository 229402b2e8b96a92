"""Port specifications as people write them: ``80``, ``80/udp``, ``8000-8010/tcp``."""

from __future__ import annotations

from wherry.errors import InvalidArgument


def check_port(text: str) -> tuple[int, int, str]:
    """``80``, ``80/udp`` or ``8000-8010/tcp`` as (first, last, protocol).

    :raises InvalidArgument: out of range, or an unknown protocol.
    """
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    try:
        low = decimal(first)
        high = decimal(last) if dash else low
    except ValueError as e:
        raise InvalidArgument(f'invalid port specification: "{numbers}"') from e
    if not 0 < low <= high <= 65535:
        raise InvalidArgument(f'invalid port specification: "{numbers}"')
    if (protocol or "tcp") not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    return low, high, protocol or "tcp"


def decimal(text: str) -> int:
    """Digits only, where ``int`` would take signs, blanks and other scripts' digits.

    :raises ValueError: anything else.
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)
