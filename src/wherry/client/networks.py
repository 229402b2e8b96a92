"""``/networks``."""

from __future__ import annotations

from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]


def listing(api: Api, given: Mapping[str, Iterable[str]] | None = None) -> list[Object]:
    return api.json("GET", "/networks", query={"filters": filters(given or {})}) or []


def inspect(api: Api, name: str, *, verbose: bool = False, scope: str = "") -> Object:
    query = {"verbose": verbose, "scope": scope or None}
    answer: Object = api.json("GET", f"/networks/{quote(name)}", query=query)
    return answer


def prune(api: Api, given: Mapping[str, Iterable[str]]) -> Object:
    answer: Object = api.json("POST", "/networks/prune", query={"filters": filters(given)})
    return answer


def create(api: Api, body: Object) -> Object:
    answer: Object = api.json("POST", "/networks/create", body=body)
    return answer


def remove(api: Api, name: str) -> None:
    api.json("DELETE", f"/networks/{quote(name)}")


def connect(api: Api, name: str, container: str, endpoint: Object) -> None:
    body = {"Container": container, "EndpointConfig": endpoint}
    api.json("POST", f"/networks/{quote(name)}/connect", body=body)


def disconnect(api: Api, name: str, container: str, *, force: bool = False) -> None:
    body = {"Container": container, "Force": force}
    api.json("POST", f"/networks/{quote(name)}/disconnect", body=body)
