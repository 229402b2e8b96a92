"""Parse numbers in a query as Go's ``strconv`` does: a sign and ASCII digits, without white space.

Errors have Go's words, because clients and scripts match them.
"""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument

_SIGNED = re.compile(r"[+-]?\d+", re.ASCII)
_SYNTAX, _RANGE = "invalid syntax", "value out of range"
_SHOWN = 80
_DIGITS = 40
"""The maximum number of digits: any longer number is too large."""


def atoi(text: str, function: str = "Atoi") -> int:
    """:raises InvalidArgument: not a number of 64 bits."""
    if not _SIGNED.fullmatch(text):
        raise InvalidArgument(f'strconv.{function}: parsing "{text[:_SHOWN]}": {_SYNTAX}')
    number = int(text[:_DIGITS])
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidArgument(f'strconv.{function}: parsing "{text[:_SHOWN]}": {_RANGE}')
    return number


def uint32(text: str, what: str) -> int:
    """:param what: what it is, such as ``resize height``.
    :raises InvalidArgument: ``invalid resize height "x": invalid syntax``.
    """
    if not _SIGNED.fullmatch(text) or text.startswith("+"):
        raise InvalidArgument(f'invalid {what} "{text[:_SHOWN]}": {_SYNTAX}')
    number = int(text[:_DIGITS])
    if text.startswith("-") or number >= 1 << 32:
        raise InvalidArgument(f'invalid {what} "{text[:_SHOWN]}": {_RANGE}')
    return number
