"""``/secrets``."""

from __future__ import annotations

from wherry.client.api import filters, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]


def listing(api: Api, given: Mapping[str, Iterable[str]] | None = None) -> list[Object]:
    return api.json("GET", "/secrets", query={"filters": filters(given or {})}) or []


def create(api: Api, name: str, value: bytes, labels: Mapping[str, str]) -> str:
    """:returns: its id."""
    from binascii import b2a_base64

    data = b2a_base64(value, newline=False).decode()
    answer = api.json("POST", "/secrets/create", body={"Name": name, "Labels": dict(labels), "Data": data})
    return str(answer["ID"])


def inspect(api: Api, name: str) -> Object:
    answer: Object = api.json("GET", f"/secrets/{quote(name)}")
    return answer


def remove(api: Api, name: str) -> None:
    api.call("DELETE", f"/secrets/{quote(name)}")
