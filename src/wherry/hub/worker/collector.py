"""The collector: it runs beside pushes and pulls, without a read-only mode and without a lock over all.

The order is always: delete the row and commit; then delete the object. So every row has its bytes, and after
a crash in between a trash row still names the object. ``store/collect.py`` has the steps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from wherry.hub.store import accounts, collect, proxies, uploads
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase, Tx
from wherry.hub.store.uploads import Upload

log = logging.getLogger(__name__)
_PASSES = 1000
"""The maximum number of batches of one kind in a pass, so that other kinds have their turn."""
_REST_MAX = 0.2
"""Seconds between two batches, at most."""
_Step = Callable[[Tx, HubSettings], tuple[int, int]]
_STEPS: dict[str, _Step] = {
    "repositories": collect.deleted_repositories,
    "manifests": collect.manifests,
    "links": collect.links,
    "blobs": collect.blobs,
}


@dataclass
class CollectionReport:
    """The result of one pass: the number of deleted rows of each kind."""

    gone: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.gone.values())


async def _rest(began: float) -> None:
    """Leave the processor and the database to requests for as long as a batch took."""
    await asyncio.sleep(min(_REST_MAX, time.monotonic() - began))


class HubCollector:
    def __init__(self, db: HubDatabase, objects: Objects, settings: HubSettings) -> None:
        self._db, self._objects, self._settings = db, objects, settings

    async def run(self) -> CollectionReport:
        """Collect everything that is due now."""
        report = CollectionReport()
        for name, step in _STEPS.items():
            report.gone[name] = await self._all(step)
        report.gone["uploads"] = await self.expire_uploads()
        report.gone["objects"] = await self.empty_trash()
        if report.total:
            log.info("collected %s", ", ".join(f"{n} {name}" for name, n in report.gone.items() if n))
        return report

    async def _all(self, step: _Step) -> int:
        gone = 0
        for _ in range(_PASSES):
            began = time.monotonic()
            seen, went = await self._db.write(lambda tx: step(tx, self._settings))
            gone += went
            if seen < collect.BATCH:
                break
            await _rest(began)
        return gone

    async def expire_uploads(self) -> int:
        """Discard abandoned uploads. The object is deleted first, while its row still names it."""
        gone = 0
        for upload in await self._db.read(lambda tx: uploads.expired(tx, collect.BATCH)):
            gone += await self._discard(upload)
        return gone

    async def _discard(self, upload: Upload) -> bool:
        owner = f"expire-{upload.id}"
        if not await self._db.write(lambda tx: uploads.lease(tx, upload, owner, self._settings)):
            return False  # it is being continued after all
        await self._objects.discard(upload.key, upload.state)
        return await self._db.write(lambda tx: uploads.drop(tx, upload.id, owner))

    async def empty_trash(self) -> int:
        gone = 0
        for _ in range(_PASSES):
            began = time.monotonic()
            keys = await self._db.write(collect.trash)
            if keys:
                await self._objects.delete(*keys)
                await self._db.write(lambda tx, keys=keys: collect.emptied(tx, keys))  # type: ignore[misc]
            gone += len(keys)
            if len(keys) < collect.BATCH:
                break
            await _rest(began)
        return gone

    async def forget(self, before: float) -> None:
        """Delete revocations that are older than any valid token."""
        await self._db.write(lambda tx: accounts.forget_revocations(tx, before))

    async def forget_copies(self) -> None:
        """Delete copies of other registries' manifests that were not pulled for long; the collector deletes
        their blobs."""
        while await self._db.write(lambda tx: proxies.forget(tx, self._settings)):
            pass
