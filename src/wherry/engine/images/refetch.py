"""Restore missing blobs: packed again from the layer's files, or fetched again from a registry.

A blob can be missing on purpose: a build writes none, and ``discard-blobs`` deletes them, because the packed
form of an unpacked layer is needed only to send or save it. Or the disk has lost it. The registry to fetch it
from is found in the history of names: every pull is a row there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wherry import threads
from wherry.errors import NotFound, WherryError
from wherry.images import packing
from wherry.images.store import ImageStore, descriptor_of
from wherry.model import reference
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution
from wherry.storage.leases import Lease

_PLACES_MOST = 5


class Refetcher:
    """Used on the loop only."""

    def __init__(self, *, images: ImageStore, distribution: Distribution) -> None:
        self._images = images
        self._distribution = distribution

    async def layers(self, target: Descriptor, credentials: Sequence[Credentials], lease: Lease) -> None:
        """Make sure that every unpacked layer of a target's images also exists as a blob.

        :raises NotFound: a blob cannot be restored; the text says what was tried.
        :raises Unavailable: the disk is full.
        """
        for blob, _ in await threads.disk(packing.pack_all, self._images, target, lease):
            await self.blob(blob, credentials, lease)

    async def packed(self, blob: Descriptor, lease: Lease) -> bool:
        """Pack a blob again from the files of a layer that is unpacked here."""

        def work() -> bool:
            for row in self._images.rows.all():
                target = descriptor_of(row)
                for layer in packing.missing(self._images, target):
                    if layer[0].digest == blob.digest and packing.pack(self._images, layer, lease):
                        return True
            return False

        return await threads.disk(work)

    async def blob(self, blob: Descriptor, credentials: Sequence[Credentials], lease: Lease) -> Reference:
        """Fetch a blob again. Returns the name whose repository had it.

        :raises NotFound: no repository known to this store has it.
        """
        tried = []
        for place in await threads.short(self.places, blob.digest):
            try:
                async with self._distribution.session() as session:
                    sources = await self._distribution.open(session, place, credentials)
                    await self._distribution.fetcher.fetch(sources, blob, lease, limit=asyncio.Semaphore(1))
                return place
            except WherryError as e:
                tried.append(f"{place.name}: {e.message}")
        raise NotFound(
            f"content {blob.digest} is not here any more and cannot be fetched again"
            + (f" ({'; '.join(tried)})" if tried else ": no registry is known to have it")
        )

    def places(self, digest: Digest) -> list[Reference]:
        """Repositories that should have the blob:
        those it was pulled from, then those that local names suggest."""
        rows = self._images.rows
        names = [reference.parse(name) for name in (*rows.pulled_with(digest), *rows.names_with(digest))]
        return list({name.name: name for name in reversed(names)}.values())[::-1][:_PLACES_MOST]
