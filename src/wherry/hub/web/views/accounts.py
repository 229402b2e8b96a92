"""The account of the person who is logged in: profile, tokens, export, the end; invitations. Passwords,
e-mail addresses, second factors and sessions are allauth's pages."""

from __future__ import annotations

import json

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_http_methods, require_safe

from wherry.errors import Conflict, InvalidArgument
from wherry.hub.auth import secrets
from wherry.hub.core import rights
from wherry.hub.service import accounts, namespaces
from wherry.hub.store import invitations, profiles
from wherry.hub.web import adapters
from wherry.hub.web.asking import View, caller_of, change, go, look, posted, signed_in, user_of
from wherry.hub.web.rows import read, write

LIVES = {"30": "30 days", "90": "90 days", "365": "One year", "never": "Never"}


def _form(view: View) -> View:
    return require_http_methods(["GET", "HEAD", "POST"])(signed_in(view))


@signed_in
@require_safe
def overview(request: HttpRequest) -> HttpResponseBase:
    return go("/account/profile/")


@_form
def profile(request: HttpRequest) -> HttpResponseBase:
    caller = caller_of(request)
    if request.method == "POST":
        title, about, link = (posted(request, key) for key in ("title", "about", "link"))
        return change(
            request, lambda tx, c: namespaces.describe(tx, c, c.name, title, about, link), "Profile saved",
            "/account/profile/",
        )  # fmt: skip
    return render(
        request, "account/profile.html",
        {"space": read(lambda tx: profiles.namespace(tx, caller.name)), "menu": "profile"},
    )  # fmt: skip


@_form
def tokens(request: HttpRequest) -> HttpResponseBase:
    if request.method == "POST":
        return adapters.recently_logged_in(request, _change_tokens)
    return _tokens(request, "")


def _tokens(request: HttpRequest, secret: str) -> HttpResponse:
    return render(
        request, "account/tokens.html",
        {
            "tokens": look(request, accounts.tokens), "scopes": list(rights.SCOPES), "lives": LIVES,
            "secret": secret, "menu": "tokens",
        },
    )  # fmt: skip


def _change_tokens(request: HttpRequest) -> HttpResponseBase:
    number = posted(request, "revoke")
    if number:
        return change(
            request,
            lambda tx, c: accounts.remove_token(tx, c, int(number) if number.isdigit() else 0),
            "Token revoked", "/account/tokens/",
        )  # fmt: skip
    caller, life = caller_of(request), posted(request, "life")
    try:
        if life not in LIVES:
            raise InvalidArgument("choose when the token expires")
        secret = write(
            lambda tx: accounts.create_token(
                tx, caller, posted(request, "name"), posted(request, "scope"),
                tuple(posted(request, "patterns").split()), None if life == "never" else int(life),
            )
        )  # fmt: skip
    except InvalidArgument as e:
        messages.error(request, e.message)
        return go("/account/tokens/")
    return _tokens(request, secret)


@_form
def export(request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return render(request, "account/export.html", {"menu": "export"})
    return adapters.recently_logged_in(request, _export)


def _export(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    assert user is not None
    found = look(request, accounts.export)
    found["account"]["verified_addresses"] = sorted(adapters.verified_emails(user))
    return HttpResponse(
        json.dumps(found, indent=2), content_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{user.name}.json"'},
    )  # fmt: skip


@_form
def delete(request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return render(request, "account/delete.html", {"menu": "delete"})
    return adapters.recently_logged_in(request, _delete)


def _delete(request: HttpRequest) -> HttpResponseBase:
    user, caller = user_of(request), caller_of(request)
    assert user is not None
    if posted(request, "confirm") != user.name:
        messages.error(request, "Type the name of the account to confirm.")
        return go("/account/delete/")
    try:
        write(lambda tx: accounts.close(tx, caller))
    except Conflict as e:
        messages.error(request, e.message)
        return go("/account/delete/")
    adapters.forget(user)
    logout(request)
    messages.success(request, "The account is deleted.")
    return go("/")


@require_safe
def invitation(request: HttpRequest, secret: str) -> HttpResponseBase:
    """The link of an invitation. The secret goes into the session, so that it leaves the address bar."""
    found = read(lambda tx: invitations.by_hash(tx, secrets.hashed(secret)))
    if found is None:
        return render(request, "account/invitation.html", {"found": None}, status=404)
    request.session[adapters.INVITATION] = secret
    return go("/account/invitation/")


@require_http_methods(["GET", "HEAD", "POST"])
def accept(request: HttpRequest) -> HttpResponseBase:
    found, user = adapters.invitation_of(request), user_of(request)
    if request.method != "POST" or found is None or user is None:
        status = 200 if found is not None else 404
        return render(
            request, "account/invitation.html",
            {"found": found, "closed": settings.HUB.sign_up == "closed"}, status=status,
        )  # fmt: skip
    if found.email and found.email not in adapters.verified_emails(user):
        messages.error(request, f"The invitation is for {found.email}. Add and confirm this address first.")
        return go("/account/invitation/")
    secret = request.session.pop(adapters.INVITATION, "")
    where = f"/n/{found.organisation}" if found.organisation else "/"
    return change(
        request, lambda tx, caller: namespaces.accept(tx, caller, secret),
        f"You are a member of {found.organisation} now" if found.organisation else "", where, "/",
    )  # fmt: skip
