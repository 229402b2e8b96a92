"""Lists of tags at the paths of Docker Hub's API v2. Tools that look for updates use them:

/v2/repositories/<namespace>/<name>/tags[/<tag>]
/v2/namespaces/<namespace>/repositories/<name>/tags[/<tag>]
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web

from wherry.hub.core import names
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.answers import document
from wherry.hub.registry.bodies import number
from wherry.hub.registry.context import Ask
from wherry.hub.store import tags
from wherry.hub.store.sql import Tx
from wherry.hub.store.tags import Shown

_PATH = re.compile(
    r"/v2/(?:repositories/(?P<old>[^/]+/[^/]+)|namespaces/(?P<space>[^/]+)/repositories/(?P<name>[^/]+))"
    r"/tags(?:/(?P<tag>[^/]*))?/?"
)
_PAGE, _PAGE_MAX = 10, 100
_PLACES_MAX = 100_000


def place(path: str) -> tuple[str, str] | None:
    """The repository and the tag (empty: all tags) of such a path; None for another path."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    return found["old"] or f"{found['space']}/{found['name']}", found["tag"] or ""


async def handle(ask: Ask) -> web.StreamResponse:
    """GET with ``page``, ``page_size`` (at most 100), ``name`` (a substring) and ``ordering``
    (``last_updated``, ``-last_updated``, ``name``, ``-name``)."""
    if ask.reference:
        tag = names.check_tag(ask.reference)
        one = await ask.hub.db.read(lambda tx: tags.shown(tx, ask.name, tag))
        if one is None:
            raise Refusal("MANIFEST_UNKNOWN", "tag unknown", detail={"tag": tag})
        return document(_described(one))
    size, page = (
        number(ask.request, "page_size", _PAGE, _PAGE_MAX),
        number(ask.request, "page", 1, _PLACES_MAX),
    )
    part, order = ask.query.get("name", "")[:128], ask.query.get("ordering", "last_updated")
    if order.lstrip("-") not in ("last_updated", "name"):
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid ordering: {order[:40]!r}")

    def look(tx: Tx) -> tuple[int, list[Shown]]:
        return tags.shown_page(tx, ask.name, part, order, size, (page - 1) * size)

    count, found = await ask.hub.db.scan(look)
    base = ask.hub.url or ask.hub.trusted.base(ask.request)

    def link(number: int) -> str:
        named = f"&name={quote(part)}" if part else ""
        return f"{base}{ask.request.path}?page={number}&page_size={size}{named}&ordering={order}"

    return document(
        {
            "count": count,
            "next": link(page + 1) if page * size < count else None,
            "previous": link(page - 1) if page > 1 else None,
            "results": [_described(one) for one in found],
        }
    )


def _described(one: Shown) -> dict[str, Any]:
    pushed = _time(one.updated)
    return {
        "id": one.id, "name": one.name, "digest": one.digest, "media_type": one.media_type,
        "content_type": "image", "full_size": one.size, "last_updated": pushed, "tag_last_pushed": pushed,
        "tag_last_pulled": _time(one.pulled) if one.pulled is not None else None, "tag_status": "active",
        "last_updater_username": one.updater, "v2": True,
        "images": [
            {
                "architecture": image.architecture, "os": image.os, "variant": image.variant or None,
                "digest": image.digest, "size": image.size, "status": "active",
            }
            for image in one.images
        ],
    }  # fmt: skip


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
