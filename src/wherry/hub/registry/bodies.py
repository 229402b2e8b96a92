"""Read a small body, with a limit and a timeout."""

from __future__ import annotations

import asyncio

from aiohttp import web

from wherry.hub.core.refusals import Refusal

_IDLE = 60
"""Seconds for the whole of a small body."""


async def read(request: web.BaseRequest, most: int, code: str) -> bytes:
    """The body, of at most ``most`` bytes.

    :raises Refusal: ``code`` as 413 if it is too large, as 408 if it does not arrive in time.
    """
    if (request.content_length or 0) > most:
        raise _large(code, most)
    body = bytearray()
    try:
        async with asyncio.timeout(_IDLE):
            while piece := await request.content.readany():
                body += piece
                if len(body) > most:
                    raise _large(code, most)
    except TimeoutError as e:
        raise Refusal(code, "the body does not come", status=408) from e
    return bytes(body)


def _large(code: str, most: int) -> Refusal:
    return Refusal(code, f"the body is larger than {most} bytes", status=413)


def number(request: web.BaseRequest, name: str, usual: int, most: int) -> int:
    """A number of the query from 1 on; ``usual`` if there is none, and ``most`` at most.

    :raises Refusal: ``PAGINATION_NUMBER_INVALID``.
    """
    text = request.query.get(name, "")
    if not text:
        return usual
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise Refusal("PAGINATION_NUMBER_INVALID", f"invalid {name}: {text[:40]!r}")
    return min(int(text), most)
