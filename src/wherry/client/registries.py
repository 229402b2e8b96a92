"""Requests about registries, which the daemon carries out: push, login, search, inspection, copies.

``headers`` are those of :mod:`wherry.client.credentials`.
"""

from __future__ import annotations

from wherry.client import jsonwire
from wherry.client.api import filters, quote
from wherry.client.images import path, platform_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from wherry.client.api import Api

    Object = dict[str, Any]
    Headers = Mapping[str, str]


def push(api: Api, repository: str, tag: str, *, platform: str = "", headers: Headers) -> Iterator[Object]:
    """Send an image, or every tag of a repository; a progress stream."""
    # The API requires the header, even without credentials.
    sent = {"X-Registry-Auth": "e30=", **headers}
    query = {"tag": tag or None, "platform": platform_json(platform)}
    return jsonwire.messages(api.request("POST", path(repository, "push"), query=query, headers=sent))


def login(api: Api, auth: Object) -> Object:
    """Let the daemon check credentials; answers ``Status`` and ``IdentityToken``."""
    answer: Object = api.json("POST", "/auth", body=auth)
    return answer


def search(
    api: Api, term: str, *, limit: int = 0, given: Mapping[str, Iterable[str]], headers: Headers
) -> list[Object]:
    query = {"term": term, "limit": limit or None, "filters": filters(given)}
    return _json(api, "GET", "/images/search", query, headers) or []


def inspect(api: Api, name: str, *, raw: bool = False, headers: Headers) -> Object:
    """``Descriptor`` and ``Platforms`` of a name at its registry; ``Document`` in base64 with ``raw``."""
    answer: Object = _json(api, "GET", _path(name, "json"), {"raw": raw}, headers)
    return answer


def tags(api: Api, name: str, *, headers: Headers) -> list[str]:
    answer: Object = _json(api, "GET", _path(name, "tags"), {}, headers)
    return answer.get("Tags") or []


def put_manifest(api: Api, name: str, media_type: str, data: bytes, *, headers: Headers) -> Object:
    """Put a manifest or an index under a name."""
    sent = {"Content-Type": "application/json", **headers}
    response = api.request(
        "PUT", _path(name, "manifest"), query={"mediaType": media_type}, data=data, headers=sent
    )
    answer: Object = jsonwire.loads(response.read_all())
    return answer


def put_blob(api: Api, name: str, media_type: str, data: bytes, *, headers: Headers) -> Object:
    """Put a small blob into a repository; answers its descriptor, as a manifest names it."""
    sent = {"Content-Type": "application/octet-stream", **headers}
    response = api.request(
        "PUT", _path(name, "blob"), query={"mediaType": media_type}, data=data, headers=sent
    )
    answer: Object = jsonwire.loads(response.read_all())["Descriptor"]
    return answer


def blob(api: Api, name: str, digest: str, size: int, *, headers: Headers) -> bytes:
    return api.request(
        "GET", _path(name, "blob"), query={"digest": digest, "size": size}, headers=headers
    ).read_all()


def copy(api: Api, source: str, target: str, *, headers: Headers) -> Iterator[Object]:
    """Let the daemon copy an image between registries; a progress stream."""
    query = {"from": source, "to": target}
    return jsonwire.messages(api.request("POST", "/distribution/copy", query=query, headers=headers))


def _path(name: str, action: str) -> str:
    return f"/distribution/{quote(name, keep='/:@')}/{action}"


def _json(api: Api, method: str, target: str, query: Mapping[str, Any], headers: Headers) -> Any:
    raw = api.request(method, target, query=query, headers=headers).read_all()
    return jsonwire.loads(raw) if raw.strip() else None
