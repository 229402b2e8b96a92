"""Ranges of uploads: the ``Content-Range`` of a chunk (distribution-spec, "Pushing a blob in chunks")."""

from __future__ import annotations

import re

from wherry.hub.core.refusals import Refusal

_CHUNK = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:\*|[0-9]{1,18}))?", re.ASCII)


def of_chunk(text: str) -> tuple[int, int]:
    """First and last byte of a chunk, both inclusive. HTTP's form with ``bytes`` is accepted as well.

    :raises Refusal: 416 for a malformed range.
    """
    found = _CHUNK.fullmatch(text.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise Refusal("RANGE_INVALID", f"invalid Content-Range: {text[:80]!r}")
    return int(found[1]), int(found[2])


def received(offset: int) -> str:
    """The ``Range`` header for an upload that has ``offset`` bytes. An empty upload has ``0-0``, as in
    Docker's registry: a range cannot be empty."""
    return f"0-{max(0, offset - 1)}"
