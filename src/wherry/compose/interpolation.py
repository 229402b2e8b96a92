"""``$NAME``, ``${NAME:-default}`` and similar forms in a file's strings (Compose specification,
"Interpolation").

$$ a dollar      ${N-d} ${N:-d} the default where it is unset (or empty)      ${N?e} ${N:?e} else an error
${N+r} ${N:+r}   the replacement where it is set (and not empty)              values nest: ${A:-${B}}
"""

from __future__ import annotations

from wherry.compose.places import FileError, Map, Place, Seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Lookup = Callable[[str], str | None]
    Unset = Callable[[str], None]

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_REST = _FIRST | frozenset("0123456789")
DEPTH_MAX = 50


class MalformedTemplate(ValueError):
    """The text is malformed: ``${`` without a name or an end."""


class Required(ValueError):
    """A required variable is not set; the text is the message from the file."""


def substitute(text: str, lookup: Lookup, unset: Unset, depth: int = 0) -> str:
    """:param unset: called with the name of each variable that has neither a value nor a default.

    :raises Malformed:
    :raises Required:
    """
    if "$" not in text:
        return text
    if depth > DEPTH_MAX:
        raise MalformedTemplate("nested too deeply")
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            parts.append("$")
            at = dollar + 2
        elif after == "{":
            end = _closing(text, dollar + 2)
            parts.append(_braced(text[dollar + 2 : end], lookup, unset, depth))
            at = end + 1
        elif after in _FIRST and after:
            at = _name_end(text, dollar + 1)
            parts.append(_value(text[dollar + 1 : at], lookup, unset))
        else:
            raise MalformedTemplate(f'at "{text[dollar : dollar + 20]}": write $$ for a dollar')
    parts.append(text[at:])
    return "".join(parts)


def _name_end(text: str, at: int) -> int:
    while at < len(text) and text[at] in _REST:
        at += 1
    return at


def _closing(text: str, at: int) -> int:
    depth = 1
    start = at
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
            continue
        if text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise MalformedTemplate(f'at "${{{text[start : start + 20]}": the brace is not closed')


def _value(name: str, lookup: Lookup, unset: Unset) -> str:
    value = lookup(name)
    if value is None:
        unset(name)
        return ""
    return value


def _braced(inner: str, lookup: Lookup, unset: Unset, depth: int) -> str:
    end = _name_end(inner, 0)
    name, rest = inner[:end], inner[end:]
    if not name or name[0] not in _FIRST:
        raise MalformedTemplate(f'at "${{{inner[:20]}}}": a name of letters, digits and _ is missing')
    if not rest:
        return _value(name, lookup, unset)
    operator = rest[:2] if rest[0] == ":" else rest[0]
    word = rest[len(operator) :]
    value = lookup(name)
    missing = not value if operator[0] == ":" else value is None
    kind = operator[-1]
    if kind == "-":
        return substitute(word, lookup, unset, depth + 1) if missing else value or ""
    if kind == "+":
        return "" if missing else substitute(word, lookup, unset, depth + 1)
    if kind == "?":
        if missing:
            said = substitute(word, lookup, unset, depth + 1)
            raise Required(f"required variable {name} is missing a value" + (f": {said}" if said else ""))
        return value or ""
    raise MalformedTemplate(f'at "${{{inner[:20]}}}": after the name comes one of :- - :? ? :+ +')


def interpolate(value: Any, at: Place, path: str, lookup: Lookup, unset: Unset) -> Any:
    """The value with all its strings substituted; keys stay as they are.

    :raises FileError: with the place of the string.
    """
    if isinstance(value, str):
        if "$" not in value:
            return value
        try:
            return substitute(value, lookup, unset)
        except MalformedTemplate as e:
            raise FileError(at, path, f"has an invalid interpolation format {e}") from None
        except Required as e:
            raise FileError(at, "", f"error while interpolating {path}: {e}") from None
    if isinstance(value, Map):
        for key, one in value.items():
            if isinstance(one, (str, Map, Seq)):
                inner = f"{path}.{key}" if path else key
                value[key] = interpolate(one, value.place(key), inner, lookup, unset)
    elif isinstance(value, Seq):
        for index, one in enumerate(value):
            if isinstance(one, (str, Map, Seq)):
                value[index] = interpolate(one, value.place(index), f"{path}[{index}]", lookup, unset)
    return value


def variables(value: Any, found: dict[str, tuple[bool, str, str]]) -> None:
    """Collect the variables in a tree of values: by name, whether it is required, its default, its
    replacement."""
    if isinstance(value, Map):
        for one in value.values():
            variables(one, found)
    elif isinstance(value, Seq):
        for one in value:
            variables(one, found)
    elif isinstance(value, str) and "$" in value:
        try:
            _gather(value, found)
        except MalformedTemplate:
            pass  # a later step reports this, with its place


def _gather(text: str, found: dict[str, tuple[bool, str, str]]) -> None:
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        after = text[dollar + 1 : dollar + 2]
        if after == "{":
            end = _closing(text, dollar + 2)
            inner = text[dollar + 2 : end]
            split = _name_end(inner, 0)
            name, rest = inner[:split], inner[split:]
            operator = rest[:2] if rest[:1] == ":" else rest[:1]
            word = rest[len(operator) :]
            kind = operator[-1:]
            found.setdefault(name, (kind == "?", word if kind == "-" else "", word if kind == "+" else ""))
            _gather(word, found)
            at = end + 1
        elif after in _FIRST and after:
            at = _name_end(text, dollar + 1)
            found.setdefault(text[dollar + 1 : at], (False, "", ""))
        else:
            at = dollar + 2
