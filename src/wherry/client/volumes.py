"""``/volumes``."""

from __future__ import annotations

from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.client.api import Api

    Filters = Mapping[str, Iterable[str]]
    Object = dict[str, Any]


def listing(api: Api, given: Filters | None = None) -> Object:
    """Answers ``{"Volumes": […], "Warnings": […]}``."""
    answer: Object = api.json("GET", "/volumes", query={"filters": filters(given or {})})
    return answer


def create(api: Api, body: Object) -> Object:
    answer: Object = api.json("POST", "/volumes/create", body=body)
    return answer


def inspect(api: Api, name: str) -> Object:
    answer: Object = api.json("GET", f"/volumes/{quote(name)}")
    return answer


def rename(api: Api, name: str, new: str) -> Object:
    answer: Object = api.json("POST", f"/volumes/{quote(name)}/rename", query={"name": new})
    return answer


def remove(api: Api, name: str, *, force: bool = False) -> None:
    api.call("DELETE", f"/volumes/{quote(name)}", query={"force": force})


def prune(api: Api, given: Filters) -> Object:
    answer: Object = api.json("POST", "/volumes/prune", query={"filters": filters(given)})
    return answer
