"""Lists: tags of a repository, repositories, referrers of a manifest. In pages by an index, so the size does
not matter."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from wherry.hub.core import digests
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.answers import COMMON, SANDBOX, document, empty
from wherry.hub.registry.context import Ask
from wherry.hub.store import manifests, proxies, repositories, tags
from wherry.hub.store.manifests import Referrer
from wherry.hub.store.proxies import Proxy
from wherry.hub.store.sql import Tx
from wherry.model import mediatypes

PAGE_MAX = 1000
_REFERRERS = 100
_REFERRERS_BYTES = 2 << 20
"""The total size of a page's manifests, which bounds that of their annotations: clients accept an index of
4 MiB."""


def _count(ask: Ask) -> int:
    """The requested number, at most a page. :raises Refusal: ``PAGINATION_NUMBER_INVALID``"""
    text = ask.query.get("n", "")
    if not text:
        return PAGE_MAX
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid number of results: {text[:40]!r}")
    return min(int(text), PAGE_MAX)


def _next(path: str, **query: str | int) -> str:
    return f'<{path}?{urlencode(query)}>; rel="next"'


async def tag_list(ask: Ask) -> web.StreamResponse:
    """GET ``tags/list``, in byte order."""
    count, last = _count(ask), ask.query.get("last", "")

    def look(tx: Tx) -> Proxy | list[str]:
        return proxies.of(tx, ask.name) or tags.page(tx, ask.name, last, count + 1)

    found = await ask.hub.db.read(look)
    if isinstance(found, Proxy):
        all_tags = await ask.hub.proxies.tags(found, ask.name)
        found = [tag for tag in all_tags if tag > last][: count + 1]
    more = 0 < count < len(found)
    response = document({"name": ask.name, "tags": found[:count]})
    if more:
        response.headers["Link"] = _next(f"/v2/{ask.name}/tags/list", n=count, last=found[count - 1])
    return response


async def catalog(ask: Ask) -> web.StreamResponse:
    """GET ``_catalog``: the repositories that the principal may read."""
    count, last = _count(ask), ask.query.get("last", "")
    found = await ask.hub.db.scan(lambda tx: repositories.page(tx, ask.caller, last, count + 1))
    more = 0 < count < len(found)
    response = document({"repositories": found[:count]})
    if more:
        response.headers["Link"] = _next("/v2/_catalog", n=count, last=found[count - 1])
    return response


async def referrers(ask: Ask) -> web.StreamResponse:
    """GET ``referrers``: an index of the manifests with this subject; it may be empty."""
    subject, query = digests.check(ask.reference), ask.query
    wanted = query.get("artifactType", "")
    after = query.get("after", "0")
    if not (after.isascii() and after.isdigit()) or len(after) > 18:
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid place in the list: {after[:40]!r}")

    def own(tx: Tx) -> tuple[list[bytes], int]:
        repository = repositories.find(tx, ask.name)
        if repository is None:
            return [], 0
        found = manifests.referrers(tx, repository, subject, wanted, int(after), _REFERRERS + 1)
        page = _page(found)
        more = page[-1].id if len(page) < len(found) else 0
        return [_described(one, manifests.annotations_of(tx, one.id)) for one in page], more

    found = await ask.hub.db.read(lambda tx: proxies.of(tx, ask.name) or own(tx))
    if isinstance(found, Proxy):
        index = await ask.hub.proxies.referrers(found, ask.name, subject, wanted)
        if index is not None:
            return web.Response(body=index, headers={**COMMON, **SANDBOX, "Content-Type": mediatypes.INDEX})
        found = [], 0
    page, more = found
    body = b'{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' % (
        mediatypes.INDEX.encode(),
        b",".join(page),
    )
    response = web.Response(body=body, headers={**COMMON, **SANDBOX, "Content-Type": mediatypes.INDEX})
    if wanted:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    if more:
        path = f"/v2/{ask.name}/referrers/{quote(subject, safe=':')}"
        filters = {"artifactType": wanted} if wanted else {}
        response.headers["Link"] = _next(path, **filters, after=more)
    return response


def _page(found: list[Referrer]) -> list[Referrer]:
    """The first of them that fit on a page, and at least one."""
    page: list[Referrer] = []
    size = 0
    for one in found[:_REFERRERS]:
        size += one.size
        if page and size > _REFERRERS_BYTES:
            break
        page.append(one)
    return page


def _described(one: Referrer, annotations: str) -> bytes:
    """The descriptor as JSON. The annotations are stored as JSON, and are not decoded again."""
    descriptor: dict[str, Any] = {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
    if one.artifact_type:
        descriptor["artifactType"] = one.artifact_type
    text = json.dumps(descriptor, separators=(",", ":"))
    return f'{text[:-1]},"annotations":{annotations}}}'.encode() if annotations else text.encode()


async def base(ask: Ask) -> web.StreamResponse:
    """GET ``/v2/``: this is a registry."""
    return document({}) if ask.request.method == "GET" else empty(200)
