"""Blobs: reading and deleting.

On a plain socket the kernel sends the file (sendfile). Over TLS asyncio would do this in a loop of small
reads, so large chunks are written instead, which is eight times as fast. Where objects are elsewhere, a
client is sent there, or the bytes pass through.
"""

from __future__ import annotations

import asyncio
from typing import IO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from wherry import threads
from wherry.hub.core import digests
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.answers import COMMON, SANDBOX, empty
from wherry.hub.registry.context import Ask
from wherry.hub.registry.fetching import fetched
from wherry.hub.registry.flights import unknown
from wherry.hub.registry.ranges import asked
from wherry.hub.store import content, repositories
from wherry.hub.store.content import Blob, Named
from wherry.hub.store.objects import Full, ObjectLost
from wherry.hub.store.sql import Tx

_REDIRECT_FROM = 1 << 20
"""Bytes; smaller blobs are sent by us, because a redirect would take longer."""
_files = threads.Pool("hub-open", 8)


async def get(ask: Ask) -> web.StreamResponse:
    """GET and HEAD of a blob, whole or a range (RFC 9110, "Range Requests")."""
    hub, digest = ask.hub, digests.check(ask.reference)
    headers = {
        **COMMON,
        **SANDBOX,
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000, immutable",
        "Content-Disposition": "attachment",
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
    }
    blob = await _look(ask, digest)
    if blob is None and (proxy := await hub.proxies.of(ask.name)) is not None:
        answer = await fetched(ask, proxy, digest, headers)
        if answer is not None:
            return answer
        blob = await _look(ask, digest)
    if blob is None:
        there = await hub.db.read(lambda tx: repositories.find(tx, ask.name))
        raise unknown(digest) if there else repositories.unknown(ask.name)
    matches = ask.request.headers.get("If-None-Match", "")
    if f'"{digest}"' in matches or matches == "*":
        return web.Response(status=304, headers=headers)
    conditional = ask.request.headers.get("If-Range", f'"{digest}"')
    wanted = ask.request.headers.get("Range") if conditional == f'"{digest}"' else None
    whole = wanted is None or ask.request.method == "HEAD"
    span = (0, blob.size - 1) if whole else asked(wanted or "", blob.size)
    if span is None:
        span, whole = (0, blob.size - 1), True
    if not whole:
        headers["Content-Range"] = f"bytes {span[0]}-{span[1]}/{blob.size}"
    status = 200 if whole else 206
    if ask.request.method == "HEAD":
        await _exists(ask, blob)
        return web.Response(status=status, headers={**headers, "Content-Length": str(blob.size)})
    elsewhere = await _elsewhere(ask, blob)
    if elsewhere is not None:
        return elsewhere
    headers["Content-Length"] = str(span[1] - span[0] + 1)
    hub.counters.bytes["out"] += span[1] - span[0] + 1
    path = hub.objects.path(blob.key)
    if path is None:
        return await _stream(ask, blob, span, status, headers)
    transport = ask.request.transport
    try:
        file = await _files.to_end(open, path, "rb", 0)
    except FileNotFoundError:
        raise await lost(ask, blob) from None
    if transport is not None and transport.get_extra_info("sslcontext") is not None:
        file.close()
        return await _stream(ask, blob, span, status, headers)
    return FileAnswer(file, span, status, headers)


async def _look(ask: Ask, digest: str) -> Blob | None:
    """Find a blob; if it exists, it is protected from the collector for a while."""
    blob = await ask.hub.db.read(lambda tx: content.find(tx, ask.name, digest))
    if blob is not None and content.half_over(blob, ask.hub.settings):
        await _promise(ask, blob)
    return blob


async def _promise(ask: Ask, blob: Blob) -> None:
    """A client that learns that a blob exists does not push it, so the blob must stay long enough."""

    def keep(tx: Tx) -> bool:
        repository = repositories.needed(tx, ask.name)
        return content.promise(tx, repository, blob.id, ask.hub.settings)

    if not await ask.hub.db.write(keep):
        raise unknown(blob.digest)


async def _exists(ask: Ask, blob: Blob) -> None:
    """Check the object itself, so that a push can restore a lost one."""
    if ask.hub.objects.path(blob.key) is not None and await ask.hub.objects.size(blob.key) is None:
        raise await lost(ask, blob)


async def lost(ask: Ask, blob: Blob) -> Refusal:
    """Record that a blob's object is lost, so that a push of it is accepted."""
    await ask.hub.db.write(lambda tx: content.mark_lost(tx, blob.digest, blob.key))
    return unknown(blob.digest)


async def _elsewhere(ask: Ask, blob: Blob) -> web.StreamResponse | None:
    """An answer that lets the object store or a front proxy send the bytes, if that is configured."""
    hub = ask.hub
    if hub.accel and hub.objects.path(blob.key) is not None:
        place = f"{hub.accel.rstrip('/')}/{blob.key[:2]}/{blob.key}"
        return web.Response(
            headers={
                **COMMON, **SANDBOX, "X-Accel-Redirect": place, "Docker-Content-Digest": blob.digest,
                "Content-Type": "application/octet-stream", "ETag": f'"{blob.digest}"',
            }
        )  # fmt: skip
    if hub.redirect and blob.size >= _REDIRECT_FROM:
        address = await hub.objects.address(blob.key, hub.redirect)
        if address is not None:
            return empty(307, Location=address, Docker_Content_Digest=blob.digest, Cache_Control="no-store")
    return None


async def _stream(
    ask: Ask, blob: Blob, span: tuple[int, int], status: int, headers: dict[str, str]
) -> web.StreamResponse:
    pieces = ask.hub.objects.read(blob.key, *span)
    try:
        first = await anext(pieces, b"")
    except ObjectLost:
        raise await lost(ask, blob) from None
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(ask.request)
    try:
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
    except (ObjectLost, Full) as e:  # too late for an error answer: the client must see the break
        raise ConnectionResetError(str(e)) from e
    await response.write_eof()
    return response


class FileAnswer(web.StreamResponse):
    """A part of an open file that the kernel sends. The file is closed at the end, also after an error."""

    def __init__(self, file: IO[bytes], span: tuple[int, int], status: int, headers: dict[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._file, self._span = file, span

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            writer = await super().prepare(request)
            transport = request.transport
            if transport is None:
                raise ConnectionResetError("the client has gone")
            first, last = self._span
            if last >= first:
                loop = asyncio.get_running_loop()
                sent = await loop.sendfile(transport, self._file, first, last - first + 1)
                if sent != last - first + 1:
                    raise ConnectionResetError("an object is shorter than its row says")
            await super().write_eof()
            return writer
        finally:
            self._file.close()

    def __del__(self) -> None:
        # The answer was made but not sent, because the client had disconnected.
        self._file.close()


async def delete(ask: Ask) -> web.StreamResponse:
    """DELETE of a blob from a repository. A blob that an image needs cannot be deleted: 405."""
    digest = digests.check(ask.reference)
    try:
        gone = await ask.hub.db.write(lambda tx: content.hide(tx, ask.name, digest))
    except Named as e:
        raise Refusal(
            "UNSUPPORTED",
            f"the blob cannot be deleted: manifest {e.args[0]} names it",
            detail={"digest": digest, "manifest": e.args[0]},
        ) from e
    if not gone:
        raise unknown(digest)
    return empty(202)
