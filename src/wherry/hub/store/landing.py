"""A blob that this hub fetches itself, from another registry or a directory.

The upload belongs to nobody else: it has a lease from its first row on, which is renewed while bytes arrive.
Whatever goes wrong, nothing of it stays but what the collector knows.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from wherry import threads
from wherry.errors import Unavailable
from wherry.hub.core import digests
from wherry.hub.store import uploads
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx
from wherry.hub.store.uploads import Upload

_hashing = threads.Pool("hub-landing", 4)


class Watcher(Protocol):
    """Whoever wants the bytes while they arrive."""

    async def opened(self, path: Path | None) -> None:
        """The object exists. :param path: its file; None if objects are not files."""
        ...

    async def arrived(self, piece: bytes) -> None:
        """The object has these bytes. The digest of all is not verified yet."""
        ...


class Landing:
    """One blob on its way into a repository. :meth:`begin` comes first, then :meth:`receive`.

    :param settings: how long the blob is kept at least (``grace``), and the lease.
    """

    def __init__(
        self, db: HubDatabase, objects: Objects, settings: HubSettings, *, repository: str, digest: str
    ) -> None:
        self._db, self._objects, self._settings = db, objects, settings
        self._repository, self._digest = repository, digest
        self._owner = secrets.token_hex(8)
        self._upload: Upload | None = None

    async def begin(self, first: Callable[[Tx], None] = lambda tx: None) -> None:
        """Make the row. :param first: what is done before, in the same transaction.

        :raises Refusal: the repository has too many open uploads, or ``first`` refuses.
        """

        def begin(tx: Tx) -> Upload:
            first(tx)
            algorithm = digests.algorithm_of(self._digest)
            made = uploads.begin(tx, self._repository, None, algorithm, self._settings)
            uploads.lease(tx, made, self._owner, self._settings)
            return made

        self._upload = await self._db.write(begin)

    async def receive(self, pieces: AsyncIterator[bytes], watcher: Watcher | None = None) -> int:
        """Store all of it. :returns: the number of its bytes.

        :raises Unavailable: the bytes have another digest.
        :raises Full: no room. :raises Exception: what ``pieces`` raises.
        """
        upload = self._upload
        assert upload is not None
        renewing = asyncio.create_task(self._renew(upload))
        state = ""
        try:
            size, state = await self._written(upload, pieces, watcher)
            await self._objects.finish(upload.key, state, size)
            await self._db.write(
                lambda tx: uploads.finish(
                    tx, self._repository, upload, self._owner, self._digest, size, self._settings
                )
            )
        except BaseException:
            await asyncio.shield(self._drop(upload, state))
            raise
        finally:
            renewing.cancel()
        return size

    async def _written(
        self, upload: Upload, pieces: AsyncIterator[bytes], watcher: Watcher | None
    ) -> tuple[int, str]:
        """Write the bytes, and check them. :returns: their number, and the object's state."""
        algorithm, size = digests.algorithm_of(self._digest), 0
        running = digests.start(algorithm)
        into = await self._objects.append(upload.key, upload.state, 0)
        try:
            if watcher is not None:
                await watcher.opened(self._objects.path(upload.key))
            async for piece in pieces:
                await asyncio.gather(into.write([piece]), _hashing.to_end(running.update, piece))
                size += len(piece)
                if watcher is not None:
                    await watcher.arrived(piece)
            if f"{algorithm}:{running.hexdigest()}" != self._digest:
                raise Unavailable(f"the source sent content with another digest for {self._digest}")
            return size, await into.close()
        except BaseException:
            await into.abandon()
            raise

    async def _renew(self, upload: Upload) -> None:
        while True:
            await asyncio.sleep(self._settings.lease / 4)
            await self._db.write(lambda tx: uploads.renew(tx, upload.id, self._owner, self._settings))

    async def _drop(self, upload: Upload, state: str) -> None:
        await self._objects.discard(upload.key, state)
        await self._db.write(lambda tx: uploads.drop(tx, upload.id, self._owner))
