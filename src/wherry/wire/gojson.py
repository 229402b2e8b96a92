"""Decode clients' bodies as Go's ``encoding/json`` does, because clients are written for that.

- Members' names match in any case (``{"image": …}``), at every depth; if a member appears twice, the last one
  counts.
- ``null`` leaves a field as it is; as an element of a list or a value of a map it is the zero value.
- Unknown members are ignored; invalid UTF-8 becomes U+FFFD.
- Errors have Go's words, because clients and scripts match them: ``json: cannot unmarshal string into Go
  struct field X.Y of type int64``.

A correct body is decoded by msgspec and checked in one pass; only a body with an error is decoded again,
slowly, to find the message.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from wherry.errors import InvalidArgument
from wherry.model import typed
from wherry.wire import gonames, goscan

T = TypeVar("T")
Convert = Callable[[Any], Any]
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_lock = threading.RLock()
_known: dict[Any, Convert] = {}


class _Number(str):
    """A number as it was written, for the error message."""

    __slots__ = ()


class _Mismatch(Exception):
    """A value of the wrong type. ``path`` are the fields that lead to it, outermost first."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(found, wanted)
        self.found, self.wanted = found, wanted
        self.struct = ""
        self.path: list[str] = []

    def __str__(self) -> str:
        where = f"Go struct field {self.struct}.{'.'.join(self.path)}" if self.struct else "Go value"
        return f"json: cannot unmarshal {self.found} into {where} of type {self.wanted}"


def decode(body: bytes, kind: type[T]) -> T:
    """The first JSON value of ``body``, as Docker reads a request's body.

    :raises InvalidArgument: malformed, or more than one value; in Docker's words.
    """
    try:
        return _decode(body, kind)
    except goscan.EndOfInput as e:
        if e.empty:
            raise InvalidArgument("invalid JSON: got EOF while reading request body") from e
        raise InvalidArgument(f"invalid JSON: {e}") from e
    except (goscan.NotJson, _Mismatch) as e:
        raise InvalidArgument(f"invalid JSON: {e}") from e


def unmarshal(text: str | bytes, kind: type[T], what: str) -> T:
    """Decode a text that must be exactly one JSON value, such as a query parameter.

    :param what: what precedes Go's words in the error, such as ``error reading labels``.
    :raises InvalidArgument: it is not JSON, or has the wrong type.
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    try:
        return _decode(data, kind, whole=True)
    except goscan.EndOfInput as e:
        raise InvalidArgument(f"{what}: unexpected end of JSON input") from e
    except (goscan.NotJson, _Mismatch) as e:
        raise InvalidArgument(f"{what}: {e}") from e


def _decode(body: bytes, kind: type[T], *, whole: bool = False) -> T:
    convert = _known.get(kind) or _learn(kind)
    try:
        plain = convert(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Mismatch):
        plain = convert(_with_care(body, whole=whole))
    try:
        return typed.from_builtins(plain, kind)
    except msgspec.ValidationError as e:
        raise InvalidArgument(f"invalid JSON: {e}") from e


def _with_care(body: bytes, *, whole: bool) -> Any:
    end = goscan.end_of_value(body)
    text = body.decode("latin-1")
    rest = text[goscan.skip_space(text, end) :]
    if rest and whole:
        raise goscan.unexpected(rest[0], "after top-level value")
    if rest and rest[0] not in "]}":
        raise InvalidArgument("unexpected content after JSON")
    try:
        return json.loads(
            body[:end].decode("utf-8", "replace"), parse_int=_Number, parse_float=_Number, strict=False
        )
    except RecursionError as e:
        raise goscan.NotJson("exceeded max depth") from e


# ---- what a type takes -----------------------------------------------------------------------------------


def _learn(kind: Any) -> Convert:
    with _lock:
        convert = _known.get(kind)
        if convert is None:
            convert = _known[kind] = _converter(inspect.type_info(kind), "")
        return convert


def _converter(info: inspect.Type, name: str) -> Convert:
    """:param name: what Go calls the type, where that does not follow from the type itself."""
    if isinstance(info, inspect.UnionType):
        return _union(info, name)
    if isinstance(info, inspect.StructType):
        return _struct(info)
    if isinstance(info, (inspect.ListType, inspect.VarTupleType)):
        return _list(info, name)
    if isinstance(info, inspect.TupleType):
        return _pair(info, name)
    if isinstance(info, inspect.DictType):
        return _map(info, name)
    if isinstance(info, inspect.IntType):
        return _integer(name or "int64")
    if isinstance(info, inspect.StrType):
        return _string(name or "string")
    if isinstance(info, inspect.BoolType):
        return _boolean
    if isinstance(info, inspect.AnyType):
        return _anything
    raise TypeError(f"no rule for {info}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (_Number, int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _string(name: str) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is str:
            return value if value.isascii() else _clean(value)
        if value is None:
            return ""
        raise _Mismatch(_kind(value), name)

    return convert


def _boolean(value: Any) -> Any:
    if value is True or value is False:
        return value
    if value is None:
        return False
    raise _Mismatch(_kind(value), "bool")


def _integer(name: str) -> Convert:
    low, high = gonames.RANGES[name]

    def convert(value: Any) -> Any:
        if type(value) is int and low <= value <= high:
            return value
        if value is None:
            return 0
        if isinstance(value, _Number) and _INTEGER.fullmatch(value) and len(value) < 25:
            number = int(value)
            if low <= number <= high:
                return number
        found = _kind(value)
        raise _Mismatch(f"number {value}" if found == "number" else found, name)

    return convert


def _anything(value: Any) -> Any:
    if isinstance(value, _Number):
        return int(value) if _INTEGER.fullmatch(value) and len(value) < 25 else float(value)
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_anything(one) for one in value]
    if isinstance(value, dict):
        return {_clean(key): _anything(one) for key, one in value.items()}
    return value


def _list(info: inspect.ListType | inspect.VarTupleType, name: str) -> Convert:
    element = _converter(info.item_type, "")
    shown = name or _go_name(info)

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [element(one) for one in value]
        if value is None:
            return []
        raise _Mismatch(_kind(value), shown)

    return convert


def _pair(info: inspect.TupleType, name: str) -> Convert:
    """An array of a fixed length: extra elements are dropped, missing ones are zero."""
    shown = name or _go_name(info)
    element = _integer("uint")
    size = len(info.item_types)

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [element(one) for one in (*value, *([None] * size))[:size]]
        raise _Mismatch(_kind(value), shown)

    return convert


def _map(info: inspect.DictType, name: str) -> Convert:
    element = _converter(info.value_type, "")
    shown = name or _go_name(info)
    nulls = isinstance(info.value_type, inspect.UnionType)

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                _clean(key): None if nulls and one is None else element(one) for key, one in value.items()
            }
        if value is None:
            return {}
        raise _Mismatch(_kind(value), shown)

    return convert


def _union(info: inspect.UnionType, name: str) -> Convert:
    """``X | None``, or a list of strings that may be a single one ("strslice")."""
    kinds = [one for one in info.types if not isinstance(one, inspect.NoneType)]
    if len(kinds) == 1:
        return _converter(kinds[0], name)
    lists = [one for one in kinds if isinstance(one, (inspect.ListType, inspect.DictType))]
    many = [_converter(one, "") for one in lists]
    one_string = _string("string") if any(isinstance(one, inspect.StrType) for one in kinds) else None

    def convert(value: Any) -> Any:
        for each in many:
            try:
                return each(value)
            except _Mismatch:
                continue
        if one_string is not None:
            return one_string(value)
        raise _Mismatch(_kind(value), _go_name(kinds[0]))

    return convert


def _struct(info: inspect.StructType) -> Convert:
    kind = info.cls
    known = _known.get(("struct", kind))
    if known is not None:
        return known
    fields: dict[str, tuple[str, Convert, list[str]]] = {}
    for field in info.fields:
        owner = next(c for c in kind.__mro__ if field.name in getattr(c, "__annotations__", ()))
        convert = _converter(field.type, gonames.of_field(owner, field.name))
        embedded = [] if owner is kind else [gonames.of_struct(owner).rpartition(".")[2]]
        fields[field.encode_name] = (field.encode_name, convert, [*embedded, field.encode_name])
    folded = {name.lower(): found for name, found in fields.items()}
    full = gonames.of_struct(kind)
    short = full.rpartition(".")[2]

    def convert_struct(value: Any) -> Any:
        if not isinstance(value, dict):
            if value is None:
                return {}
            raise _Mismatch(_kind(value), full)
        out: dict[str, Any] = {}
        for key, member in value.items():
            found = fields.get(key) or folded.get(key.lower().replace("\u017f", "s"))
            if found is None or member is None:
                continue
            name, convert, path = found
            try:
                made = convert(member)
            except _Mismatch as e:
                e.struct = e.struct or short
                e.path[:0] = path
                raise
            before = out.get(name)
            # the same member again, in another case: Go decodes both into one value
            out[name] = {**before, **made} if isinstance(before, dict) and isinstance(made, dict) else made
        return out

    _known["struct", kind] = convert_struct
    return convert_struct


def _go_name(info: inspect.Type) -> str:
    if isinstance(info, inspect.UnionType):
        return _go_name(next(one for one in info.types if not isinstance(one, inspect.NoneType)))
    if isinstance(info, (inspect.ListType, inspect.VarTupleType)):
        return f"[]{_go_name(info.item_type)}"
    if isinstance(info, inspect.TupleType):
        return f"[{len(info.item_types)}]uint"
    if isinstance(info, inspect.DictType):
        is_set = isinstance(info.value_type, inspect.DictType)
        return f"map[string]{'struct {}' if is_set else _go_name(info.value_type)}"
    if isinstance(info, inspect.StructType):
        return gonames.of_struct(info.cls)
    names: dict[type, str] = {
        inspect.IntType: "int64",
        inspect.StrType: "string",
        inspect.BoolType: "bool",
    }
    return names.get(type(info), "interface {}")
