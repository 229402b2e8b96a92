"""Values as a template sees them: Go's truth, the names of Go's types, and what Go prints."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WIDTH_MAX = 1 << 20
"""Bound on a printf or pad width, so that a format cannot ask for gigabytes of spaces."""


class _Missing:
    """A key that is not there: prints as ``<no value>``, is false."""

    def __repr__(self) -> str:
        return "<no value>"


class _Nothing:
    """A pointer to nothing: prints as ``<nil>``, is false, ``null`` in JSON."""

    is_nil = True

    def __bool__(self) -> bool:
        return False

    def go_string(self) -> str:
        return "<nil>"


MISSING = _Missing()
NOTHING = _Nothing()


def is_true(value: Any) -> bool:
    """Go's truth: zero, nil, false and everything empty are false."""
    if value is MISSING:
        return False
    if hasattr(value, "as_object"):
        return True
    return bool(value)


def type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, (list, tuple)):
        return "[]interface {}"
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "*" + getattr(value, "TYPE", "interface {}")


def go_text(value: Any, nested: bool = False) -> str:
    """A value as Go's ``%v`` prints it."""
    if isinstance(value, str):
        return value
    if hasattr(value, "go_string"):
        return str(value.go_string())
    if value is None:
        return "<nil>" if nested else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{go_text(value[k], True)}" for k in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_text(v, True) for v in value) + "]"
    if hasattr(value, "as_object"):
        return go_text(value.as_object())
    return repr(value)


def _go_float(value: float) -> str:
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        sign = "-" if exponent.startswith("-") else "+"
        return f"{mantissa}e{sign}{exponent.lstrip('+-').zfill(2)}"
    return text


def to_json(value: Any) -> str:
    """Compact JSON that keeps ``<``, ``>`` and ``&`` as they are."""
    from wherry.cli.render.gojson import compact

    return compact(None if value is MISSING else value)
