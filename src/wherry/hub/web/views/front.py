"""The front page, search, and the form for a new repository."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe

from wherry.hub.core import categories
from wherry.hub.service import repositories
from wherry.hub.service.who import HubCaller
from wherry.hub.store import cards, profiles
from wherry.hub.store.cards import Search
from wherry.hub.store.sql import Tx
from wherry.hub.web.asking import caller_of, change, look, number, posted, signed_in, user_of

PAGE, PAGES_MAX = 25, 200
ARCHITECTURES = ("amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64")
SYSTEMS = ("linux", "windows", "freebsd")
SORTS = {"pulls": "Most pulled", "updated": "Recently updated", "stars": "Most stars", "created": "Newest"}
WITHIN = {7: "Past week", 30: "Past month", 365: "Past year"}


def public(response: HttpResponse, request: HttpRequest) -> HttpResponse:
    """The page is the same for everybody who is not logged in: the bridge may keep it for ten seconds."""
    if user_of(request) is None and "Cookie" not in request.headers and "csrftoken" not in response.cookies:
        response.headers["Cache-Control"] = "public, max-age=10"
        response.headers["Vary"] = "Cookie"
    return response


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    def rows(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        who = caller.principal
        usual = Search(archived=False, public=True)
        found: dict[str, Any] = {
            "official": cards.find(tx, who, replace(usual, official=True), 12),
            "trending": cards.find(tx, who, replace(usual, sort="recent"), 6),
            "newest": cards.find(tx, who, replace(usual, sort="created"), 6),
        }
        if who.account is not None:
            found["own"] = cards.find(tx, who, Search(namespace=who.name, sort="updated"), 5)
            found["starred"] = cards.find(tx, who, Search(starred_by=who.account, sort="updated"), 5)
            found["feed"] = cards.feed(tx, who, who.account, 8)
            found["space"] = profiles.namespace(tx, who.name)
        else:
            found["totals"] = _totals(tx)
        return found

    return public(render(request, "home.html", look(request, rows)), request)


_counted: list[tuple[float, tuple[int, int, int]]] = []


def _totals(tx: Tx) -> tuple[int, int, int]:
    """Counted once a minute: it reads all rows."""
    if not _counted or _counted[0][0] + 60 < time.monotonic():
        _counted[:] = [(time.monotonic(), cards.counts(tx))]
    return _counted[0][1]


def asked(request: HttpRequest) -> Search:
    """The search of the query; what is unknown in it is left out."""
    get = request.GET
    sort, category, within = get.get("sort", "pulls"), get.get("category", ""), get.get("within", "")
    architecture, system = get.get("arch", ""), get.get("os", "")
    return Search(
        words=tuple(get.get("q", "")[:200].lower().replace("\0", "").split()[:8]),
        namespace=get.get("in", "")[:64].replace("\0", ""),
        official="official" in get,
        signed="signed" in get,
        architecture=architecture if architecture in ARCHITECTURES else "",
        os=system if system in SYSTEMS else "",
        category=category if category in categories.CATEGORIES else "",
        within=int(within) if within in {str(days) for days in WITHIN} else 0,
        sort=sort if sort in SORTS else "pulls",
    )


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    page = max(1, number(request.GET.get("page", ""), 1, PAGES_MAX))
    wanted = asked(request)
    found = look(
        request, lambda tx, caller: cards.find(tx, caller.principal, wanted, PAGE + 1, (page - 1) * PAGE)
    )
    response = render(
        request,
        "search.html",
        {
            "cards": found[:PAGE], "asked": wanted, "words": " ".join(wanted.words), "page": page,
            "older": page + 1 if len(found) > PAGE else None, "newer": page - 1, "sorts": SORTS,
            "categories": categories.CATEGORIES, "architectures": ARCHITECTURES, "systems": SYSTEMS,
            "within": WITHIN,
        },
    )  # fmt: skip
    return public(response, request)


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponseBase:
    """Create a repository (pushing creates one as well)."""
    caller = caller_of(request)
    if request.method == "POST":
        name = f"{posted(request, 'namespace')}/{posted(request, 'name')}".lower()
        public_, text = request.POST.get("visibility") == "public", posted(request, "description")
        return change(
            request,
            lambda tx, who: repositories.create(tx, who, name, public=public_, description=text),
            f"{name} created", f"/r/{name}", "/new",
        )  # fmt: skip
    spaces = look(
        request, lambda tx, who: [s for s, role in profiles.spaces_of(tx, who.account) if role != "member"]
    )
    wanted = request.GET.get("in", caller.name)
    return render(request, "new.html", {"writable": spaces, "wanted": wanted})


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    return HttpResponse("User-agent: *\nDisallow: /account/\nDisallow: /admin/\n", content_type="text/plain")
