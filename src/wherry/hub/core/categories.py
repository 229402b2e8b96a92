"""What repositories can be filed under, and which of them are official."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.errors import InvalidArgument
from wherry.hub.core import names

CATEGORIES = {
    "base": "Base images",
    "build": "Build and CI",
    "data": "Databases and storage",
    "web": "Web servers and proxies",
    "languages": "Languages and frameworks",
    "messaging": "Messaging and streaming",
    "monitoring": "Monitoring and logs",
    "networking": "Networking",
    "security": "Security",
    "science": "Data science and AI",
    "desktop": "Desktop and games",
    "tools": "Tools",
}
MOST = 3
"""The maximum number of categories of a repository."""


def packed(words: Iterable[str]) -> str:
    """As the column of the row: a blank before and after each word. :raises InvalidArgument:"""
    chosen = list(dict.fromkeys(words))
    for word in chosen:
        if word not in CATEGORIES:
            raise InvalidArgument(f"no such category: {word[:40]!r}")
    if len(chosen) > MOST:
        raise InvalidArgument(f"at most {MOST} categories")
    return f" {' '.join(chosen)} " if chosen else ""


def is_official(repository: str) -> bool:
    """Only administrators can write to these namespaces."""
    return names.namespace_of(repository) in ("", "library")
