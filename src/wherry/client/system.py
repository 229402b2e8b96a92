"""``/version``, ``/info``, ``/events``, ``/system/df``: the daemon as a whole."""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters, quote
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api
    from wherry.client.http import Response

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
    """Disk usage below the daemon's root, by kind (an addition); empty if the daemon does not support it."""
    try:
        answer: Object = api.json("GET", "/system/disk")
    except NotFound:
        return {}
    return answer


def fsck(api: Api, *, repair: bool) -> Iterator[Object]:
    """Findings as they are found, and a line with their number (an addition of this engine)."""
    return jsonwire.messages(api.request("POST", "/system/fsck", query={"repair": repair}))


def backup(api: Api, *, images: str, volumes: bool, secrets: bool, freeze: bool) -> Response:
    """Everything the daemon has, as one archive stream (an addition of this engine)."""
    query = {"images": images, "volumes": str(int(volumes)), "secrets": str(int(secrets))}
    query["freeze"] = str(int(freeze))
    return api.request("GET", "/system/backup", query=query)


def lost(api: Api) -> list[Object]:
    """The data that the daemon set aside because it had no row (an addition of this engine)."""
    found: list[Object] = api.json("GET", "/system/lost")["Lost"]
    return found


def restore_lost(api: Api, identifier: str, name: str) -> str:
    """Make a volume of it; the volume's name."""
    query = {"name": name or None}
    return str(api.json("POST", f"/system/lost/{quote(identifier)}/restore", query=query)["Volume"])


def remove_lost(api: Api, identifier: str) -> None:
    api.call("DELETE", f"/system/lost/{quote(identifier)}")


def events(
    api: Api, *, since: str = "", until: str = "", given: Mapping[str, Iterable[str]] | None = None
) -> Iterator[Object]:
    """Events as they happen; ends at ``until``, or when the daemon goes away."""
    query = {"since": since or None, "until": until or None, "filters": filters(given or {})}
    return jsonwire.messages(api.request("GET", "/events", query=query))
