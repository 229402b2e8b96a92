"""What views share: who asks, reading and changing rows, forms with a few fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.hub.core.reach import Rules
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.rights import ANYBODY, Principal
from wherry.hub.service.who import HubCaller
from wherry.hub.store import profiles, site
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import Tx
from wherry.hub.web.models import Person
from wherry.hub.web.rows import read, write

T = TypeVar("T")
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Surroundings:
    """What pages need of the hub besides rows.

    :ivar load: read an object of at most so many bytes, from a page's thread.
    """

    settings: HubSettings
    webhooks: Rules
    load: Callable[[str, int], bytes]
    objects: Objects
    database: str


_surroundings: list[Surroundings] = []


def surround(found: Surroundings) -> None:
    """Called once, before the first request."""
    _surroundings[:] = [found]


def surroundings() -> Surroundings:
    return _surroundings[0]


def user_of(request: HttpRequest) -> Person | None:
    user = request.user
    return cast(Person, user) if user.is_authenticated else None


def principal_of(request: HttpRequest) -> Principal:
    """An administrator without a second factor is an ordinary account on pages."""
    user = user_of(request)
    if user is None:
        return ANYBODY
    admin = user.admin and (user.second_factor or not settings.HUB.admin_factor)
    return Principal(user.pk, user.name, admin, subjects=(f"account:{user.pk}",))


def caller_of(request: HttpRequest) -> HubCaller:
    around = surroundings()
    return HubCaller(
        principal_of(request), str(request.META.get("REMOTE_ADDR", "")), around.settings, around.webhooks
    )


def signed_in(view: View) -> View:
    """A page for people who are logged in."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        if user_of(request) is None:
            return redirect_to_login(request.get_full_path())
        return view(request, *args, **named)

    return checked


def posted(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "").strip()


def number(text: str, usual: int, most: int) -> int:
    """A number of the query; ``usual`` if it is none."""
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 10 else usual


def optional(request: HttpRequest, name: str) -> int | None:
    """:raises InvalidArgument: not a number."""
    text = posted(request, name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise InvalidArgument(f"{name}: use a number")
    return int(text)


def go(path: str) -> HttpResponseRedirect:
    """After a form."""
    response = HttpResponseRedirect(path)
    response.status_code = 303
    return response


def change(
    request: HttpRequest, work: Callable[[Tx, HubCaller], T], told: str, path: str, otherwise: str = ""
) -> HttpResponse:
    """Change rows for the caller and go on to ``path``, with a message; if it is refused, to ``otherwise``
    (empty: also to ``path``), with the reason."""
    caller = caller_of(request)
    try:
        write(lambda tx: work(tx, caller))
    except (InvalidArgument, Conflict, NotFound) as e:
        messages.error(request, e.message)
    except Refusal as e:
        if e.status in (401, 404) or (
            e.code == "DENIED" and e.detail is None and e.message.startswith("you ")
        ):
            raise
        messages.error(request, e.message)
    else:
        if told:
            messages.success(request, told)
        return go(path)
    return go(otherwise or path)


def look(request: HttpRequest, work: Callable[[Tx, HubCaller], T]) -> T:
    """Read rows for the caller."""
    caller = caller_of(request)
    return read(lambda tx: work(tx, caller))


def context(request: HttpRequest) -> dict[str, Any]:
    """What every template has."""
    user = user_of(request) if hasattr(request, "user") else None
    hub = settings.HUB

    def rows(tx: Tx) -> tuple[str, list[tuple[str, str]]]:
        return site.get(tx, site.BANNER), profiles.spaces_of(tx, user.pk) if user is not None else []

    banner, spaces = read(rows)
    return {
        "hub": hub,
        "host": request.get_host(),
        "banner": banner,
        "me": user,
        "admin": principal_of(request).admin if user is not None else False,
        "spaces": spaces,
    }
