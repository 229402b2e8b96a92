"""A repository: its front, tags, the history of a tag, activity, insights; stars, follows, reports."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponsePermanentRedirect
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from wherry.hub.core import rights
from wherry.hub.core.refusals import Refusal
from wherry.hub.service import repositories, who
from wherry.hub.service import tags as tagging
from wherry.hub.service.who import HubCaller
from wherry.hub.store import events, facts, profiles, reports, rules, stars
from wherry.hub.store import insights as pulls
from wherry.hub.store import repositories as repository_rows
from wherry.hub.store import tags as rows
from wherry.hub.store.events import EventFilter
from wherry.hub.store.profiles import RepositoryProfile
from wherry.hub.store.sql import Tx
from wherry.hub.web import images, plots
from wherry.hub.web.asking import change, look, number, optional, posted, signed_in, surroundings
from wherry.hub.web.views.front import public

PAGE = 25
PERIODS = (7, 30, 90, 365)


def head(tx: Tx, caller: HubCaller, name: str, tab: str) -> dict[str, Any]:
    """What the head of each page of a repository needs. :raises Refusal: the caller cannot read it."""
    found = who.readable(tx, caller, name)
    account = caller.principal.account
    return {
        "repository": found,
        "tab": tab,
        "can_push": who.may(tx, caller, name, rights.PUSH),
        "can_manage": who.may(tx, caller, name, rights.DELETE),
        "starred": account is not None and stars.is_starred(tx, account, found.id),
        "followed": account is not None and stars.is_followed(tx, account, found.id),
        "reasons": reports.REASONS,
    }


def moved(request: HttpRequest, name: str) -> HttpResponsePermanentRedirect | None:
    """To the new name of a renamed repository, if the caller can read that."""

    def find(tx: Tx, caller: HubCaller) -> str | None:
        if repository_rows.find(tx, name) is not None:
            return None
        after = repository_rows.renamed(tx, name)
        if after is None or rights.PULL not in repository_rows.allowed(tx, caller.principal, after):
            return None
        return after

    after = look(request, find)
    return HttpResponsePermanentRedirect(f"/r/{after}") if after is not None else None


def usual_tag(found: list[rows.Shown]) -> str:
    """The tag of the pull command: ``latest`` if there is one, else the newest that is not a signature."""
    named = [one.name for one in found if not one.name.startswith("sha256-")]
    return "latest" if "latest" in named or not named else named[0]


@require_safe
def overview(request: HttpRequest, name: str) -> HttpResponseBase:
    if (there := moved(request, name)) is not None:
        return there
    load = surroundings().load

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "overview")
        repository: RepositoryProfile = found["repository"]
        _, newest = rows.shown_page(tx, name, "", "last_updated", 8, 0)
        tag = usual_tag(newest)
        if tag == "latest":
            latest = rows.shown(tx, name, "latest")
            newest = [latest, *(one for one in newest if one.name != "latest")] if latest else newest
        found |= {
            "newest": newest[:6], "tag": tag, "namespace": profiles.namespace(tx, name.partition("/")[0]),
            "recent": pulls.daily(tx, repository.id, 30), "followers": stars.followers(tx, repository.id),
            "latest": newest[0] if newest else None,
        }  # fmt: skip
        if newest:
            try:
                found["config"] = images.page(tx, repository, newest[0].name, "", load).config
            except Refusal:
                pass  # a proxy's copy, or deleted meanwhile
        return found

    found = look(request, find)
    month = [value for _, value in found["recent"]]
    found["spark"] = plots.sparkline(month, f"Pulls of the last 30 days: {sum(month)}")
    found["month"] = sum(month)
    return public(render(request, "repository/overview.html", found), request)


@require_safe
def tags(request: HttpRequest, name: str) -> HttpResponse:
    part = request.GET.get("q", "")[:128].replace("\0", "")
    sort = request.GET.get("sort", "last_updated")
    sort = sort if sort.lstrip("-") in ("last_updated", "name") else "last_updated"
    page = max(1, number(request.GET.get("page", ""), 1, 4000))

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "tags")
        total, lines = rows.shown_page(tx, name, part, sort, PAGE, (page - 1) * PAGE)
        fixed = rules.all_of(tx, rules.IMMUTABLE)
        locked = {one.name for one in lines if rules.is_immutable(fixed, name, one.name) is not None}
        digests = facts.signed_among(tx, found["repository"].id, list({one.digest for one in lines}))
        signed = {one.name for one in lines if one.digest in digests}
        return found | {
            "lines": lines, "total": total, "part": part, "sort": sort, "page": page, "locked": locked,
            "signed": signed, "older": page + 1 if page * PAGE < total else None, "newer": page - 1,
        }  # fmt: skip

    return public(render(request, "repository/tags.html", look(request, find)), request)


@require_POST
@signed_in
def change_tags(request: HttpRequest, name: str) -> HttpResponse:
    """One action for the selected tags."""
    chosen = request.POST.getlist("tag")[:100]
    action = posted(request, "action")

    def work(tx: Tx, caller: HubCaller) -> None:
        who.writable(tx, caller, name)
        for tag in chosen:
            if action == "delete":
                tagging.delete(tx, caller, name, tag)
            elif action == "expire":
                tagging.expire(tx, caller, name, tag, optional(request, "days"))
            elif action == "copy":
                tagging.copy(tx, caller, name, tag, posted(request, "more"))

    words = {"delete": "deleted; the history can restore it", "expire": "changed", "copy": "copied"}
    told = f"{', '.join(chosen[:5])} {words.get(action, '')}" if chosen else ""
    return change(request, work, told, f"/r/{name}/-/tags")


@require_http_methods(["GET", "HEAD", "POST"])
def history(request: HttpRequest, name: str, tag: str) -> HttpResponseBase:
    """The targets of a tag; POST reverts to one of them."""
    if request.method == "POST":
        return signed_in(_revert)(request, name, tag)

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "tags")
        moves = rows.history(tx, name, tag)
        present = rows.shown(tx, name, tag)
        if not moves and present is None:
            raise Refusal("MANIFEST_UNKNOWN", "tag unknown")
        kept = {}
        for digest in {one.digest for one in moves if one.digest}:
            row = tx.one(
                "SELECT deleted IS NULL FROM manifest WHERE repository_id = ? AND digest = ?",
                found["repository"].id, digest,
            )  # fmt: skip
            kept[digest] = "gone" if row is None else "here" if row[0] else "deleted"
        return found | {"tag": tag, "moves": moves, "present": present, "kept": kept}

    return render(request, "repository/history.html", look(request, find))


def _revert(request: HttpRequest, name: str, tag: str) -> HttpResponse:
    digest = posted(request, "digest")

    def work(tx: Tx, caller: HubCaller) -> None:
        tagging.revert(tx, caller, name, tag, digest)

    return change(request, work, f"{tag} points to {digest[7:19]} now", f"/r/{name}/-/history/{tag}")


@require_safe
def activity(request: HttpRequest, name: str) -> HttpResponse:
    before = number(request.GET.get("before", ""), 2**62, 2**62) or 2**62

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "activity")
        wanted = EventFilter(repository=name, everything=found["can_manage"])
        lines = events.page(tx, wanted, before=before, count=PAGE + 1)
        more = lines[PAGE - 1].id if len(lines) > PAGE else None
        return found | {"lines": lines[:PAGE], "more": more, "later": before < 2**62}

    return render(request, "repository/activity.html", look(request, find))


def _period(request: HttpRequest) -> int:
    days = number(request.GET.get("days", ""), 30, 365)
    return days if days in PERIODS else 30


@require_safe
def insights(request: HttpRequest, name: str) -> HttpResponse:
    days = _period(request)

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "insights")
        number_ = found["repository"].id
        splits = {kind: pulls.split(tx, number_, days, kind) for kind in pulls.KINDS}
        return found | {"daily": pulls.daily(tx, number_, days), "splits": splits}

    found = look(request, find)
    points = [(_date(day)[5:], value) for day, value in found["daily"]]
    found |= {
        "days": days, "periods": PERIODS, "sum": sum(value for _, value in points),
        "plot": plots.bars(points, f"Pulls of each of the last {days} days", " pulls"),
        "table": [(_date(day), value) for day, value in reversed(found["daily"]) if value],
    }  # fmt: skip
    return render(request, "repository/insights.html", found)


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86400, UTC).strftime("%Y-%m-%d")


@require_safe
def insights_csv(request: HttpRequest, name: str) -> HttpResponse:
    def find(tx: Tx, caller: HubCaller) -> list[tuple[int, str, str, str, int]]:
        return pulls.rows_of(tx, who.readable(tx, caller, name).id, _period(request))

    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("day", "tag", "platform", "client", "pulls"))
    writer.writerows((_date(day), *rest) for day, *rest in look(request, find))
    file = name.replace("/", "-")
    return HttpResponse(
        out.getvalue(), content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file}-pulls.csv"'},
    )  # fmt: skip


@require_POST
@signed_in
def star(request: HttpRequest, name: str) -> HttpResponse:
    on = posted(request, "on") == "yes"
    return change(request, lambda tx, who: repositories.star(tx, who, name, on), "", f"/r/{name}")


@require_POST
@signed_in
def follow(request: HttpRequest, name: str) -> HttpResponse:
    on = posted(request, "on") == "yes"
    return change(request, lambda tx, who: repositories.follow(tx, who, name, on), "", f"/r/{name}")


@require_POST
@signed_in
def report(request: HttpRequest, name: str) -> HttpResponse:
    reason, message = posted(request, "reason"), posted(request, "message")
    return change(
        request, lambda tx, who: repositories.report(tx, who, name, reason, message),
        "Thank you. The administrators will look at it.", f"/r/{name}",
    )  # fmt: skip
