"""The shape all nouns share: frozen structs whose JSON names are the Engine API's.

``null`` handling: Go clients send ``null`` for any empty value, so :func:`decode` drops nulls before it
converts; a field with its default value means "not set". Unknown fields are ignored, as Docker does.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from wherry.errors import InvalidArgument
from wherry.model import typed

T = TypeVar("T")


class Value(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An immutable value with PascalCase JSON names (``cap_add`` is ``CapAdd``)."""


_INTEGERS = range(-(1 << 63), 1 << 63)


def without_nulls(value: Any) -> Any:
    """Return ``value`` with every null member of every object left out.

    :raises InvalidArgument: a number beyond 64 bits, which no field can have.
    """
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value]
    if isinstance(value, int) and value not in _INTEGERS:
        raise InvalidArgument(f"invalid JSON: number {str(value)[:40]} does not fit 64 bits")
    return value


def decode(body: bytes | str, kind: type[T]) -> T:
    """Decode JSON into ``kind``.

    :raises InvalidArgument: malformed JSON, or a value of the wrong type; the text names the place.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidArgument(f"invalid JSON: {e}") from e
    return convert(raw, kind)


def convert(raw: Any, kind: type[T]) -> T:
    """Convert decoded JSON into ``kind``, dropping nulls.

    :raises InvalidArgument: a value of the wrong type; the text names the place.
    """
    try:
        return typed.from_builtins(without_nulls(raw), kind)
    except msgspec.ValidationError as e:
        raise InvalidArgument(f"invalid JSON: {e}") from e
    except RecursionError as e:
        raise InvalidArgument("invalid JSON: nested too deeply") from e


def encode(value: Any) -> bytes:
    """Encode a value as compact JSON."""
    return msgspec.json.encode(value)


def to_builtins(value: Any) -> Any:
    """Turn structs into dicts with their JSON names."""
    return msgspec.to_builtins(value)
