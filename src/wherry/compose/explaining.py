"""Where each value of a service comes from."""

from __future__ import annotations

from wherry.compose.kinds import go_text
from wherry.compose.places import Map, Place, Seq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def lines(service: Map) -> Iterator[tuple[str, str, str]]:
    """Each value with its path and its place in a file; "default" if it is in no file.

    The service is in its long form, so one line of a file may be the place of several values.
    """
    yield from _below(service, "", service.at)


def _below(value: Any, path: str, at: Place) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, Map) and value:
        for key in sorted(value):
            own = value.places.get(key)
            yield from _below(value[key], f"{path}.{key}" if path else key, own or Place(""))
    elif isinstance(value, Seq) and value:
        for index, one in enumerate(value):
            yield from _below(one, f"{path}[{index}]", value.place(index))
    elif isinstance(value, (Map, Seq)):
        yield path, "{}" if isinstance(value, Map) else "[]", str(at) or "default"
    else:
        yield path, "null" if value is None else go_text(value), str(at) or "default"
