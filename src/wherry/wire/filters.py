"""The ``filters`` query parameter: a JSON map of names to values (API, all list endpoints)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wherry.errors import InvalidArgument
from wherry.wire.gojson import unmarshal
from wherry.wire.times import parse_timestamp

_Raw = dict[str, list[str] | dict[str, bool] | None]
Filters = Mapping[str, list[str]]


def parse(text: str | None, allowed: Collection[str] | None) -> dict[str, list[str]]:
    """Decode ``{"name": ["a"]}`` or the older ``{"name": {"a": true}}``.

    :param allowed: None: every name, which then may mean nothing.

    :raises InvalidArgument: malformed, or a filter this endpoint does not have; Docker's words.
    """
    if not text:
        return {}
    try:
        raw = unmarshal(text, _Raw, "invalid filter")
    except InvalidArgument as e:
        raise InvalidArgument("invalid filter") from e  # Docker's message has no more details
    out: dict[str, list[str]] = {}
    for name, values in raw.items():
        if allowed is not None and name not in allowed:
            raise InvalidArgument(f"invalid filter '{name}'")
        if isinstance(values, dict):
            values = [value for value, on in values.items() if on]
        values = values or []
        if values:
            out[name] = values
    return out


def boolean(filters: Filters, name: str) -> bool | None:
    """A filter with boolean values. :raises InvalidArgument: a value that is not a boolean,
    or both values."""
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
            raise _no_boolean(filters, name)
    if len(found) != 1:
        raise _no_boolean(filters, name)
    return found.pop()


def _no_boolean(filters: Filters, name: str) -> InvalidArgument:
    return InvalidArgument(f"invalid filter '{name}=[{' '.join(filters[name])}]'")


def until(filters: Filters) -> int | None:
    """The one moment before which a prune removes, in ns since the epoch.

    :raises InvalidArgument: no moment, or several.
    """
    given = filters.get("until", [])
    if len(given) > 1:
        raise InvalidArgument("more than one until filter specified")
    return parse_timestamp(given[0]) if given else None


def labels_match(wanted: Collection[str], labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` contain every wanted ``key`` or ``key=value``."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def label_filters_match(filters: Filters, labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` match the filters ``label`` and ``label!``."""
    if not labels_match(filters.get("label", ()), labels):
        return False
    return not any(labels_match([item], labels) for item in filters.get("label!", ()))
