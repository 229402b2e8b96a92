"""The functions of templates: Go's built-in ones and those that Docker adds."""

from __future__ import annotations

from wherry.cli.render.template.values import MISSING, WIDTH_MAX, go_text, is_true, to_json, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class FunctionError(ValueError):
    """A function was called with an unsuitable argument."""


def _want_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(value)}")
    return value


def _want_int(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FunctionError(f"wrong type for value; expected int; got {type_name(value)}")
    return value


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, tuple, dict)):
        return len(value)
    shown = "len of nil pointer" if value is None or value is MISSING else f"len of type {type_name(value)}"
    raise FunctionError(f"error calling len: {shown}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or value is MISSING:
            raise FunctionError("error calling index: index of untyped nil")
        if isinstance(value, dict):
            value = _lookup(value, key)
        elif isinstance(value, (list, tuple, str)):
            position = _want_int("index", key)
            if not 0 <= position < len(value):
                raise FunctionError(f"error calling index: index out of range: {position}")
            value = value[position] if not isinstance(value, str) else value.encode()[position]
        else:
            raise FunctionError(f"error calling index: can't index item of type {type_name(value)}")
    return value


def _lookup(value: dict[str, Any], key: Any) -> Any:
    """A missing key is the zero value of the map's type: the empty string if all members are strings."""
    if not isinstance(key, str):
        raise FunctionError(f"error calling index: value has type {type_name(key)}; should be string")
    if key in value:
        return value[key]
    return "" if all(isinstance(member, str) for member in value.values()) else None


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list, tuple)) or len(bounds) > 3:
        raise FunctionError(f"error calling slice: can't slice item of type {type_name(value)}")
    positions = [_want_int("slice", b) for b in bounds]
    start = positions[0] if positions else 0
    end = positions[1] if len(positions) > 1 else len(value)
    if not 0 <= start <= len(value) or not 0 <= end <= len(value):
        raise FunctionError(f"error calling slice: index out of range: {end if end > len(value) else start}")
    if start > end:
        raise FunctionError(f"error calling slice: invalid slice index: {start} > {end}")
    return value[start:end]


def _comparable(name: str, left: Any, right: Any) -> tuple[Any, Any]:
    def kind(value: Any) -> str:
        if isinstance(value, bool):
            return "bool"
        return "number" if isinstance(value, (int, float)) else type(value).__name__

    left, right = (None if v is MISSING else v for v in (left, right))
    if name in ("eq", "ne") and (left is None or right is None):
        return left is None, right is None
    if kind(left) != kind(right):
        raise FunctionError(f"error calling {name}: incompatible types for comparison")
    if not isinstance(left, (str, int, float)) or (name not in ("eq", "ne") and isinstance(left, bool)):
        raise FunctionError(f"error calling {name}: invalid type for comparison")
    return left, right


def _equal(left: Any, *others: Any) -> bool:
    for other in others:
        a, b = _comparable("eq", left, other)
        if a == b:
            return True
    return False


def _less(name: str) -> Callable[[Any, Any], bool]:
    def compare(left: Any, right: Any) -> bool:
        a, b = _comparable(name, left, right)
        if name == "ne":
            return bool(a != b)
        if name == "lt":
            return bool(a < b)
        if name == "le":
            return bool(a <= b)
        return bool(a > b) if name == "gt" else bool(a >= b)

    return compare


def _go_print(*values: Any) -> str:
    """``fmt.Sprint``: a space between two neighbours when neither is a string."""
    out: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out.append(" ")
        out.append(go_text(value, True))
    return "".join(out)


def _printf(layout: Any, *values: Any) -> str:
    from wherry.cli.render.template.printf import sprintf

    return sprintf(_want_text("printf", layout), values)


def _join(elements: Any, separator: Any) -> str:
    if not isinstance(elements, (list, tuple)) or not all(isinstance(e, str) for e in elements):
        raise FunctionError(f"wrong type for value; expected []string; got {type_name(elements)}")
    return _want_text("join", separator).join(str(e) for e in elements)


def _split(text: Any, separator: Any) -> list[str]:
    text, separator = _want_text("split", text), _want_text("split", separator)
    return text.split(separator) if separator else list(text)


def _title(text: Any) -> str:
    text = _want_text("title", text)
    return "".join(
        c.upper() if i == 0 or not (text[i - 1].isalnum() or text[i - 1] in "_'") else c
        for i, c in enumerate(text)
    )


def _pad(text: Any, before: Any, after: Any) -> str:
    text = _want_text("pad", text)
    if not text:
        return ""
    return _spaces(before) + str(text) + _spaces(after)


def _spaces(count: Any) -> str:
    return " " * min(_want_int("pad", count), WIDTH_MAX)


def _truncate(text: Any, length: Any) -> str:
    return _want_text("truncate", text)[: max(0, _want_int("truncate", length))]


def _escape_html(*values: Any) -> str:
    text = _go_print(*values)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(char, entity)
    return text


def _url_query(*values: Any) -> str:
    from wherry.client.api import quote

    return quote(_go_print(*values)).replace("%20", "+")


def _js(*values: Any) -> str:
    text = to_json(_go_print(*values))[1:-1].replace("'", "\\'")
    for char in "<>&=":
        text = text.replace(char, f"\\u{ord(char):04X}")
    return text


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "json": (to_json, 1, 1),
    "split": (_split, 2, 2),
    "join": (_join, 2, 2),
    "title": (_title, 1, 1),
    "lower": (lambda text: _want_text("lower", text).lower(), 1, 1),
    "upper": (lambda text: _want_text("upper", text).upper(), 1, 1),
    "pad": (_pad, 3, 3),
    "truncate": (_truncate, 2, 2),
    "len": (_length, 1, 1),
    "index": (_index, 1, -1),
    "slice": (_slice, 1, -1),
    "not": (lambda value: not is_true(value), 1, 1),
    "eq": (_equal, 2, -1),
    "ne": (_less("ne"), 2, 2),
    "lt": (_less("lt"), 2, 2),
    "le": (_less("le"), 2, 2),
    "gt": (_less("gt"), 2, 2),
    "ge": (_less("ge"), 2, 2),
    "print": (_go_print, 0, -1),
    "println": (lambda *values: " ".join(go_text(v, True) for v in values) + "\n", 0, -1),
    "printf": (_printf, 1, -1),
    "html": (_escape_html, 0, -1),
    "js": (_js, 0, -1),
    "urlquery": (_url_query, 0, -1),
}
NAMES = frozenset(_FUNCTIONS) | {"and", "or"}


PASSED_OVER = ("json", "title", "lower", "upper", "truncate", "pad")
"""Functions that leave a table's header as it is."""


def call(name: str, args: Sequence[Any], *, header: bool = False) -> Any:
    """:raises FunctionError: the wrong number or kind of arguments."""
    if header and name in PASSED_OVER and args:
        return _want_text(name, args[0])
    function, least, most = _FUNCTIONS[name]
    if len(args) < least or (most >= 0 and len(args) > most):
        want = f"want {least}" if least == most else f"want at least {least}"
        raise FunctionError(f"wrong number of args for {name}: {want} got {len(args)}")
    return function(*args)
