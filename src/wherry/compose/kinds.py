"""What a value of a Compose file may be.

A :class:`ValueKind` reads a value, in any of its forms, into its one long form.

``read`` takes a value from the file (strings, numbers, :class:`~wherry.compose.places.Map` and ``Seq``); its
errors contain the place and the path. ``arrange`` sorts the members of a value and omits empty ones, as
Docker's plugin does when it writes a project as JSON: the configuration hash depends on both.
"""

from __future__ import annotations

from wherry.compose.order import JSON, YAML, in_order
from wherry.compose.places import RESET, FileError, Map, Place, Seq, Unresolved, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Convert = Callable[[Any, Place, str], Any]

INT64_MAX = 2**63 - 1


def named(value: Any) -> str:
    """The type of a value in words, for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {go_text(value)}"
    if isinstance(value, str):
        return f'the string "{value[:60]}"'
    return "a mapping" if isinstance(value, dict) else "a list"


def go_text(value: Any) -> str:
    """A scalar as Go's ``%v`` writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    return "" if value is None else str(value)


def go_float(value: float) -> str:
    """The shortest digits that represent the number, with an exponent below 1e-04 and from 1e+06 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    power = int(f"{value:.17e}".partition("e")[2]) if value else 0
    digits = repr(value).lower().partition("e")[0].replace("-", "").replace(".", "").strip("0")
    if -4 <= power < 6:
        return f"{value:.{max(len(digits) - 1 - power, 0)}f}"
    mantissa, _, exponent = f"{value:.{max(len(digits) - 1, 0)}e}".partition("e")
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):02d}"


UNWRITTEN = "-"
"""The key of a member that is never written."""


class ValueKind:
    """``words`` describes valid values, for errors."""

    words = "a value"
    keep_empty = False
    """Whether an empty value is written as well (it is a pointer in Docker's model)."""

    def read(self, value: Any, at: Place, path: str) -> Any:
        raise NotImplementedError

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return value

    def refuse(self, value: Any, at: Place, path: str) -> FileError:
        return FileError(at, path, f"must be {self.words}, not {named(value)}")


class Scalar(ValueKind):
    """A scalar, converted by a function that raises ValueError with the problem."""

    def __init__(
        self, words: str, convert: Callable[[Any], Any], *, keep: bool = False, null: bool = False
    ) -> None:
        self.words, self._convert, self._null = words, convert, null
        self.keep_empty = keep

    def read(self, value: Any, at: Place, path: str) -> Any:
        if (value is None and self._null) or isinstance(value, Unresolved):
            return value
        if value is None or isinstance(value, (dict, list)):
            raise self.refuse(value, at, path)
        try:
            return self._convert(value)
        except ValueError as e:
            more = f": {e}" if str(e) else ""
            raise FileError(at, path, f"must be {self.words}, not {named(value)}{more}") from None


class Choice(ValueKind):
    def __init__(self, *choices: str) -> None:
        self.choices = choices
        self.words = "one of " + ", ".join(choices)

    def read(self, value: Any, at: Place, path: str) -> Any:
        if isinstance(value, Unresolved):
            return value
        if value not in self.choices or not isinstance(value, str):
            raise self.refuse(value, at, path)
        return value


class ListOf(ValueKind):
    """A list. ``single``: a single value is a list of one; ``unique``: duplicates are refused."""

    def __init__(
        self,
        item: ValueKind,
        *,
        single: bool = False,
        unique: bool = False,
        words: str = "",
        keep: bool = False,
    ) -> None:
        self.item, self._single, self._unique = item, single, unique
        self.words = words or ("a string or a list" if single else "a list")
        self.keep_empty = keep

    def read(self, value: Any, at: Place, path: str) -> Any:
        if self._single and not isinstance(value, (list, dict)) and value is not None:
            alone = Seq(at)
            alone.add(self.item.read(value, at, path), at)
            return alone
        if not isinstance(value, Seq):
            raise self.refuse(value, at, path)
        made = Seq(value.at)
        made.override = value.override
        for index, one in enumerate(value):
            place = value.place(index)
            if one is RESET:
                continue
            if isinstance(one, Unresolved):
                made.add(one, place)
                continue
            read = self.item.read(one, place, f"{path}[{index}]")
            if self._unique and read in made:
                raise FileError(place, f"{path}[{index}]", f"is in the list twice: {named(one)}")
            for each in read if isinstance(read, Several) else (read,):
                made.add(each, place)
        return made

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return [one if isinstance(one, Unresolved) else self.item.arrange(one, form) for one in value]


def _arranged(kind: ValueKind, value: Any, form: str) -> Any:
    return value if value is None or isinstance(value, Unresolved) else kind.arrange(value, form)


class Several(list["Any"]):
    """The items that one written item stands for, if it stands for several."""


class DictOf(ValueKind):
    """A mapping with any keys; written sorted by them."""

    words = "a mapping"

    def __init__(
        self, item: ValueKind, *, null: bool = False, key: Callable[[str], bool] | None = None
    ) -> None:
        self.item, self._null, self._key = item, null, key

    def read(self, value: Any, at: Place, path: str) -> Any:
        if value is None:
            return Map(at)
        if not isinstance(value, Map):
            raise self.refuse(value, at, path)
        made = Map(value.at)
        made.override = value.override
        for key, one in value.items():
            place = value.place(key)
            inner = f"{path}.{key}" if path else key
            if self._key is not None and not self._key(key) and not key.startswith("x-"):
                raise FileError(place, inner, "is not a valid name: letters, digits, '.', '_' and '-' only")
            if one is RESET or (one is None and self._null):
                made.put(key, one, place)
            else:
                read = one if isinstance(one, Unresolved) else self.item.read(one, place, inner)
                made.put(key, read, place)
        return made

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return {key: _arranged(self.item, value[key], form) for key in in_order(value, form)}


class Words(ValueKind):
    """``NAME: value`` or a list of ``NAME=value``, all as strings; ``unset`` is the value of a name without
    one."""

    words = "a mapping or a list of NAME=VALUE"

    def __init__(self, unset: str | None, separators: str = "=") -> None:
        self._unset, self._separators = unset, separators

    def read(self, value: Any, at: Place, path: str) -> Any:
        if not isinstance(value, (Map, Seq)):
            raise self.refuse(value, at, path)
        made = Map(value.at)
        made.override = value.override
        if isinstance(value, Map):
            for key, one in value.items():
                place = value.place(key)
                if one is RESET:
                    made.put(key, one, place)
                    continue
                if isinstance(one, (dict, list)):
                    raise FileError(
                        place, f"{path}.{key}", f"must be a string, a number or null, not {named(one)}"
                    )
                made.put(key, self._unset if one is None else go_text(one), place)
            return made
        for index, one in enumerate(value):
            place = value.place(index)
            if isinstance(one, (dict, list)) or one is None:
                raise FileError(place, f"{path}[{index}]", f"must be a string NAME=VALUE, not {named(one)}")
            name, equals, text = go_text(one).partition("=")
            made.put(name, text if equals else self._unset, place)
        return made

    def arrange(self, value: Any, form: str = JSON) -> Any:
        return {key: value[key] for key in in_order(value, form)}


class Free(ValueKind):
    """Any value, unchanged (``x-`` keys)."""

    keep_empty = True

    def read(self, value: Any, at: Place, path: str) -> Any:
        return value

    def arrange(self, value: Any, form: str = JSON) -> Any:
        if isinstance(value, dict):
            return {key: self.arrange(value[key], form) for key in in_order(value, form)}
        if isinstance(value, list):
            return [self.arrange(one, form) for one in value]
        return value


class Field:
    """A member of an :class:`Object`. In JSON ``always`` members are written even if they are not set, and
    ``written`` is the key; ``inline`` mappings are omitted from YAML if they are empty.
    """

    __slots__ = ("always", "inline", "kind", "written")

    def __init__(
        self, kind: ValueKind, *, always: bool = False, inline: bool = False, written: str = ""
    ) -> None:
        self.kind, self.always, self.inline, self.written = kind, always, inline, written


class Object(ValueKind):
    """A mapping with known keys, in the order in which they are written.

    ``short`` converts other values into a mapping; ``needs`` are the required keys; ``extras`` allows ``x-``
    keys, which are kept but are not part of the hash.
    """

    words = "a mapping"

    def __init__(
        self,
        fields: Mapping[str, Field | ValueKind],
        *,
        short: Convert | None = None,
        needs: tuple[str, ...] = (),
        extras: bool = True,
        words: str = "",
        finish: Callable[[Map, Place, str], None] | None = None,
        null: bool = False,
    ) -> None:
        self.fields = {k: f if isinstance(f, Field) else Field(f) for k, f in fields.items()}
        self._short, self._needs, self._extras, self._finish = short, needs, extras, finish
        self._null = null
        self.words = words or self.words

    def read(self, value: Any, at: Place, path: str) -> Any:
        if value is None and self._null:
            return Map(at)
        if self._short is not None and not isinstance(value, Map):
            value = self._short(value, at, path)
            if isinstance(value, Several):
                return value
        if not isinstance(value, Map):
            raise self.refuse(value, at, path)
        made = Map(value.at)
        made.override = value.override
        for key, one in value.items():
            if key not in self.fields and not (self._extras and key.startswith("x-")):
                at = value.named.get(key) or value.place(key)
                raise FileError(at, path, f"does not know the key '{key}'{self._hint(key)}")
            self._member(made, key, one, value.place(key), path)
        for key in self._needs:
            if key not in made:
                raise FileError(value.at, path, f'lacks the key "{key}"')
        if self._finish is not None:
            self._finish(made, at, path)
        return made

    def _member(self, made: Map, key: str, one: Any, place: Place, path: str) -> None:
        inner = f"{path}.{key}" if path else key
        field = self.fields.get(key)
        if one is RESET:
            made.put(key, one, place)
        elif field is not None:
            if one is None and not isinstance(field.kind, (Scalar, Choice)):
                if getattr(field.kind, "_null", False) or field.always:
                    made.put(key, field.kind.read(None, place, inner), place)
                return
            if one is None and not getattr(field.kind, "_null", False):
                raise field.kind.refuse(None, place, inner)
            read = one if isinstance(one, Unresolved) else field.kind.read(one, place_of(one, place), inner)
            made.put(key, read, place)
        else:
            made.put(key, one, place)

    def _hint(self, key: str) -> str:
        from difflib import get_close_matches

        close = get_close_matches(key[:64], list(self.fields), n=1, cutoff=0.6)
        return f"; did you mean '{close[0]}'?" if close else ""

    def arrange(self, value: Any, form: str = JSON) -> Any:
        made: dict[str, Any] = {}
        for key, field in self.fields.items():
            member = value.get(key)
            if field.written == UNWRITTEN:
                continue
            written = (field.written or key) if form == JSON else key
            if member is None:
                if field.always and form == JSON:
                    made[written] = None
                continue
            if isinstance(member, Unresolved):
                made[written] = member
                continue
            arranged = field.kind.arrange(member, form)
            if not arranged and field.inline and form == YAML:
                continue
            if arranged or field.always or field.kind.keep_empty or isinstance(field.kind, Object):
                made[written] = arranged
        if form == YAML:
            made.update((key, value[key]) for key in in_order(value, form) if key.startswith("x-"))
        return made
