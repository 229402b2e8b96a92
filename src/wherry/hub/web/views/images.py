"""One image: what it is made of; the comparison of two."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from wherry.hub.core import images as documents
from wherry.hub.core import names
from wherry.hub.core.digests import is_digest
from wherry.hub.core.images import Difference
from wherry.hub.service import who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import tags
from wherry.hub.store.sql import Tx
from wherry.hub.web import images
from wherry.hub.web.asking import look, surroundings
from wherry.hub.web.images import ImagePage
from wherry.hub.web.views.front import public
from wherry.hub.web.views.repositories import head

PARTS = ("layers", "packages", "referrers", "raw")


def tag(request: HttpRequest, name: str, tag: str) -> HttpResponse:
    return _page(request, name, tag)


def image(request: HttpRequest, name: str, digest: str) -> HttpResponse:
    return _page(request, name, digest)


@require_safe
def _page(request: HttpRequest, name: str, reference: str) -> HttpResponse:
    part = request.GET.get("show", "layers")
    platform = request.GET.get("platform", "")[:200]
    load = surroundings().load

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "tags")
        page = images.page(tx, found["repository"], reference, platform, load)
        one = tags.shown(tx, name, reference) if ":" not in reference else None
        return found | {"image": page, "line": one}

    found = look(request, find)
    shown: ImagePage = found["image"]
    facts = [(key, lines) for key, lines in shown.config.facts() if key != "Platform" or not shown.members]
    found |= {
        "reference": reference, "part": part if part in PARTS else "layers", "facts": facts,
        "by_tag": ":" not in reference, "separator": ":" if ":" not in reference else "@",
        "packages": shown.packages[:2000], "more_packages": max(0, len(shown.packages) - 2000),
    }  # fmt: skip
    return public(render(request, "repository/image.html", found), request)


@require_safe
def raw(request: HttpRequest, name: str, digest: str) -> HttpResponse:
    """A manifest as it was pushed. As a file: a browser must not take it for anything else."""

    def find(tx: Tx, caller: HubCaller) -> bytes:
        who.readable(tx, caller, name)
        return images.resolve(tx, name, digest).body

    return HttpResponse(
        look(request, find), content_type="text/plain; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{digest.replace(":", "-")}.json"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )  # fmt: skip


@require_safe
def compare(request: HttpRequest, name: str) -> HttpResponse:
    """``a`` and ``b``: two tags or digests."""
    chosen = [request.GET.get(key, "") for key in ("a", "b")]
    platform = request.GET.get("platform", "")[:200]
    load = surroundings().load

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "tags")
        _, newest = tags.shown_page(tx, name, "", "last_updated", 100, 0)
        found["choices"] = [one.name for one in newest]
        pages = [
            images.page(tx, found["repository"], one, platform, load)
            for one in chosen
            if names.is_tag(one) or is_digest(one)
        ]
        return found | {"pages": pages}

    found = look(request, find)
    found |= {"a": chosen[0], "b": chosen[1]}
    if len(found["pages"]) == 2:
        found |= _differences(*found["pages"])
    return render(request, "repository/compare.html", found)


def _facts(page: ImagePage) -> dict[str, str]:
    """The configuration by name; each variable and each label by itself, so that only what differs is
    shown."""
    found: dict[str, str] = {}
    for key, lines in page.config.facts():
        if key in ("Environment", "Labels"):
            word = "ENV" if key == "Environment" else "LABEL"
            for line in lines:
                name, _, value = line.partition("=")
                found[f"{word} {name}"] = value
        else:
            found[key] = "\n".join(lines)
    return found


def _differences(before: ImagePage, after: ImagePage) -> dict[str, Any]:
    old, new = ({one.name: one.version for one in page.packages} for page in (before, after))
    facts = [_facts(page) for page in (before, after)]
    layers = [[one.digest for one in page.layers if one.digest] for page in (before, after)]
    common = set(layers[0]) & set(layers[1])
    packages: list[Difference] = documents.differences(old, new)
    return {
        "before": before, "after": after, "grown": after.total - before.total,
        "package_lines": packages[:1000],
        "package_sums": {
            "added": sum(not one.before for one in packages),
            "removed": sum(not one.after for one in packages),
            "changed": sum(bool(one.before and one.after) for one in packages),
        },
        "has_packages": bool(old) and bool(new),
        "fact_lines": documents.differences(*facts),
        "common": len(common), "only_before": len(layers[0]) - len(common),
        "only_after": len(layers[1]) - len(common),
        "same": before.shown == after.shown,
    }  # fmt: skip
