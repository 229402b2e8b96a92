"""Atom feeds (RFC 4287) and badges as SVG. Both are only for what the caller can read: a feed reader without
a log-in gets what is public."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from wherry.hub.core import rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import cards, events, repositories, tags
from wherry.hub.store.events import EventFilter, HubEvent
from wherry.hub.store.sql import Tx
from wherry.hub.web.asking import look
from wherry.hub.web.plots import short
from wherry.hub.web.templatetags.hub import size
from wherry.hub.web.views.front import asked, public

_ENTRIES = 50
_SHOWN = {
    "manifest.push": "pushed", "manifest.delete": "deleted an image of", "tag.delete": "deleted a tag of",
    "tag.revert": "reverted a tag of", "repository.create": "created", "repository.rename": "renamed",
    "repository.archive": "archived", "repository.delete": "deleted", "tag.copy": "tagged",
}  # fmt: skip


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(text: str) -> str:
    """Without the characters that XML 1.0 does not have."""
    return escape("".join(c for c in text if c.isprintable()))


def _feed(
    request: HttpRequest, title: str, path: str, entries: Iterable[tuple[str, int, str, str]]
) -> HttpResponse:
    """:param entries: the id, the time, the title and the path of each."""
    base = request.build_absolute_uri("/").rstrip("/")
    lines = list(entries)
    newest = max((at for _, at, _, _ in lines), default=0)
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">',
        f"<title>{_plain(title)}</title><id>{escape(base + path)}</id><updated>{_moment(newest)}</updated>",
        f'<link rel="self" href={quoteattr(request.build_absolute_uri())}/>',
        f"<link href={quoteattr(base + path)}/><author><name>{_plain(request.get_host())}</name></author>",
    ]
    for key, at, words, place in lines:
        parts.append(
            f"<entry><id>{escape(f'{base}/{key}')}</id><title>{_plain(words)}</title>"
            f"<updated>{_moment(at)}</updated><link href={quoteattr(base + place)}/></entry>"
        )
    response = HttpResponse(
        "".join([*parts, "</feed>\n"]), content_type="application/atom+xml; charset=utf-8"
    )
    return public(response, request)


def _entry(one: HubEvent) -> tuple[str, int, str, str]:
    detail = json.loads(one.detail) if one.detail else {}
    marks = detail.get("tags") or ([detail["reference"]] if detail.get("reference") else [])
    words = f"{one.actor or 'somebody'} {_SHOWN[one.action]} {one.repository}"
    if marks:
        words += f" ({', '.join(str(mark) for mark in marks[:10])})"
    return f"event/{one.id}", one.at, words, f"/r/{one.repository}"


@require_safe
def repository(request: HttpRequest, name: str) -> HttpResponse:
    def find(tx: Tx, caller: HubCaller) -> list[HubEvent]:
        who.readable(tx, caller, name)
        return events.page(tx, EventFilter(repository=name), count=_ENTRIES)

    lines = [_entry(one) for one in look(request, find) if one.action in _SHOWN]
    return _feed(request, name, f"/r/{name}", lines)


@require_safe
def namespace(request: HttpRequest, name: str) -> HttpResponse:
    def find(tx: Tx, caller: HubCaller) -> list[HubEvent]:
        who.namespace(tx, caller, name)
        seen: dict[str, bool] = {}

        def visible(repository: str) -> bool:
            if repository not in seen:
                seen[repository] = rights.PULL in repositories.allowed(tx, caller.principal, repository) and (
                    repositories.find(tx, repository) is not None
                )
            return seen[repository]

        found = events.page(tx, EventFilter(namespace=name), count=_ENTRIES * 4)
        return [one for one in found if one.action in _SHOWN and one.repository and visible(one.repository)]

    return _feed(request, name, f"/n/{name}", [_entry(one) for one in look(request, find)[:_ENTRIES]])


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """The same search as the page's, newest first."""
    from dataclasses import replace

    wanted = replace(asked(request), sort="updated")
    found = look(request, lambda tx, caller: cards.find(tx, caller.principal, wanted, _ENTRIES))
    lines = [
        (f"r/{one.name}@{one.pushed}", one.pushed or 0, f"{one.name}: {one.description}", f"/r/{one.name}")
        for one in found
    ]
    return _feed(
        request, f"Search: {' '.join(wanted.words)}", f"/search?{request.META['QUERY_STRING']}", lines
    )


@require_safe
def badge(request: HttpRequest, name: str, kind: str) -> HttpResponse:
    """``pulls``, ``stars``, ``size`` or ``version`` (the newest tag that is not ``latest``)."""

    def find(tx: Tx, caller: HubCaller) -> tuple[str, str]:
        found = who.readable(tx, caller, name)
        if kind == "pulls":
            return "pulls", short(found.pulls)
        if kind == "stars":
            return "stars", short(found.stars)
        _, newest = tags.shown_page(tx, name, "", "last_updated", 20, 0)
        named = [one for one in newest if not one.name.startswith("sha256-")]
        if kind == "size":
            return "size", size(min((image.size for image in named[0].images), default=0)) if named else "-"
        if kind == "version":
            return "version", next((one.name for one in named if one.name != "latest"), "latest")
        raise Refusal("NAME_UNKNOWN", "no such badge")

    label, value = look(request, find)
    response = HttpResponse(_badge(label, value[:40]), content_type="image/svg+xml")
    # It is opened by other sites' pages, and may be opened by itself: nothing in it may run.
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'none'; sandbox"
    return public(response, request)


def _badge(label: str, value: str) -> str:
    left, right = 12 + 7 * len(label), 12 + 7 * len(value)
    words = _plain(label), _plain(value)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img"'
        f" aria-label={quoteattr(f'{words[0]}: {words[1]}')}>"
        f'<rect width="{left + right}" height="20" rx="4" fill="#1d2733"/>'
        f'<path d="M{left} 0h{right - 4}a4 4 0 0 1 4 4v12a4 4 0 0 1-4 4H{left}z" fill="#0e7490"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{words[0]}</text><text x="{left + right / 2}" y="14">{words[1]}</text>'
        "</g></svg>"
    )
