"""Routes: a method and a path with places in braces, and the function that answers, in a transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.errors import InvalidArgument
from wherry.hub.service.who import HubCaller
from wherry.hub.store.sql import Tx

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PLACES = {
    "repository": rf"{_COMPONENT}(?:/{_COMPONENT})*",
    "namespace": _COMPONENT,
    "team": _COMPONENT,
    "tag": r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
    "digest": r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})",
    "account": r"[a-z0-9.+_-]{1,130}",
    "number": r"[0-9]{1,18}",
}
PAGE, PAGE_MAX, PAGES_MAX = 25, 100, 1000


@dataclass(frozen=True)
class ApiAsk:
    """One request: the places of its path, its query, and its body (an object; empty without one)."""

    caller: HubCaller
    places: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def place(self, name: str) -> str:
        return self.places[name]

    @property
    def repository(self) -> str:
        return self.places["repository"]

    @property
    def number(self) -> int:
        return int(self.places["number"])

    def text(self, name: str, usual: str | None = None, most: int = 4000) -> str:
        """A text of the body. :raises InvalidArgument: it is missing, too long, or not a text."""
        value = self.body.get(name, usual)
        if not isinstance(value, str) or len(value) > most or "\0" in value:
            raise InvalidArgument(f"{name}: a text of at most {most} characters is needed")
        return value

    def flag(self, name: str, usual: bool = False) -> bool:
        """:raises InvalidArgument: not true or false."""
        value = self.body.get(name, usual)
        if not isinstance(value, bool):
            raise InvalidArgument(f"{name}: use true or false")
        return value

    def count(self, name: str) -> int | None:
        """:raises InvalidArgument: not a whole number."""
        value = self.body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InvalidArgument(f"{name}: use a whole number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """:raises InvalidArgument: not a list of texts."""
        value = self.body.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or len(value) > 100:
            raise InvalidArgument(f"{name}: use a list of texts")
        return tuple(value)

    def before(self) -> int:
        """The id of ``before`` in the query; without one, a number above all ids. :raises InvalidArgument:"""
        return self._whole("before", 2**62, 2**62)

    def page(self) -> tuple[int, int]:
        """The number of lines and how many to leave out, of ``page_size`` and ``page`` of the query.

        :raises InvalidArgument:
        """
        size, page = self._whole("page_size", PAGE, PAGE_MAX), self._whole("page", 1, PAGES_MAX)
        return size, (page - 1) * size

    def _whole(self, name: str, usual: int, most: int) -> int:
        text = self.query.get(name, "")
        if not text:
            return usual
        if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < 1:
            raise InvalidArgument(f"invalid {name}: {text[:40]!r}")
        return min(int(text), most)


Answer = Callable[[Tx, ApiAsk], Any]


@dataclass(frozen=True)
class ApiRoute:
    """``writes``: it changes rows. The function's docstring says what it does; None as its result is 204."""

    method: str
    path: str
    answer: Answer
    writes: bool
    public: bool = False
    """Whether it answers those who are not logged in as well."""

    @property
    def summary(self) -> str:
        return (self.answer.__doc__ or "").partition("\n")[0]


class Routes:
    """A table of routes; the first that matches answers."""

    def __init__(self) -> None:
        self.all: list[tuple[re.Pattern[str], ApiRoute]] = []

    def add(self, method: str, path: str, *, public: bool = False) -> Callable[[Answer], Answer]:
        """Declare the answer of a route."""

        def declare(answer: Answer) -> Answer:
            route = ApiRoute(method, f"/api/v1{path}", answer, method != "GET", public)
            self.all.append((_expression(route.path), route))
            return answer

        return declare

    def find(self, method: str, path: str) -> tuple[ApiRoute | None, dict[str, str], list[str]]:
        """The route, the places of the path, and the methods that the path has (none: there is no such
        path)."""
        methods: list[str] = []
        for expression, route in self.all:
            found = expression.fullmatch(path)
            if found is None:
                continue
            if route.method == method:
                return route, found.groupdict(), []
            methods.append(route.method)
        return None, {}, sorted(set(methods))


def _expression(path: str) -> re.Pattern[str]:
    parts = [
        f"(?P<{part[1:-1]}>{_PLACES[part[1:-1]]})" if part.startswith("{") else re.escape(part)
        for part in path.split("/")
    ]
    return re.compile("/".join(parts))


ROUTES = Routes()
