"""JSON for people, as Docker prints it: ``inspect``'s four spaces, one compact object a line for ``json``.

HTML characters mostly stay as they are. Control characters, C1 ones included, are always escaped, so values
that a container or an image chooses cannot control the terminal.
"""

from __future__ import annotations

from wherry.client import jsonwire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INDENT = "    "


HTML = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))


def compact(value: Any) -> str:
    """One line. A table's row is an object with HTML characters escaped, as Go's encoder has it there."""
    text = _without_controls(jsonwire.dumps(plain(value), ascii_only=False))
    if hasattr(value, "as_object"):
        for char, escape in HTML:
            text = text.replace(char, escape)
    return text


def indented(value: Any, indent: str = INDENT) -> str:
    """Several lines, with members in their original order."""
    return _without_controls(jsonwire.indented(plain(value), indent))


def plain(value: Any) -> Any:
    if isinstance(value, (str, int, float)) or value is None or hasattr(value, "is_nil"):
        return None if hasattr(value, "is_nil") else value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return plain(value.as_object()) if hasattr(value, "as_object") else None


def _without_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(c):04x}" if 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202d\u202e\u2066\u2067" else c
        for c in text
    )
