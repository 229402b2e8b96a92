"""Settings of a repository. Each form names its action; the functions behind check the caller's rights."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from wherry.errors import InvalidArgument
from wherry.hub.core import categories, rights
from wherry.hub.service import automation, repositories, who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import aliases
from wherry.hub.store.sql import Tx
from wherry.hub.web.asking import View, caller_of, change, look, optional, posted, signed_in
from wherry.hub.web.rows import write
from wherry.hub.web.views.repositories import head

Work = Callable[[Tx, HubCaller], Any]


def _form(view: View) -> View:
    """A page of settings. To others than managers it gives nothing away, whatever the form has."""

    @wraps(view)
    def managed(request: HttpRequest, name: str, *args: Any, **named: Any) -> HttpResponseBase:
        look(request, lambda tx, caller: who.manageable(tx, caller, name))
        return view(request, name, *args, **named)

    return require_http_methods(["GET", "HEAD", "POST"])(signed_in(managed))


def _page(
    request: HttpRequest, name: str, template: str, more: Callable[[Tx, HubCaller], dict[str, Any]]
) -> HttpResponse:
    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        return head(tx, caller, name, "settings") | more(tx, caller)

    return render(request, template, look(request, find))


def _unknown(tx: Tx, caller: HubCaller) -> None:
    raise InvalidArgument("unknown action")


@_form
def general(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/r/{name}/-/settings"
    if request.method != "POST":
        return _page(
            request, name, "repository/settings.html",
            lambda tx, caller: {
                "categories": categories.CATEGORIES,
                "aliases": aliases.of(tx, who.manageable(tx, caller, name).id),
            },
        )  # fmt: skip
    action, after = posted(request, "action"), posted(request, "after").lower()

    def confirmed(work: Work) -> Work:
        def checked(tx: Tx, caller: HubCaller) -> Any:
            if posted(request, "confirm") != name:
                raise InvalidArgument("type the name of the repository to confirm")
            return work(tx, caller)

        return checked

    works: dict[str, tuple[Work, str, str]] = {
        "describe": (
            lambda tx, c: repositories.describe(
                tx, c, name, posted(request, "description"), tuple(request.POST.getlist("category"))
            ),
            "Description saved", here,
        ),
        "readme": (
            lambda tx, c: repositories.set_readme(tx, c, name, request.POST.get("readme", "")),
            "README saved", f"/r/{name}",
        ),
        "publish": (lambda tx, c: repositories.set_public(tx, c, name, True), "Everybody can pull it now",
        here),
        "hide": (lambda tx, c: repositories.set_public(tx, c, name, False), "It is private now", here),
        "archive": (lambda tx, c: repositories.set_archived(tx, c, name, True), "Archived", here),
        "unarchive": (lambda tx, c: repositories.set_archived(tx, c, name, False), "Open again", here),
        "rename": (
            confirmed(lambda tx, c: repositories.rename(tx, c, name, after)),
            f"Renamed to {after}; the old name leads here", f"/r/{after}",
        ),
        "release": (
            lambda tx, c: repositories.release_alias(tx, c, name, posted(request, "alias")),
            "The name is free", here,
        ),
        "delete": (
            confirmed(lambda tx, c: repositories.delete(tx, c, name)),
            f"{name} deleted; it can be restored on the page of its namespace",
            f"/n/{name.partition('/')[0]}",
        ),
    }  # fmt: skip
    work, told, path = works.get(action, (_unknown, "", here))
    return change(request, work, told, path, here)


@_form
def access(request: HttpRequest, name: str) -> HttpResponseBase:
    if request.method != "POST":
        return _page(
            request, name, "repository/access.html",
            lambda tx, caller: {
                "grants": repositories.grants(tx, caller, name), "levels": list(rights.LEVELS),
                "teams": _teams(tx, caller, name),
            },
        )  # fmt: skip
    level = posted(request, "level")
    account = posted(request, "account").lower()

    def work(tx: Tx, caller: HubCaller) -> None:
        if level not in (*rights.LEVELS, "none"):
            raise InvalidArgument("choose a level")
        repositories.grant(tx, caller, name, account, None if level == "none" else level)

    told = f"{account} has {'no' if level == 'none' else level} access now"
    return change(request, work, told, f"/r/{name}/-/settings/access")


def _teams(tx: Tx, caller: HubCaller, name: str) -> list[tuple[str, str, str]]:
    """Teams that have a level here: the team, the repository (or ``*``), the level."""
    rows = tx.all(
        "SELECT t.name, coalesce(r.name, '*'), g.level FROM team_grant g JOIN team t ON t.id = g.team_id"
        " JOIN repository q ON q.namespace_id = t.namespace_id LEFT JOIN repository r ON r.id ="
        " g.repository_id"
        " WHERE q.name = ? AND q.deleted IS NULL AND (g.repository_id IS NULL OR g.repository_id = q.id)"
        " ORDER BY t.name",
        name,
    )
    return [(row[0], row[1], row[2]) for row in rows]


@_form
def rules(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/r/{name}/-/settings/rules"
    if request.method == "POST":
        action = posted(request, "action")

        def work(tx: Tx, caller: HubCaller) -> None:
            if action == "remove":
                automation.remove_rule(tx, caller, name, optional(request, "rule") or 0)
            else:
                automation.add_rule(
                    tx, caller, name, action, posted(request, "tags") or "*", optional(request, "last"),
                    optional(request, "days"),
                )  # fmt: skip

        told = "Rule removed" if action == "remove" else "Rule added"
        return change(request, work, told, here)
    get = request.GET
    pattern = get.get("tags", "")[:255]
    last, days = (
        int(get[key]) if get.get(key, "").isdigit() and len(get[key]) < 7 else None
        for key in ("last", "days")
    )

    def more(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found: dict[str, Any] = {
            "rules": automation.rules_of(tx, caller, name),
            "tried": {"tags": pattern, "last": last, "days": days},
        }
        try:
            found["leaving"] = automation.dry_run(tx, caller, name, pattern, last, days)
        except InvalidArgument as e:
            found["leaving"], found["wrong"] = [], e.message
        return found

    return _page(request, name, "repository/rules.html", more)


@_form
def webhooks(request: HttpRequest, name: str) -> HttpResponseBase:
    secret = ""
    if request.method == "POST":
        caller = caller_of(request)
        wanted = tuple(request.POST.getlist("event"))
        try:
            _, secret = write(
                lambda tx: automation.add_hook(tx, caller, name, posted(request, "url"), wanted)
            )
        except InvalidArgument as e:
            return change(request, _raising(e), "", f"/r/{name}/-/settings/webhooks")
    return _page(
        request, name, "repository/webhooks.html",
        lambda tx, caller: {
            "hooks": automation.hooks(tx, caller, name), "events": automation.EVENTS, "secret": secret,
        },
    )  # fmt: skip


def _raising(error: Exception) -> Work:
    def work(tx: Tx, caller: HubCaller) -> None:
        raise error

    return work


@_form
def webhook(request: HttpRequest, name: str, number: int) -> HttpResponseBase:
    here = f"/r/{name}/-/settings/webhooks"
    if request.method != "POST":
        return _page(
            request, name, "repository/webhook.html",
            lambda tx, caller: {
                "hook": automation.hook(tx, caller, name, number),
                "deliveries": automation.deliveries(tx, caller, name, number),
            },
        )  # fmt: skip
    works: dict[str, tuple[Work, str, str]] = {
        "test": (lambda tx, c: automation.test_hook(tx, c, name, number), "A test is on its way",
        f"{here}/{number}"),
        "again": (
            lambda tx, c: automation.redeliver(tx, c, name, number, optional(request, "delivery") or 0),
            "It will be sent again", f"{here}/{number}",
        ),
        "remove": (lambda tx, c: automation.remove_hook(tx, c, name, number), "Webhook removed", here),
    }  # fmt: skip
    work, told, path = works.get(posted(request, "action"), (_unknown, "", here))
    return change(request, work, told, path)
