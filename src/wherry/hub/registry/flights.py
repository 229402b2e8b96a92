"""Blobs that are being fetched from another registry: each is fetched once and sent to all clients meanwhile.

If objects are files, clients read the file while it is written. The last piece is withheld until the
digest is verified, so no client receives a complete but wrong blob. If objects are in S3, other clients
wait until the blob is complete. A blob that cannot be stored (no room, a full quota) is passed
through, once for each client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from wherry import threads
from wherry.errors import NotFound, Unavailable, WherryError
from wherry.hub.core import digests
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.proxying import HubProxies, away
from wherry.hub.remote.registry import RemoteBlob
from wherry.hub.store import content, proxies, repositories, uploads
from wherry.hub.store.objects import CHUNK, Full, Objects
from wherry.hub.store.proxies import Proxy
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx
from wherry.hub.store.uploads import Upload

log = logging.getLogger(__name__)
_hashing = threads.Pool("hub-proxy", 4)


class Flight:
    """One blob that is being fetched. Used on the loop only.

    :ivar size: in bytes, according to the other registry; None if it does not say.
    :ivar path: the file that is being written; None if objects are not files.
    :ivar visible: the number of bytes that clients may read.
    :ivar kept: whether it is stored. If it is not, :meth:`read` has nothing to return.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self.path: Path | None = None
        self.visible = 0
        self.kept = True
        self.opened = asyncio.Event()
        self._error: BaseException | None = None
        self._over = False
        self._news = asyncio.Condition()

    async def grow(self, visible: int) -> None:
        async with self._news:
            self.visible = visible
            self._news.notify_all()

    async def end(self, error: BaseException | None) -> None:
        async with self._news:
            self._over, self._error = True, error
            self._news.notify_all()
        self.opened.set()

    @property
    def failed(self) -> BaseException | None:
        return self._error

    async def landed(self) -> None:
        """Wait until it is complete. :raises BaseException: the error that ended it."""
        async with self._news:
            await self._news.wait_for(lambda: self._over)
        if self._error is not None:
            raise self._error

    async def read(self) -> AsyncIterator[bytes]:
        """All its bytes, as they arrive. :raises BaseException: the error that ended it."""
        assert self.path is not None
        descriptor = await threads.disk(os.open, self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            at = 0
            while True:
                async with self._news:
                    await self._news.wait_for(lambda at=at: self.visible > at or self._over)  # type: ignore[misc]
                if self.visible <= at:
                    if self._error is not None:
                        raise self._error
                    return
                piece = await threads.disk(os.pread, descriptor, min(CHUNK, self.visible - at), at)
                if not piece:
                    raise Unavailable("the file of a blob became shorter while it was fetched")
                at += len(piece)
                yield piece
        finally:
            os.close(descriptor)


class Flights:
    """All fetches of this process. :meth:`close` ends them."""

    def __init__(self, known: HubProxies, db: HubDatabase, objects: Objects, settings: HubSettings) -> None:
        self._proxies, self._db, self._objects = known, db, objects
        self._settings = replace(settings, grace=settings.proxy_keep)
        self._flights: dict[tuple[int, str, str], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def join(self, proxy: Proxy, name: str, digest: str) -> Flight:
        """The flight of a blob; starts one if none is under way. On return clients can read from it, or it
        has ended, or the blob cannot be stored.

        :raises Refusal: the other registry does not have the blob, or does not answer.
        """
        key = proxy.id, name, digest
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight()
            task = asyncio.create_task(self._fly(key, proxy, name, digest, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await flight.opened.wait()
        if isinstance(flight.failed, Refusal):
            raise flight.failed
        if isinstance(flight.failed, WherryError):
            raise away(flight.failed) from flight.failed
        return flight

    async def passing(self, proxy: Proxy, name: str, digest: str) -> RemoteBlob:
        """A blob that is sent to one client and not stored. :raises Refusal:"""
        try:
            return await self._proxies.registry(proxy).open_blob(proxy.upstream_name(name), digest)
        except NotFound as e:
            raise unknown(digest) from e
        except Unavailable as e:
            raise away(e) from e

    async def _fly(
        self, key: tuple[int, str, str], proxy: Proxy, name: str, digest: str, flight: Flight
    ) -> None:
        error: BaseException | None = None
        try:
            blob = await self.passing(proxy, name, digest)
            try:
                await self._land(proxy, name, digest, blob, flight)
            finally:
                blob.close()
        except (Full, asyncio.CancelledError) as e:
            error = Unavailable(f"cannot store a blob: {e}")
        except WherryError as e:
            error = e
        except Exception as e:
            log.exception("cannot fetch %s of %s", digest, name)
            error = Unavailable(str(e))
        finally:
            del self._flights[key]
            await flight.end(error)

    async def _land(self, proxy: Proxy, name: str, digest: str, blob: RemoteBlob, flight: Flight) -> None:
        if await self._is_here(proxy, name, digest):
            return
        try:
            await self._objects.check_room(blob.size or 0)
            upload, owner = await self._begin(proxy, name, digest, blob.size or 1)
        except (Full, Refusal) as e:
            log.warning("cannot store a blob of %s, sending it to clients without a copy: %s", name, e)
            flight.kept = False
            return
        state = ""
        renewing = asyncio.create_task(self._renew(upload.id, owner))
        try:
            flight.size, flight.path = blob.size, self._objects.path(upload.key)
            size, state = await self._receive(upload, digest, blob, flight)
            await self._objects.finish(upload.key, state, size)
            await self._db.write(
                lambda tx: uploads.finish(tx, name, upload, owner, digest, size, self._settings)
            )
            await flight.grow(size)
        except BaseException:
            await asyncio.shield(self._drop(upload, owner, state))
            raise
        finally:
            renewing.cancel()

    async def _is_here(self, proxy: Proxy, name: str, digest: str) -> bool:
        """Whether another repository already has this blob; then link it. This grants no new access: the
        other registry has just offered the same blob. Clients do not learn which repository had it."""

        def link(tx: Tx) -> bool:
            found = content.by_digest(tx, digest)
            if found is None:
                return False
            repository = proxies.ensure(tx, proxy, name, self._settings)
            content.link(tx, repository, found.id, found.size, self._settings)
            return True

        try:
            return await self._db.write(link)
        except WherryError:
            return False

    async def _begin(self, proxy: Proxy, name: str, digest: str, size: int) -> tuple[Upload, str]:
        owner = secrets.token_hex(8)

        def begin(tx: Tx) -> Upload:
            repository = proxies.ensure(tx, proxy, name, self._settings)
            repositories.check_quota(tx, repository, size)
            made = uploads.begin(tx, name, None, digests.algorithm_of(digest), self._settings)
            uploads.lease(tx, made, owner, self._settings)
            return made

        return await self._db.write(begin), owner

    async def _renew(self, upload: str, owner: str) -> None:
        while True:
            await asyncio.sleep(self._settings.lease / 4)
            await self._db.write(lambda tx: uploads.renew(tx, upload, owner, self._settings))

    async def _receive(
        self, upload: Upload, digest: str, blob: RemoteBlob, flight: Flight
    ) -> tuple[int, str]:
        """Write the bytes. :returns: their number, and the object's state."""
        algorithm, size = digests.algorithm_of(digest), 0
        running = digests.start(algorithm)
        into = await self._objects.append(upload.key, upload.state, 0)
        try:
            flight.opened.set()
            async for piece in blob.pieces():
                await asyncio.gather(into.write([piece]), _hashing.to_end(running.update, piece))
                await flight.grow(size)  # all except this piece
                size += len(piece)
            if f"{algorithm}:{running.hexdigest()}" != digest:
                raise Unavailable(f"{blob.url} sent content with another digest for {digest}")
            return size, await into.close()
        except BaseException:
            await into.abandon()
            raise

    async def _drop(self, upload: Upload, owner: str, state: str) -> None:
        await self._objects.discard(upload.key, state)
        await self._db.write(lambda tx: uploads.drop(tx, upload.id, owner))


def unknown(digest: str) -> Refusal:
    return Refusal("BLOB_UNKNOWN", "blob unknown to registry", detail={"digest": digest})
