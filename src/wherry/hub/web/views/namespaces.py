"""Namespaces: the page of an account or an organisation, members, teams, robots, settings, audit."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from wherry.errors import InvalidArgument
from wherry.hub.core import rights
from wherry.hub.service import namespaces, repositories, who
from wherry.hub.service.who import HubCaller
from wherry.hub.store import cards, orgs, stars
from wherry.hub.store import teams as team_rows
from wherry.hub.store.cards import Search
from wherry.hub.store.sql import Tx, now
from wherry.hub.web import adapters
from wherry.hub.web.asking import (
    View,
    caller_of,
    change,
    go,
    look,
    number,
    optional,
    posted,
    signed_in,
    surroundings,
)
from wherry.hub.web.rows import write
from wherry.hub.web.templatetags.hub import article
from wherry.hub.web.views import listing
from wherry.hub.web.views.front import PAGE, public


def _form(view: View) -> View:
    return require_http_methods(["GET", "HEAD", "POST"])(signed_in(view))


def head(tx: Tx, caller: HubCaller, name: str, tab: str) -> dict[str, Any]:
    """What the head of each page of a namespace needs. :raises NotFound:"""
    found, role = who.namespace(tx, caller, name)
    account = caller.principal.account
    return {
        "space": found,
        "role": role,
        "tab": tab,
        "followed": account is not None and stars.is_followed(tx, account, found.id, namespace=True),
        "followers": stars.followers(tx, found.id, namespace=True),
    }


@require_safe
def overview(request: HttpRequest, name: str) -> HttpResponse:
    page = max(1, number(request.GET.get("page", ""), 1, 4000))

    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        found = head(tx, caller, name, "repositories")
        asked = Search(namespace=name, sort="name")
        lines = cards.find(tx, caller.principal, asked, PAGE + 1, (page - 1) * PAGE)
        found |= {
            "cards": lines[:PAGE], "page": page, "newer": page - 1,
            "older": page + 1 if len(lines) > PAGE else None,
        }  # fmt: skip
        if found["role"] == "owner":
            since = now() - surroundings().settings.keep_deleted
            found["deleted"] = tx.all(
                "SELECT name, max(deleted) FROM repository WHERE namespace_id = ? AND deleted > ?"
                " GROUP BY name ORDER BY 2 DESC LIMIT 20",
                found["space"].id, since,
            )  # fmt: skip
        return found

    return public(render(request, "namespace/overview.html", look(request, find)), request)


@require_POST
@signed_in
def follow(request: HttpRequest, name: str) -> HttpResponse:
    on = posted(request, "on") == "yes"
    return change(
        request, lambda tx, caller: repositories.follow_namespace(tx, caller, name, on), "", f"/n/{name}"
    )


@_form
def new(request: HttpRequest) -> HttpResponseBase:
    name, title = posted(request, "name").lower(), posted(request, "title")
    if request.method == "POST":
        return change(
            request, lambda tx, caller: namespaces.create(tx, caller, name, title), f"{name} created",
            f"/n/{name}", "/new/organisation",
        )  # fmt: skip
    return render(request, "namespace/new.html")


def _page(
    request: HttpRequest, name: str, tab: str, template: str, more: Any, extra: dict[str, Any] | None = None
) -> HttpResponse:
    def find(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        return {**more(tx, caller), **head(tx, caller, name, tab), **(extra or {})}

    return render(request, template, look(request, find))


@_form
def members(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/n/{name}/-/members"
    link = ""
    if request.method == "POST":
        action, account, role = (posted(request, key) for key in ("action", "account", "role"))
        if action == "invite":
            try:
                link = invite(request, name, posted(request, "email").lower(), role)
            except InvalidArgument as e:
                messages.error(request, e.message)
            if not link:
                return go(here)
        elif action == "withdraw":
            return change(
                request,
                lambda tx, c: namespaces.withdraw(tx, c, name, optional(request, "invitation") or 0),
                "Invitation withdrawn", here,
            )  # fmt: skip
        else:
            account = account.lower()
            leaving = account == caller_of(request).name and role == "none"
            return change(
                request,
                lambda tx, c: namespaces.set_role(tx, c, name, account, None if role == "none" else role),
                f"{account} is {'not a member' if role == 'none' else article(role)} now",
                f"/n/{name}" if leaving else here, here,
            )  # fmt: skip

    def more(tx: Tx, caller: HubCaller) -> dict[str, Any]:
        lines = namespaces.members(tx, caller, name)
        _, role = who.namespace(tx, caller, name)
        factors = {
            row[0]: bool(row[1])
            for row in tx.all(
                "SELECT a.name, a.second_factor FROM org_member m JOIN account a ON a.id = m.account_id"
                " WHERE m.namespace_id = ?",
                orgs.namespace(tx, name),
            )
        }
        return {
            "members": [(one, level, factors.get(one, False)) for one, level in lines],
            "roles": list(rights.ROLES),
            "invitations": namespaces.open_invitations(tx, caller, name) if role == "owner" else [],
        }

    return _page(request, name, "members", "namespace/members.html", more, {"link": link})


def invite(request: HttpRequest, name: str, email: str, role: str) -> str:
    """Invite somebody. :returns: the link to hand over; empty if it was sent by mail. :raises
    InvalidArgument:"""
    caller = caller_of(request)
    hub = django_settings.HUB
    if email and ("@" not in email or len(email) > 254 or any(c.isspace() for c in email)):
        raise InvalidArgument("this is not an e-mail address")
    if email and not hub.mail:
        raise InvalidArgument("this hub cannot send mail: leave the address empty and hand the link over")
    secret = write(lambda tx: namespaces.invite(tx, caller, name, email, role))
    link = request.build_absolute_uri(f"/account/invitation/{secret}/")
    if not email:
        return link
    adapters.send_mail(
        request, "mail/invitation", email,
        {"link": link, "by": caller.name, "organisation": name, "role": role, "hub": hub},
    )  # fmt: skip
    messages.success(request, f"Invitation sent to {email}")
    return ""


@_form
def teams(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/n/{name}/-/teams"
    if request.method != "POST":
        return _page(
            request, name, "teams", "namespace/teams.html",
            lambda tx, caller: {
                "teams": namespaces.all_teams(tx, caller, name), "levels": list(rights.LEVELS),
                "people": [one for one, _ in namespaces.members(tx, caller, name)],
                "names": [
                    one.name for one in cards.find(tx, caller.principal, Search(namespace=name,
                    sort="name"), 200)
                ],
            },
        )  # fmt: skip
    action, team = posted(request, "action"), posted(request, "team").lower()
    account, level = posted(request, "account").lower(), posted(request, "level")

    def work(tx: Tx, caller: HubCaller) -> None:
        who.owned(tx, caller, name)
        if action == "add":
            namespaces.add_team(tx, caller, name, team)
        elif action == "remove":
            namespaces.remove_team(tx, caller, name, team)
        elif action in ("join", "leave"):
            namespaces.set_team_member(tx, caller, name, team, account, action == "join")
        elif action == "grant":
            namespaces.team_grant(
                tx, caller, name, team, posted(request, "repository"), None if level == "none" else level
            )
        else:
            raise InvalidArgument("unknown action")

    return change(request, work, "Saved", here)


@_form
def robots(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/n/{name}/-/robots"
    secret = ""
    action, robot = posted(request, "action"), posted(request, "robot").lower()
    if request.method == "POST" and action == "add":
        caller = caller_of(request)
        with_token = request.POST.get("token") == "yes"
        try:
            secret = write(
                lambda tx: namespaces.add_robot(tx, caller, name, robot, posted(request, "level"), with_token)
            )
        except InvalidArgument as e:
            messages.error(request, e.message)
        if not secret:
            return go(here)
    elif request.method == "POST":

        def work(tx: Tx, caller: HubCaller) -> None:
            who.owned(tx, caller, name)
            if action == "remove":
                namespaces.remove_robot(tx, caller, name, robot)
            elif action == "trust":
                issuer, audience, subject = (
                    posted(request, key) for key in ("issuer", "audience", "subject")
                )
                namespaces.add_trust(tx, caller, name, robot, issuer, audience, subject)
            elif action == "distrust":
                namespaces.remove_trust(tx, caller, name, optional(request, "trust") or 0)
            else:
                raise InvalidArgument("unknown action")

        return change(request, work, "Saved", here)

    return _page(
        request, name, "robots", "namespace/robots.html",
        lambda tx, caller: {
            "robots": namespaces.robots(tx, caller, name), "trusts": namespaces.trusts(tx, caller, name),
            "levels": list(team_rows.ROBOT_ROLES),
        },
        {"secret": secret, "made": f"{name}{team_rows.ROBOT}{robot}"},
    )  # fmt: skip


@_form
def settings(request: HttpRequest, name: str) -> HttpResponseBase:
    here = f"/n/{name}/-/settings"
    if request.method != "POST":
        return _page(
            request, name, "settings", "namespace/settings.html",
            lambda tx, caller: {"owned": who.owned(tx, caller, name)},
        )  # fmt: skip
    action = posted(request, "action")

    def work(tx: Tx, caller: HubCaller) -> None:
        who.owned(tx, caller, name)
        if action == "describe":
            title, about, link = (posted(request, key) for key in ("title", "about", "link"))
            namespaces.describe(tx, caller, name, title, about, link)
        elif action == "restore":
            if not repositories.undelete(tx, caller, posted(request, "repository")):
                raise InvalidArgument("there is no such deleted repository")
        elif action == "delete":
            if posted(request, "confirm") != name:
                raise InvalidArgument("type the name of the organisation to confirm")
            namespaces.remove(tx, caller, name)
        else:
            raise InvalidArgument("unknown action")

    path = {"restore": f"/n/{name}", "delete": "/"}.get(action, here)
    return change(request, work, "Saved" if action == "describe" else "Done", path, here)


@signed_in
@require_safe
def audit(request: HttpRequest, name: str) -> HttpResponseBase:
    return _page(
        request, name, "audit", "namespace/audit.html",
        lambda tx, caller: listing.events_of(request, tx, namespace=who.owned(tx, caller, name).name),
    )  # fmt: skip
