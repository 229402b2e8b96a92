"""Maps paths to handlers. ``{id}`` stands for one segment of a path, ``{name:path}`` for one or more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import unquote

from wherry.api.context import Handler, Version
from wherry.errors import InvalidArgument

API_VERSION: Version = (1, 56)
MIN_VERSION: Version = (1, 40)

_PREFIX = re.compile(r"/v(\d+)\.(\d+)(?=/)", re.ASCII)
_DIGITS = 9
"""The maximum number of digits of a version number; any longer one is too new anyway."""
Route = tuple[str, str, Handler]


def version_text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def split_version(path: str) -> tuple[Version, str]:
    """``/v1.45/info`` as ((1, 45), "/info"); without a prefix the newest version.

    :raises InvalidArgument: a version that this daemon does not support, with Docker's message.
    """
    match = _PREFIX.match(path)
    if match is None:
        return API_VERSION, path
    version = (int(match[1][:_DIGITS]), int(match[2][:_DIGITS]))
    text = version_text(version)
    if version < MIN_VERSION:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is "
            f"{version_text(MIN_VERSION)}, please upgrade your client to a newer version"
        )
    if version > API_VERSION:
        raise InvalidArgument(
            f"client version {text} is too new. Maximum supported API version is {version_text(API_VERSION)}"
        )
    return version, path[match.end() :]


class Router:
    """Exact paths by dictionary, others by regular expression; the first one added wins."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: defaultdict[str, list[tuple[re.Pattern[str], Handler, str]]] = defaultdict(list)
        for method, pattern, handler in routes:
            if "{" in pattern:
                self._patterns[method].append((_compile(pattern), handler, pattern))
            else:
                self._exact.setdefault((method, pattern), handler)

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str], str] | None:
        """The handler, the path's parameters, and the route. ``path`` is still percent-encoded."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}, path
        for pattern, handler, route in self._patterns[method]:
            match = pattern.fullmatch(path)
            if match is not None:
                return handler, {k: unquote(v) for k, v in match.groupdict().items()}, route
        return None


def _compile(pattern: str) -> re.Pattern[str]:
    out = re.sub(r"\\{(\w+):path\\}", r"(?P<\1>.+)", re.escape(pattern))
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", out))
