"""Uploads: begun by POST, fed by PATCH, finished by PUT (distribution-spec, "Pushing blobs").

A request that writes holds the upload's lease and renews it while bytes arrive. They are hashed and written
on threads, one megabyte at a time, while the next one is received. However the request ends, the received
bytes are made durable and recorded, so that the next request continues there, on this replica or another.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from aiohttp import web

from wherry import threads
from wherry.hub.core import digests, ranges
from wherry.hub.core.digests import Hash
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.answers import empty, no_room
from wherry.hub.registry.context import Ask, Hub
from wherry.hub.store import content, repositories, uploads
from wherry.hub.store.objects import CHUNK, Appending, Full, ObjectLost
from wherry.hub.store.sql import Broken, Tx
from wherry.hub.store.uploads import Upload

_hashing = threads.Pool("hub-hash", 4)
_IDLE = 60
"""Seconds without a byte after which a body counts as broken off."""


async def begin(ask: Ask) -> web.StreamResponse:
    """POST: an upload, a whole blob in one request (``digest``), or a mount (``mount``, ``from``)."""
    query = ask.query
    algorithm = digests.check_algorithm(query.get("digest-algorithm", digests.CANONICAL))
    if "mount" in query:
        digest = digests.check(query["mount"])
        mounted = await _mount(ask, digest, query.get("from", ""))
        if mounted:
            return created(ask, digest)
        algorithm = digests.algorithm_of(digest)
    elif "digest" in query:
        digest = digests.check(query["digest"])
        upload = await _begin(ask, digests.algorithm_of(digest))
        return await _finish(ask, upload, digest)
    upload = await _begin(ask, algorithm)
    return _progress(ask, upload.id, 0, 202)


async def _begin(ask: Ask, algorithm: str) -> Upload:
    hub, length = ask.hub, ask.request.content_length or 0
    await _check_room(hub, length)

    def begin(tx: Tx) -> Upload:
        made = uploads.begin(tx, ask.name, ask.account, algorithm, hub.settings)
        repositories.check_quota(tx, repositories.needed(tx, ask.name), max(1, length))
        return made

    return await hub.db.write(begin)


async def _mount(ask: Ask, digest: str, source: str) -> bool:
    hub = ask.hub

    def mount(tx: Tx) -> bool:
        repository = repositories.ensure(tx, ask.name, hub.settings)
        return content.mount(tx, repository, digest, source, ask.caller, hub.settings)

    try:
        return await hub.db.write(mount)
    except Broken:  # the collector has removed the blob meanwhile
        return False


async def _check_room(hub: Hub, size: int) -> None:
    try:
        await hub.objects.check_room(size)
    except Full as e:
        raise no_room(e) from e


def created(ask: Ask, digest: str) -> web.StreamResponse:
    return empty(201, Location=f"/v2/{ask.name}/blobs/{digest}", Docker_Content_Digest=digest)


def _progress(ask: Ask, upload: str, received: int, status: int) -> web.StreamResponse:
    headers = {
        "Location": f"/v2/{ask.name}/blobs/uploads/{upload}",
        "Range": ranges.received(received),
        "Docker_Upload_UUID": upload,
    }
    if ask.hub.objects.min_chunk:
        headers["OCI_Chunk_Min_Length"] = str(ask.hub.objects.min_chunk)
    return empty(status, **headers)


async def status(ask: Ask) -> web.StreamResponse:
    """GET: the progress of an upload."""
    upload = await _find(ask)
    return _progress(ask, upload.id, upload.received, 204)


async def _find(ask: Ask) -> Upload:
    return await ask.hub.db.read(lambda tx: uploads.find(tx, ask.name, ask.reference, ask.account))


async def cancel(ask: Ask) -> web.StreamResponse:
    """DELETE: forget an upload."""
    hub = ask.hub
    async with _leased(ask, await _find(ask)) as (upload, owner):
        await hub.objects.discard(upload.key, upload.state)
        await hub.db.write(lambda tx: uploads.drop(tx, upload.id, owner))
    return empty(204)


async def patch(ask: Ask) -> web.StreamResponse:
    """PATCH: the next bytes; a ``Content-Range`` that does not continue there is 416."""
    upload = await _find(ask)
    _check_range(ask, upload)
    await _check_room(ask.hub, ask.request.content_length or 0)
    async with _leased(ask, upload) as (upload, owner):
        _check_range(ask, upload)
        upload = await _receive(ask, upload, owner)
    return _progress(ask, upload.id, upload.received, 202)


async def put(ask: Ask) -> web.StreamResponse:
    """PUT: the end of an upload, with its last bytes or none, and the digest of all."""
    digest = ask.query.get("digest")
    if digest is None:
        raise Refusal("DIGEST_INVALID", "the digest of the blob is missing")
    upload = await _find(ask)
    _check_range(ask, upload)
    return await _finish(ask, upload, digests.check(digest))


async def _finish(ask: Ask, upload: Upload, digest: str) -> web.StreamResponse:
    hub = ask.hub
    async with _leased(ask, upload) as (upload, owner):
        _check_range(ask, upload)
        if ask.request.can_read_body:
            upload = await _receive(ask, upload, owner, last=True)
        try:
            await hub.objects.finish(upload.key, upload.state, upload.received)
        except ObjectLost as e:
            await _drop(hub, upload, owner)
            raise Refusal("BLOB_UPLOAD_INVALID", "the uploaded data was lost: start the upload again") from e
        except Full as e:
            raise no_room(e) from e
        if not await _is(hub, upload, digest):
            await _drop(hub, upload, owner)
            raise Refusal(
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                detail={"digest": digest, "size": upload.received},
            )
        size = upload.received

        def finish(tx: Tx) -> None:
            uploads.finish(tx, ask.name, upload, owner, digest, size, hub.settings)

        await hub.db.write(finish)
    return created(ask, digest)


async def _drop(hub: Hub, upload: Upload, owner: str) -> None:
    await hub.objects.discard(upload.key, upload.state)
    await hub.db.write(lambda tx: uploads.drop(tx, upload.id, owner))


async def _is(hub: Hub, upload: Upload, digest: str) -> bool:
    """Verify the object's digest; if it was not hashed on arrival, it is read again."""
    if upload.prefix and digests.algorithm_of(upload.prefix) == digests.algorithm_of(digest):
        return upload.prefix == digest
    running = digests.start(digests.algorithm_of(digest))
    if upload.received:
        async for piece in hub.objects.read(upload.key, 0, upload.received - 1):
            await _hashing.to_end(running.update, piece)
    return f"{digests.algorithm_of(digest)}:{running.hexdigest()}" == digest


def _check_range(ask: Ask, upload: Upload) -> None:
    """:raises Refusal: 416: the chunk does not begin where the upload ends, or is of another length."""
    said = ask.request.headers.get("Content-Range")
    if said is None:
        return
    first, last = ranges.of_chunk(said)
    length = ask.request.content_length
    if first != upload.received or (length is not None and length != last - first + 1):
        raise Refusal(
            "RANGE_INVALID",
            f"the upload has {upload.received} bytes, and the chunk is {first}-{last}",
            headers={
                "Location": f"/v2/{ask.name}/blobs/uploads/{upload.id}",
                "Range": ranges.received(upload.received),
            },
        )


@asynccontextmanager
async def _leased(ask: Ask, upload: Upload) -> AsyncIterator[tuple[Upload, str]]:
    """Hold an upload's lease. The previous request may not have noticed yet that its client has gone, or its
    replica may have died, so wait for its lease as long as one lasts.

    :raises Refusal: another request is still writing.
    """
    hub, owner = ask.hub, secrets.token_hex(8)
    patience = time.monotonic() + hub.settings.lease + 5
    while not await _claim(hub, upload, owner):
        if time.monotonic() > patience:
            raise Refusal(
                "BLOB_UPLOAD_INVALID", "another request writes to this upload", status=409,
                headers={"Retry-After": "5"},
            )  # fmt: skip
        await asyncio.sleep(0.2)
        upload = await _find(ask)
    renewing = asyncio.create_task(_renew(hub, upload.id, owner))
    try:
        yield upload, owner
    finally:
        renewing.cancel()
        await asyncio.shield(hub.db.write(lambda tx: uploads.let_go(tx, upload.id, owner)))


async def _claim(hub: Hub, upload: Upload, owner: str) -> bool:
    return await hub.db.write(lambda tx: uploads.lease(tx, upload, owner, hub.settings))


async def _renew(hub: Hub, upload: str, owner: str) -> None:
    while True:
        await asyncio.sleep(hub.settings.lease / 4)
        await hub.db.write(lambda tx: uploads.renew(tx, upload, owner, hub.settings))


@dataclass
class _Feed:
    """The target of bytes: an open object, and the hash of all earlier bytes if it is known."""

    into: Appending
    hash: Hash | None
    received: int

    async def take(self, pieces: list[bytes]) -> None:
        hashing = self.hash
        both = [self.into.write(pieces)]
        if hashing is not None:
            both.append(_hashing.to_end(_update, hashing, pieces))
        await asyncio.gather(*both)
        self.received += sum(map(len, pieces))


def _update(hashing: Hash, pieces: list[bytes]) -> None:
    for piece in pieces:
        hashing.update(piece)


async def _receive(ask: Ask, upload: Upload, owner: str, *, last: bool = False) -> Upload:
    """Receive the request's body, and record what has arrived: all of it, or the part before it broke off.

    :param last: the upload ends with this request, so the progress need not be recorded.
    :raises Refusal: no room, the lease was lost, or the body is shorter than announced.
    """
    hub = ask.hub
    try:
        into = await hub.objects.append(upload.key, upload.state, upload.received)
    except ObjectLost as e:
        await _drop(hub, upload, owner)
        raise Refusal("BLOB_UPLOAD_INVALID", "the uploaded data was lost: start the upload again") from e
    except Full as e:
        raise no_room(e) from e
    feed = _Feed(into, hub.running.take(upload.id, upload.algorithm, upload.received), upload.received)
    broken: BaseException | None = None
    try:
        await _pump(ask.request, feed)
    except (Full, asyncio.CancelledError, ConnectionError, web.RequestPayloadError, TimeoutError) as e:
        broken = e
    except BaseException:
        await into.abandon()
        raise
    if isinstance(broken, Full):
        await into.abandon()
        raise no_room(broken) from broken
    return await asyncio.shield(_settle(hub, upload, owner, feed, broken, last=last and broken is None))


async def _settle(
    hub: Hub, upload: Upload, owner: str, feed: _Feed, broken: BaseException | None, *, last: bool
) -> Upload:
    try:
        state = await feed.into.close()
    except Full as e:
        raise no_room(e) from e
    hub.counters.bytes["in"] += feed.received - upload.received
    prefix = f"{upload.algorithm}:{feed.hash.hexdigest()}" if feed.hash is not None else ""
    upload = replace(upload, received=feed.received, prefix=prefix, state=state)
    if last:
        return upload
    ours = await hub.db.write(lambda tx: uploads.record(tx, upload.id, owner, upload.received, prefix, state))
    if not ours:
        raise Refusal("BLOB_UPLOAD_INVALID", "another request has taken this upload over", status=409)
    if feed.hash is not None:
        hub.running.put(upload.id, feed.received, feed.hash)
    if isinstance(broken, TimeoutError):
        raise Refusal("BLOB_UPLOAD_INVALID", f"no bytes came for {_IDLE} s", status=408) from broken
    if broken is not None:
        raise broken
    return upload


async def _pump(request: web.BaseRequest, feed: _Feed) -> None:
    """Process the body one megabyte at a time; the next one is received while the previous one is written."""
    pieces: list[bytes] = []
    size = 0
    under_way: asyncio.Task[None] | None = None
    try:
        while True:
            async with asyncio.timeout(_IDLE):
                piece = await request.content.readany()
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size >= CHUNK:
                if under_way is not None:
                    await under_way
                under_way = asyncio.create_task(feed.take(pieces))
                pieces, size = [], 0
    finally:
        if under_way is not None:
            await asyncio.shield(under_way)
        if pieces:
            await feed.take(pieces)
