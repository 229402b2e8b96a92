"""``/version``, ``/info``, ``/events``, ``/system/df``: the daemon as a whole."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]


def version(api: Api) -> Object:
    answer: Object = api.json("GET", "/version")
    return answer


def info(api: Api) -> Object:
    answer: Object = api.json("GET", "/info")
    return answer


def disk_usage(api: Api, *, verbose: bool = False) -> Object:
    """Sizes in bytes; ``verbose`` asks for the list of items too (API 1.52 and later split the two)."""
    answer: Object = api.json("GET", "/system/df", query={"verbose": verbose})
    return answer


def on_disk(api: Api) -> Object:
    """What is below the daemon's root, by kind (an addition); empty for a daemon that does not say."""
    try:
        answer: Object = api.json("GET", "/system/disk")
    except NotFound:
        return {}
    return answer


def fsck(api: Api, *, repair: bool) -> Iterator[Object]:
    """Findings as they are made, and a line with their number (an addition of this engine)."""
    return jsonwire.messages(api.request("POST", "/system/fsck", query={"repair": repair}))


def events(
    api: Api, *, since: str = "", until: str = "", given: Mapping[str, Iterable[str]] | None = None
) -> Iterator[Object]:
    """Events as they happen; ends at ``until``, or when the daemon goes away."""
    query = {"since": since or None, "until": until or None, "filters": filters(given or {})}
    return jsonwire.messages(api.request("GET", "/events", query=query))
