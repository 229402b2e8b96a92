"""Compare rows with objects: every row's object exists, and every object has a row.

It runs while the hub serves. Each problem is checked twice, because the collector may be at work. A blob
whose object is missing or damaged is marked: it counts as missing, and the next push of it restores it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from wherry import threads
from wherry.hub.core import digests
from wherry.hub.store import checks, content
from wherry.hub.store.checks import CheckedBlob
from wherry.hub.store.objects import ObjectLost, Objects
from wherry.hub.store.sql import HubDatabase, now

_PAGE = 500
YOUNG = 3600
"""Seconds that an object may exist without a row: an upload is being created or discarded."""


@dataclass(frozen=True)
class HubFinding:
    """:ivar kind: missing, damaged, unknown, count, broken. :ivar what: the blob, object, namespace,
    image."""

    kind: str
    what: str
    text: str


class Fsck:
    def __init__(
        self, db: HubDatabase, objects: Objects, *, repair: bool = False, rate: int = 0, young: int = YOUNG
    ) -> None:
        """:param rate: bytes per second to read and hash again; 0: only check sizes."""
        self._db, self._objects = db, objects
        self._repair, self._rate, self._young = repair, rate, young
        self.looked = 0

    async def run(self) -> AsyncIterator[HubFinding]:
        async for finding in self._blobs():
            yield finding
        async for finding in self._unknown():
            yield finding
        for _, name, counted, there in await self._db.scan(checks.used):
            yield HubFinding("count", name, f"the sum is {counted} bytes, but the blobs have {there}")
        if self._repair:
            await self._db.write(checks.recount)
        for image in await self._db.scan(checks.broken):
            yield HubFinding("broken", image, "it refers to a blob that does not exist")

    async def _blobs(self) -> AsyncIterator[HubFinding]:
        after = 0
        while page := await self._db.scan(lambda tx, a=after: checks.blobs(tx, a, _PAGE)):  # type: ignore[misc]
            for blob in page:
                after = blob.id
                self.looked += 1
                finding = await self._wrong(blob)
                if finding is not None:
                    yield finding

    async def _wrong(self, blob: CheckedBlob) -> HubFinding | None:
        size = await self._objects.size(blob.key)
        if size == blob.size and await self._is_sound(blob):
            return None
        if not await self._db.read(lambda tx: checks.is_there(tx, blob)):
            return None
        if self._repair:
            await self._db.write(lambda tx: content.mark_lost(tx, blob.digest, blob.key))
        if size is None:
            return HubFinding("missing", blob.digest, f"its object {blob.key} does not exist")
        text = f"{size} bytes, not {blob.size}" if size != blob.size else "other bytes than were pushed"
        return HubFinding("damaged", blob.digest, f"its object {blob.key} has {text}")

    async def _is_sound(self, blob: CheckedBlob) -> bool:
        if not self._rate:
            return True
        running = digests.start(digests.algorithm_of(blob.digest))
        began, read = time.monotonic(), 0
        try:
            async for piece in self._objects.read(blob.key, 0, blob.size - 1):
                await threads.disk(running.update, piece)
                read += len(piece)
                early = read / self._rate - (time.monotonic() - began)
                if early > 0:
                    await asyncio.sleep(early)
        except ObjectLost:
            return False
        if not blob.digest.endswith(f":{running.hexdigest()}"):
            return False
        await self._db.write(lambda tx: checks.verified(tx, blob, now()))
        return True

    async def _unknown(self) -> AsyncIterator[HubFinding]:
        horizon = time.time() - self._young
        async for one in self._objects.all():
            key = one.key.removesuffix(".tail")
            if one.changed > horizon or await self._db.read(lambda tx, k=key: checks.is_known(tx, k)):  # type: ignore[misc]
                continue
            if self._repair:
                await self._objects.delete(one.key)
            yield HubFinding("unknown", one.key, f"no row refers to this object of {one.size} bytes")
