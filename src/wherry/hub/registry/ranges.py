"""``Range`` headers of requests (RFC 9110, 14.1.2 "Byte Ranges")."""

from __future__ import annotations

import re

from wherry.hub.core.refusals import Refusal

_ONE = re.compile(r"bytes=\s*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))\s*", re.ASCII)


def asked(text: str, size: int) -> tuple[int, int] | None:
    """The first and last byte of a ``Range``; none for an unknown unit, which is ignored.

    :raises Refusal: 416: it is outside the blob, or has several ranges.
    """
    if not text.strip().lower().startswith("bytes="):
        return None
    found = _ONE.fullmatch(text.strip().lower())
    if found is None:
        raise _unsatisfiable(text, size)
    if found[3]:  # a suffix: the last bytes
        length = int(found[3])
        first, last = max(0, size - length), size - 1
        if length == 0:
            raise _unsatisfiable(text, size)
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:
            raise _unsatisfiable(text, size)
    if first >= size:
        raise _unsatisfiable(text, size)
    return first, last


def _unsatisfiable(text: str, size: int) -> Refusal:
    return Refusal(
        "RANGE_INVALID", f"no such range: {text[:80]!r}", headers={"Content-Range": f"bytes */{size}"}
    )
