"""Around every page: headers that keep browsers from doing harm, and errors in words."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.hub.core.refusals import Refusal
from wherry.hub.store.sql import DatabaseAway

log = logging.getLogger(__name__)
Answer = Callable[[HttpRequest], HttpResponseBase]
_TITLES = {
    400: "That did not work",
    403: "Not allowed",
    404: "Nothing here",
    409: "That did not work",
    413: "Too large",
    429: "Too many requests",
    500: "Something broke",
    503: "Back in a moment",
}


def policy() -> str:
    """The content security policy: only our own files, no inline scripts or styles, no frames."""
    issuer = settings.HUB.oidc.origin  # browsers apply form-action to the redirect after the form as well
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        f" form-action 'self'{' ' + issuer if issuer else ''}; frame-ancestors 'none'; base-uri 'none'"
    )


def protect(answer: Answer) -> Answer:
    """The outermost: headers on every answer, also on errors."""
    fixed = {
        "Content-Security-Policy": policy(),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    if settings.HUB.secure:
        fixed["Strict-Transport-Security"] = "max-age=31536000"

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = answer(request)
        for name, value in fixed.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "private, no-cache")
        return response

    return middleware


class explain:
    """The innermost: what the hub's own functions refuse becomes a page."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._answer(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        if isinstance(error, Refusal):
            return page(request, error.status, error.message)
        if isinstance(error, NotFound):
            return page(request, 404, error.message)
        if isinstance(error, DatabaseAway):
            log.error("%s", error.message)
            return page(request, 503, "The database does not answer. Try again in a moment.")
        if isinstance(error, Conflict):
            return page(request, 409, error.message)
        if isinstance(error, InvalidArgument | WherryError):
            return page(request, 400, error.message)
        if isinstance(error, RequestDataTooBig):
            return page(request, 413, "The form is larger than 1 MiB.")
        return None


def page(request: HttpRequest, status: int, text: str = "") -> HttpResponse:
    """An error as a page. One for what is private must read like one for what does not exist."""
    if status == 401:
        from django.contrib.auth.views import redirect_to_login

        return redirect_to_login(request.get_full_path())
    if status == 404:
        text = "There is no such page, or you cannot see it."
    response = render(
        request, "error.html", {"status": status, "title": _TITLES.get(status, "Error"), "text": text},
        status=status,
    )  # fmt: skip
    if status in (429, 503):
        response.headers["Retry-After"] = "60"
    return response


def missing(request: HttpRequest, exception: Exception) -> HttpResponse:
    return page(request, 404)


def broken(request: HttpRequest) -> HttpResponse:
    return page(request, 500, "The hub has made a mistake. It is in the operator's log.")


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    return page(request, 403, "You cannot do this.")


def malformed(request: HttpRequest, exception: Exception) -> HttpResponse:
    # Without a template: it would ask for the host, which may be what is wrong.
    return HttpResponse("The request cannot be understood.\n", status=400, content_type="text/plain")


def forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    return page(
        request, 403, "The form has expired, or came from another site. Go back, reload the page, try again."
    )
