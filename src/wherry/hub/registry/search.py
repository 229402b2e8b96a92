"""``/v1/search`` for ``docker search``, among the repositories that the principal may read."""

from __future__ import annotations

from aiohttp import web

from wherry.hub.core.refusals import Refusal
from wherry.hub.registry import access
from wherry.hub.registry.answers import document
from wherry.hub.registry.bodies import number
from wherry.hub.registry.context import Hub
from wherry.hub.store import cards
from wherry.hub.store.cards import Search

_PAGE_MAX = 100


async def handle(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """GET with ``q``, ``n`` (a page, at most 100) and ``page`` (from 1)."""
    if request.method != "GET":
        raise Refusal("UNSUPPORTED", "method not allowed", headers={"Allow": "GET"})
    caller = await access.caller_of(hub, request)
    words = request.query.get("q", "")[:200].lower().split()[:8]
    size, page = (
        number(request, "n", 25, _PAGE_MAX), number(request, "page", 1, 100),
    )  # fmt: skip
    asked = Search(words=tuple(words))
    found = await hub.db.scan(lambda tx: cards.find(tx, caller, asked, size + 1, (page - 1) * size))
    results = [
        {
            "name": one.name, "description": one.description, "star_count": one.stars,
            "pull_count": one.pulls,
            "is_official": one.official, "is_automated": False,
        }
        for one in found[:size]
    ]  # fmt: skip
    return document(
        {
            "query": " ".join(words), "page": page, "page_size": size, "num_results": len(results),
            "num_pages": page + (len(found) > size), "results": results,
        }
    )  # fmt: skip
