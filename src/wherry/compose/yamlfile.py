"""YAML text -> values with places (YAML 1.2's core schema, with the merge key and octal numbers of 1.1, as Go
reads it).

PyYAML's C parser builds the graph of nodes; plain scalars are interpreted here, because PyYAML reads ``yes``
as true and ``12:30`` as a number.
"""

from __future__ import annotations

from wherry.compose.finding import SIZE_MAX
from wherry.compose.places import RESET, FileError, Map, Place, Seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

VALUES_MAX = 500_000
"""The maximum number of values in one file; an alias counts each time it is used. This stops a "billion
laughs" file."""
DEPTH_MAX = 100

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_START = frozenset("+-.0123456789")
_INFINITIES = {
    ".inf": "inf", ".Inf": "inf", ".INF": "inf", "+.inf": "inf", "+.Inf": "inf", "+.INF": "inf",
    "-.inf": "-inf", "-.Inf": "-inf", "-.INF": "-inf", ".nan": "nan", ".NaN": "nan", ".NAN": "nan",
}  # fmt: skip


def documents(text: bytes, file: str) -> list[Map]:
    """The mappings of a file, one for each document; empty documents are skipped.

    :raises FileError: malformed YAML, not a mapping, a duplicate key, too large.
    """
    import yaml

    if len(text) > SIZE_MAX:
        raise FileError(Place(file), "", f"is larger than {SIZE_MAX >> 20} MiB")
    found = []
    try:
        for node in yaml.compose_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            value = _Reader(file).value(node, 0)
            if value is None:
                continue
            if not isinstance(value, Map):
                raise FileError(_place(file, node), "", "top-level object must be a mapping")
            found.append(value)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise FileError(place, "", f"yaml: {e.problem or e.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise FileError(Place(file), "", f"yaml: {e}".replace("\n", " ")) from None
    except RecursionError:
        raise FileError(Place(file), "", "is nested too deeply") from None
    return found


def _place(file: str, node: Any) -> Place:
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


class _Reader:
    """One document's nodes as values."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: Any, depth: int) -> Any:
        if node is None:
            return None
        self._count += 1
        place = _place(self._file, node)
        if self._count > VALUES_MAX:
            raise FileError(place, "", f"has more than {VALUES_MAX} values, its aliases expanded")
        if depth > DEPTH_MAX:
            raise FileError(place, "", "is nested too deeply")
        if id(node) in self._open:
            raise FileError(place, "", "an anchor must not contain itself")
        if node.tag == "!reset":
            return RESET
        kind = node.id
        if kind == "scalar":
            return self._scalar(node, place)
        self._open.add(id(node))
        made = self._map(node, place, depth) if kind == "mapping" else self._seq(node, place, depth)
        self._open.discard(id(node))
        made.override = node.tag == "!override"
        return made

    def _seq(self, node: Any, place: Place, depth: int) -> Seq:
        made = Seq(place)
        for item in node.value:
            made.add(self.value(item, depth + 1), _place(self._file, item))
        return made

    def _map(self, node: Any, place: Place, depth: int) -> Map:
        made = Map(place)
        merged: list[Map] = []
        for key_node, value_node in node.value:
            at = _place(self._file, key_node)
            if key_node.id != "scalar":
                raise FileError(at, "", "a key must be a plain word")
            key = key_node.value
            if key == "<<" and not key_node.style:
                merged += self._merged(value_node, depth)
                continue
            if key in made:
                raise FileError(at, "", f'mapping key "{key}" already defined at line {made.place(key).line}')
            made.put(key, self.value(value_node, depth + 1), _place(self._file, value_node))
            made.named[key] = at
        for other in merged:
            for key, value in other.items():
                if key not in made:
                    made.put(key, value, other.place(key))
        return made

    def _merged(self, node: Any, depth: int) -> Iterator[Map]:
        """The mappings that ``<<`` merges; the first one wins."""
        nodes = node.value if node.id == "sequence" else [node]
        for one in nodes:
            value = self.value(one, depth + 1)
            if not isinstance(value, Map):
                raise FileError(
                    _place(self._file, one), "", "map merge requires map or sequence of maps as the value"
                )
            yield value

    def _scalar(self, node: Any, place: Place) -> Any:
        text: str = node.value
        if node.tag == "tag:yaml.org,2002:binary":
            raise FileError(place, "", "binary values are not supported")
        if node.style or (node.tag == "tag:yaml.org,2002:str" and text.isdecimal()):
            return text
        return plain(text)


def plain(text: str) -> Any:
    """The value of a scalar without quotes: null, a boolean, a number or a string."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] not in _NUMBER_START:
        return text
    if text in _INFINITIES:
        return float(_INFINITIES[text])
    return _number(text)


def _number(text: str) -> Any:
    digits = text.replace("_", "")
    sign, rest = (digits[0], digits[1:]) if digits[:1] in ("+", "-") else ("", digits)
    if not rest or not rest.isascii() or rest[0] in "+-_":
        return text
    try:
        if rest[0] == "0" and len(rest) > 1 and rest[1] in "xXoObB":
            value = int(rest, 0)
        elif rest[0] == "0" and len(rest) > 1 and rest.isdecimal():
            value = int(rest, 8)
        elif rest.isdecimal():
            value = int(rest)
        else:
            return _float(text, sign, rest)
    except ValueError:
        return _float(text, sign, rest)
    return -value if sign == "-" else value


def _float(text: str, sign: str, rest: str) -> Any:
    if not all(c in "0123456789.eE+-" for c in rest) or not any(c.isdecimal() for c in rest):
        return text
    try:
        return float(sign + rest)
    except ValueError:
        return text
