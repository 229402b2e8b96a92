"""Blobs that are being fetched from another registry: each is fetched once and sent to all clients meanwhile.

Clients read the object's file while it is written. If objects are not files (S3), the bytes are also written
to a file without a name, which is gone with its last reader. The last piece is withheld until the digest is
verified, so no client receives a complete but wrong blob. A blob that cannot be stored (no room, a full
quota) is passed through, once for each client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from wherry import threads
from wherry.errors import NotFound, Unavailable, WherryError
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry.proxying import HubProxies, away
from wherry.hub.remote.registry import RemoteBlob
from wherry.hub.store import content, proxies, repositories
from wherry.hub.store.files import RESERVE, write_all
from wherry.hub.store.landing import Landing
from wherry.hub.store.objects import CHUNK, Full, Objects
from wherry.hub.store.proxies import Proxy
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx

log = logging.getLogger(__name__)


class Flight:
    """One blob that is being fetched. Used on the loop only; the fetch tells it what arrives.

    :ivar size: in bytes, according to the other registry; None if it does not say.
    :ivar kept: whether it is stored. If it is not, there is nothing to read here.
    :ivar ready: set when clients can read it, or when they need not wait for that any more.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        self.kept = True
        self.ready = asyncio.Event()
        self._file: int | None = None
        self._copied = False
        self._arrived = self._visible = 0
        self._error: BaseException | None = None
        self._over = self._torn = False
        self._news = asyncio.Condition()

    # what the fetch says

    async def opened(self, path: Path | None) -> None:
        """:param path: the object's file, if it is one."""
        if path is not None:
            self._file = await threads.disk(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        elif self.size is not None:
            self._file = await threads.disk(_nameless, self.size)
            self._copied = self._file is not None
        self.ready.set()

    async def arrived(self, piece: bytes) -> None:
        if self._copied and self._file is not None:
            try:
                await threads.disk.to_end(write_all, self._file, [piece])
            except OSError as e:
                log.warning("cannot copy a blob for its readers, they must come again: %s", e)
                self._torn = True
                self._close()
        self._arrived += len(piece)
        await self._grow(self._arrived - len(piece))  # all except this piece

    async def end(self, error: BaseException | None) -> None:
        self._over, self._error = True, error
        await self._grow(self._arrived if error is None else self._visible)
        self._close()
        self.ready.set()

    async def _grow(self, visible: int) -> None:
        async with self._news:
            self._visible = visible
            self._news.notify_all()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # what clients ask

    @property
    def failed(self) -> BaseException | None:
        return self._error

    async def landed(self) -> None:
        """Wait until it is complete. :raises BaseException: the error that ended it."""
        async with self._news:
            await self._news.wait_for(lambda: self._over)
        if self._error is not None:
            raise self._error

    def reader(self) -> FlightReader | None:
        """A reader of all its bytes; None if they cannot be read here (any more)."""
        return FlightReader(self, os.dup(self._file)) if self._file is not None else None

    async def until(self, at: int) -> int:
        """Wait for more than ``at`` bytes. :returns: how many can be read; ``at`` if these were all.

        :raises BaseException: the error that ended the fetch.
        """
        async with self._news:
            await self._news.wait_for(lambda: self._visible > at or self._over or self._torn)
        if self._torn:
            raise Unavailable("the copy of a blob for its readers is incomplete")
        if self._visible <= at and self._error is not None:
            raise self._error
        return max(at, self._visible)


class FlightReader:
    """One client's view of a blob that is being fetched."""

    def __init__(self, flight: Flight, descriptor: int) -> None:
        self._flight, self._descriptor = flight, descriptor

    async def pieces(self) -> AsyncIterator[bytes]:
        """All bytes, as they arrive. :raises BaseException: the error that ended the fetch."""
        at = 0
        while (visible := await self._flight.until(at)) > at:
            piece = await threads.disk.to_end(os.pread, self._descriptor, min(CHUNK, visible - at), at)
            if not piece:
                raise Unavailable("the file of a blob became shorter while it was fetched")
            at += len(piece)
            yield piece

    def close(self) -> None:
        os.close(self._descriptor)


def _nameless(size: int) -> int | None:
    """A file without a name, for ``size`` bytes; None if there is no room."""
    place = os.environ.get("TMPDIR") or "/var/tmp"
    with contextlib.suppress(OSError):
        if shutil.disk_usage(place).free >= size + RESERVE:
            with tempfile.TemporaryFile(dir=place) as file:
                return os.dup(file.fileno())
    return None


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
        await flight.ready.wait()
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
        landing = Landing(self._db, self._objects, self._settings, repository=name, digest=digest)
        try:
            await self._objects.check_room(blob.size or 0)
            await landing.begin(lambda tx: self._prepare(tx, proxy, name, blob.size or 1))
        except (Full, Refusal) as e:
            log.warning("cannot store a blob of %s, sending it to clients without a copy: %s", name, e)
            flight.kept = False
            return
        flight.size = blob.size
        await landing.receive(blob.pieces(), flight)

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

    def _prepare(self, tx: Tx, proxy: Proxy, name: str, size: int) -> None:
        repository = proxies.ensure(tx, proxy, name, self._settings)
        repositories.check_quota(tx, repository, size)


def unknown(digest: str) -> Refusal:
    return Refusal("BLOB_UNKNOWN", "blob unknown to registry", detail={"digest": digest})
