"""Blobs that were here, fetched again from the registries they came from.

A blob goes missing on purpose (``discard-blobs``: an unpacked layer needs its packed form only to be sent
or saved), or because the disk lost it. Where it came from is in the history of names: every pull is a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wherry.errors import NotFound, WherryError
from wherry.images.store import ImageStore
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
        """Have every layer of a target's images that are unpacked here as a blob as well.

        :raises NotFound: a blob is nowhere to be had; the text says what was tried.
        """
        for blob in await asyncio.to_thread(self.missing, target):
            await self.blob(blob, credentials, lease)

    def missing(self, target: Descriptor) -> list[Descriptor]:
        """Layers that are unpacked and whose blobs are not here."""
        images, found = self._images, {}
        for image in images.graph.manifests(target):
            if image.config is None or image.is_attestation:
                continue
            for blob, chain in zip(image.manifest.layers, image.chain_ids, strict=False):
                if images.layers.has(chain) and not images.content.has(blob.digest):
                    found[blob.digest] = blob
        return list(found.values())

    async def blob(self, blob: Descriptor, credentials: Sequence[Credentials], lease: Lease) -> Reference:
        """Fetch a blob again; the name whose repository had it.

        :raises NotFound: no repository that this store knows has it.
        """
        tried = []
        for place in await asyncio.to_thread(self.places, blob.digest):
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
        """Repositories that a blob was pulled from, or that names here say it is in; the surest first."""
        rows = self._images.rows
        names = [reference.parse(name) for name in (*rows.pulled_with(digest), *rows.names_with(digest))]
        return list({name.name: name for name in reversed(names)}.values())[::-1][:_PLACES_MOST]
