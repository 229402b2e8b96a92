"""Patterns with ``*``, for repositories and tags: it matches any characters, including slashes; all other
characters match themselves.

Matching takes linear time: the pieces of the pattern are searched one after the other.
"""

from __future__ import annotations

from wherry.errors import InvalidArgument

LENGTH_MAX = 255


def check(pattern: str) -> str:
    """:raises InvalidArgument: empty, or too long."""
    if not 0 < len(pattern) <= LENGTH_MAX:
        raise InvalidArgument(f"invalid pattern {pattern[:40]!r}: 1 to {LENGTH_MAX} characters")
    return pattern


def matches(pattern: str, text: str) -> bool:
    first, *pieces = pattern.split("*")
    if not pieces:
        return text == pattern
    if not text.startswith(first):
        return False
    at, last = len(first), pieces.pop()
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(text) - at >= len(last) and text.endswith(last)
