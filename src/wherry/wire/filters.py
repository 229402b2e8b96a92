"""The ``filters`` query parameter: a JSON map of names to values (API, all list endpoints)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from wherry.errors import InvalidArgument
from wherry.model import typed

Filters = Mapping[str, list[str]]


def parse(text: str | None, allowed: Collection[str]) -> dict[str, list[str]]:
    """Decode ``{"name": ["a"]}`` or the older ``{"name": {"a": true}}``.

    :raises InvalidArgument: malformed, or a filter this endpoint does not have; Docker's words.
    """
    if not text:
        return {}
    try:
        raw = typed.from_json(text, dict[str, list[str] | dict[str, bool] | None])
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise InvalidArgument(f"invalid filters: {e}") from e
    out: dict[str, list[str]] = {}
    for name, values in raw.items():
        if name not in allowed:
            raise InvalidArgument(f"invalid filter '{name}'")
        if isinstance(values, dict):
            values = [value for value, on in values.items() if on]
        if values:
            out[name] = values
    return out


def boolean(filters: Filters, name: str) -> bool | None:
    """A filter whose values are truth values. :raises InvalidArgument: something else, or both."""
    if name not in filters:
        return None
    found = set()
    for value in filters[name]:
        lowered = value.lower()
        if lowered in ("1", "t", "true"):
            found.add(True)
        elif lowered in ("0", "f", "false"):
            found.add(False)
        else:
            raise InvalidArgument(f"invalid filter '{name}={value}'")
    if len(found) != 1:
        raise InvalidArgument(f"invalid filter '{name}={filters[name]}'")
    return found.pop()


def labels_match(wanted: Collection[str], labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` have every ``key`` or ``key=value`` that is wanted."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def label_filters_match(filters: Filters, labels: Mapping[str, str]) -> bool:
    """``label`` and ``label!`` together."""
    if not labels_match(filters.get("label", ()), labels):
        return False
    return not any(labels_match([item], labels) for item in filters.get("label!", ()))
