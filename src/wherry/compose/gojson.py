"""JSON as Go writes it: configuration hashes are computed from it."""

from __future__ import annotations

from wherry.client import jsonwire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPED = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    "\x7f": "\x7f",
}
_SHORT = {"\\b": "\\u0008", "\\f": "\\u000c"}


def compact(value: Any) -> str:
    return _go(jsonwire.dumps(numbers(value), ascii_only=False))


def indented(value: Any) -> str:
    return _go(jsonwire.indented(numbers(value), "  "))


def _go(text: str) -> str:
    for character, escape in _ESCAPED.items():
        if character in text:
            text = text.replace(character, escape)
    return text


def numbers(value: Any) -> Any:
    """Whole floats as integers, as Go's encoder writes them."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return value
