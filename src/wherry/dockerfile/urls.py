"""Recognise remote sources of ADD and remote contexts."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

_GIT_URL = re.compile(r"(?:git://|git@[^/]+:|ssh://|(?:https?://)[^#?]+\.git(?:[#?]|$))", re.ASCII)


def is_git_url(url: str) -> bool:
    """Whether ADD fetches a repository: ``git://…``, ``git@host:…``, ``https://….git``."""
    return _GIT_URL.match(url) is not None


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) or is_git_url(text)


def filename_of(url: str) -> str:
    """The name of a fetched file in a destination directory; ``""`` if its URL has no path."""
    _, scheme, rest = url.partition("#")[0].partition("?")[0].partition("://")
    path = rest.partition("/")[2] if scheme else url
    name = posixpath.basename(unquote(path, errors="surrogateescape").rstrip("/"))
    return "" if name in (".", "..") or "\0" in name else name


def literal(name: str) -> str:
    """Escape a name, so that as a source it only matches itself."""
    return re.sub(r"([*?\[\\])", r"\\\1", name) if re.search(r"[*?\[]", name) else name
