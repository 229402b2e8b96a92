"""Pages of administrators. They need a second factor, unless the operator has turned that off."""

from __future__ import annotations

from functools import wraps
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe

from wherry import __version__
from wherry.errors import InvalidArgument
from wherry.hub.service import accounts as service
from wherry.hub.service import namespaces
from wherry.hub.service.who import HubCaller
from wherry.hub.store import health as figures
from wherry.hub.store import reports as report_rows
from wherry.hub.store import storage as storage_rows
from wherry.hub.store.sql import Tx
from wherry.hub.web import plots
from wherry.hub.web.asking import (
    View,
    change,
    go,
    look,
    number,
    optional,
    posted,
    principal_of,
    signed_in,
    surroundings,
    user_of,
)
from wherry.hub.web.middleware import page as error
from wherry.hub.web.rows import read
from wherry.hub.web.views import listing
from wherry.hub.web.views.namespaces import invite

PAGE = 50


def _administrators(view: View) -> View:
    """To others, the pages do not exist."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        user = user_of(request)
        if user is None or not user.admin:
            return error(request, 404)
        if not principal_of(request).admin:
            return render(request, "admin/factor.html", status=403)
        return view(request, *args, **named)

    return signed_in(checked)


@_administrators
@require_http_methods(["GET", "HEAD", "POST"])
def health(request: HttpRequest) -> HttpResponseBase:
    if request.method == "POST":
        text = posted(request, "banner")
        return change(request, lambda tx, c: service.set_banner(tx, c, text), "Banner saved", "/admin/")
    around = surroundings()

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        queues = figures.queues(tx)
        names = ("manifests", "links", "blobs", "trash", "uploads_expired")
        return {
            "queues": [
                (name.replace("_", " "), queues[f"{name}_due"], queues[f"{name}_due_age_seconds"])
                for name in names
            ],
            "uploads": queues["uploads_open"],
            "dead": _one(tx, "SELECT count(*) FROM delivery WHERE state = 'dead'"),
            "due": _one(tx, "SELECT count(*) FROM delivery WHERE state = 'due'"),
            "replications": tx.all("SELECT repository, url, outcome, failures FROM replication ORDER BY id"),
            "counts": [
                ("Accounts", _one(tx, "SELECT count(*) FROM account WHERE active")),
                ("Repositories", _one(tx, "SELECT count(*) FROM repository WHERE deleted IS NULL")),
                ("Images", _one(tx, "SELECT count(*) FROM manifest WHERE deleted IS NULL")),
                ("Open reports", _one(tx, "SELECT count(*) FROM abuse_report WHERE closed IS NULL")),
            ],
        }

    found = look(request, find)
    found |= {
        "tab": "health", "version": __version__, "database": around.database,
        "objects": around.objects.describe(),
    }  # fmt: skip
    return render(request, "admin/health.html", found)


def _one(tx: Tx, statement: str) -> int:
    row = tx.one(statement)
    return int(row[0]) if row is not None else 0


@_administrators
@require_http_methods(["GET", "HEAD", "POST"])
def accounts(request: HttpRequest) -> HttpResponseBase:
    if request.method == "POST":
        action, name = posted(request, "action"), posted(request, "account")

        def work(tx: Tx, caller: HubCaller) -> None:
            if action in ("block", "unblock"):
                service.set_active(tx, caller, name, action == "unblock")
            elif action in ("promote", "demote"):
                service.set_admin(tx, caller, name, action == "promote")
            elif action == "quota":
                service.set_quota(tx, caller, name, optional(request, "quota"))
            else:
                raise InvalidArgument("unknown action")

        return change(request, work, f"{name} changed", "/admin/accounts")
    part = request.GET.get("q", "")[:64].replace("\0", "").lower()
    page = max(1, number(request.GET.get("page", ""), 1, 10_000))
    literal = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = read(
        lambda tx: tx.all(
            "SELECT a.name, a.email, a.admin, a.active, a.second_factor, a.created, a.deleted, n.used_bytes,"
            " n.quota_bytes FROM account a LEFT JOIN namespace n ON n.name = a.name"
            " WHERE a.name LIKE ? ESCAPE '\\' OR a.email LIKE ? ESCAPE '\\' ORDER BY a.name LIMIT ? OFFSET ?",
            f"%{literal}%", f"%{literal}%", PAGE + 1, (page - 1) * PAGE,
        )
    )  # fmt: skip
    keys = ("name", "email", "admin", "active", "second_factor", "created", "deleted", "used", "quota")
    found = [dict(zip(keys, row, strict=True)) for row in rows]
    return render(
        request, "admin/accounts.html",
        {
            "lines": found[:PAGE], "part": part, "page": page, "newer": page - 1, "tab": "accounts",
            "older": page + 1 if len(found) > PAGE else None,
        },
    )  # fmt: skip


@_administrators
@require_http_methods(["GET", "HEAD", "POST"])
def reports(request: HttpRequest) -> HttpResponseBase:
    if request.method == "POST":
        return change(
            request, lambda tx, c: service.close_report(tx, c, optional(request, "report") or 0),
            "Report closed", "/admin/reports",
        )  # fmt: skip
    closed = "closed" in request.GET
    return render(
        request, "admin/reports.html",
        {
            "lines": read(lambda tx: report_rows.page(tx, closed=closed)), "closed": closed,
            "reasons": report_rows.REASONS, "tab": "reports",
        },
    )  # fmt: skip


@_administrators
@require_http_methods(["GET", "HEAD", "POST"])
def invitations(request: HttpRequest) -> HttpResponseBase:
    link = ""
    if request.method == "POST":
        if posted(request, "action") == "withdraw":
            return change(
                request, lambda tx, c: namespaces.withdraw(tx, c, "", optional(request, "invitation") or 0),
                "Invitation withdrawn", "/admin/invitations",
            )  # fmt: skip
        try:
            link = invite(request, "", posted(request, "email").lower(), "")
        except InvalidArgument as e:
            return change(request, _refusing(e), "", "/admin/invitations")
        if not link:
            return go("/admin/invitations")
    return render(
        request, "admin/invitations.html",
        {
            "invitations": look(request, lambda tx, c: namespaces.open_invitations(tx, c, "")), "link": link,
            "tab": "invitations", "mode": settings.HUB.sign_up,
        },
    )  # fmt: skip


def _refusing(wrong: Exception) -> Any:
    def work(tx: Tx, caller: HubCaller) -> None:
        raise wrong

    return work


@_administrators
@require_safe
def storage(request: HttpRequest) -> HttpResponse:
    found = read(storage_rows.report)
    return render(
        request, "admin/storage.html",
        {
            "report": found, "tab": "storage",
            "ages": _plot(found.ages, "Bytes of blobs by age"),
            "pulled": _plot(found.pulled, "Bytes of tags by their last pull or push"),
            "largest": max((one.size for one in found.namespaces), default=0),
            "largest_repository": max((one.size for one in found.repositories), default=0),
        },
    )  # fmt: skip


def _plot(lines: list[storage_rows.Usage], title: str) -> str:
    return plots.bars([(one.name, one.size) for one in lines], title, " bytes")


@_administrators
@require_safe
def audit(request: HttpRequest) -> HttpResponse:
    found = read(lambda tx: listing.events_of(request, tx))
    return render(request, "admin/audit.html", found | {"tab": "audit"})


@_administrators
@require_safe
def audit_csv(request: HttpRequest) -> HttpResponse:
    return read(lambda tx: listing.as_csv(request, tx))
