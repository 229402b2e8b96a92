"""Copy images from one registry to another, all platforms, without unpacking them.

Blobs go through the content store, so an interrupted copy can be resumed. Within one registry they are
mounted instead. The manifests are sent last, byte for byte, and the name after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from wherry import threads
from wherry.errors import InvalidArgument, WherryError
from wherry.images.graph import DEPTH_MAX, DOCUMENTS_MAX
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, Index
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution
from wherry.registry.errors import REFUSED, RegistryError, explain
from wherry.registry.push import Pusher
from wherry.registry.repository import Repository
from wherry.registry.resolve import Resolved, fetch_child, fetch_target
from wherry.storage.leases import Lease

Progress = Callable[[dict[str, Any]], None]


class CopyService:
    """Used on the loop only."""

    def __init__(self, *, images: ImageStore, distribution: Distribution) -> None:
        self._images = images
        self._distribution = distribution

    async def copy(
        self,
        source: Reference,
        target: Reference,
        *,
        credentials: Sequence[Credentials],
        progress: Progress,
    ) -> Descriptor:
        """If the target has a digest, the image gets no tag.

        :raises InvalidArgument: the source has another digest. :raises WherryError: see :func:`explain`.
        """
        source, target = source.with_default_tag(), target.with_default_tag()
        config = self._distribution.config
        try:
            with self._images.leases.resume(
                f"copy {source} {target}", worthwhile=lambda e: not isinstance(e, WherryError)
            ) as lease:
                async with self._distribution.session() as session:
                    sources = await self._distribution.open(session, source, credentials)
                    (there,) = await self._distribution.open(
                        session, target, credentials, actions="pull,push"
                    )
                    copying = _Copying(self._images, self._distribution, sources, there, lease, progress)
                    copying.limit = asyncio.Semaphore(min(config.downloads, config.uploads))
                    found = await copying.run(str(source.digest or source.tag), target)
        except RegistryError as e:
            shown = target if e.host == target.domain != source.domain else source
            raise explain(e, shown, action="copy") from e
        finally:
            await threads.disk(self._images.collect)
        progress({"status": f"{target.digest or target.tag}: digest: {found.digest} size: {found.size}"})
        return found


class _Copying:
    def __init__(
        self,
        images: ImageStore,
        distribution: Distribution,
        sources: Sequence[Repository],
        there: Repository,
        lease: Lease,
        progress: Progress,
    ) -> None:
        self._images, self._fetcher = images, distribution.fetcher
        self._sources, self._there = sources, there
        self._lease, self._progress = lease, progress
        self._pusher = Pusher(there, images.content)
        self.limit = asyncio.Semaphore(1)
        self._done: set[Digest] = set()

    async def run(self, wanted: str, target: Reference) -> Descriptor:
        found = await fetch_target(self._sources[-1], wanted)
        if target.digest not in (None, found.descriptor.digest):
            raise InvalidArgument(
                f"cannot copy to {target.familiar()}: the source has the digest {found.descriptor.digest}"
            )
        await self._document(found, str(target.digest or target.tag), 0)
        return found.descriptor

    async def _document(self, found: Resolved, reference: str, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise self._sources[-1].error(REFUSED, f"index {found.descriptor.digest} is nested too deeply")
        if isinstance(found.document, Index):
            for entry in found.document.manifests:
                if entry.digest in self._done:
                    continue
                self._done.add(entry.digest)
                if len(self._done) > DOCUMENTS_MAX:
                    raise self._sources[-1].error(
                        REFUSED, f"it has more than {DOCUMENTS_MAX} manifests and indexes"
                    )
                child = await fetch_child(self._sources[-1], entry)
                await self._document(child, entry.digest, depth + 1)
        else:
            parts = {part.digest: part for part in (*found.document.layers, found.document.config)}
            work = [asyncio.create_task(self._blob(part)) for part in parts.values() if not part.urls]
            try:
                await asyncio.gather(*work)
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
        await self._pusher.manifest(reference, found.descriptor, found.data)

    async def _blob(self, blob: Descriptor) -> None:
        identifier = digests.hex_of(blob.digest)[:12]

        def say(status: str, current: int = -1) -> None:
            detail = {"current": current, "total": blob.size} if current >= 0 else {}
            self._progress({"status": status, "progressDetail": detail, "id": identifier})

        origin, there = self._sources[-1].place, self._there.place
        paths = [origin.path] if origin.host == there.host and origin.path != there.path else []
        async with self.limit:
            if await self._there.blob_size(blob.digest) is not None:
                say("Layer already exists")
                return
            if paths and await self._pusher.mount(blob.digest, paths[0]):
                say(f"Mounted from {paths[0]}")
                return
            await self._fetcher.fetch(
                self._sources,
                blob,
                self._lease,
                limit=asyncio.Semaphore(1),
                progress=lambda current: say("Downloading", current),
            )
            await self._pusher.blob(blob, progress=lambda current: say("Pushing", current))
        say("Pushed")
