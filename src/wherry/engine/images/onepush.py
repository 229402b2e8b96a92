"""Push one image: every blob of every manifest, then the manifests, then the name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from wherry import threads
from wherry.engine.images import referrers
from wherry.errors import NotFound
from wherry.images.graph import PlatformImage
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci, reference
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, Index, Platform
from wherry.model.reference import Reference
from wherry.registry.push import Pusher, Sent
from wherry.registry.repository import Repository

Progress = Callable[[dict[str, Any]], None]
_STEP = 0.1


@dataclass(frozen=True)
class Pushed:
    """``instead_of`` is the index that could not be sent whole, if only its one local image was sent."""

    target: Descriptor
    instead_of: Descriptor | None = None


class Pushing:
    """One push to one repository."""

    def __init__(
        self,
        images: ImageStore,
        repository: Repository,
        name: Reference,
        progress: Progress,
        *,
        uploads: int,
    ) -> None:
        self._images, self._repository, self._name = images, repository, name
        self._pusher = Pusher(repository, images.content)
        self._progress = progress
        self._limit = asyncio.Semaphore(uploads)
        self._sent: dict[Digest, asyncio.Task[None]] = {}
        self._documents: set[Digest] = set()

    async def run(self, target: Descriptor, platform: Platform | None) -> Pushed:
        """Send a target under the name's tag; without a tag it is pushed by digest.

        :param platform: send only the image for it, under the name.
        :raises NotFound: there is none, or parts of it are missing. :raises RegistryError: see its codes.
        """
        chosen, instead_of = await threads.short(self._choose, target, platform)
        await self._document(chosen, self._name.tag or chosen.digest)
        kept = await threads.short(referrers.kept, self._images, target.digest)
        await referrers.push(self._pusher, self._repository, kept, self._documents)
        return Pushed(chosen, instead_of)

    def _choose(self, target: Descriptor, platform: Platform | None) -> tuple[Descriptor, Descriptor | None]:
        """What can be sent of the target:
        all of it, the image for the platform, or the only image that is here."""
        manifests = list(self._images.graph.manifests(target))
        if platform is not None:
            fitting = [m for m in manifests if m.platform.satisfies(platform) and not m.is_attestation]
            if not fitting:
                raise NotFound(
                    f"image with reference {self._name.familiar()} was found but does not provide the "
                    f"specified platform ({platform})"
                )
            return _plain(fitting[0].descriptor), None
        if self._is_whole(target):
            return target, None
        whole = [m for m in manifests if not m.is_attestation and not self._missing(m)]
        if len(whole) == 1:
            return _plain(whole[0].descriptor), target
        raise NotFound(
            f"cannot push {self._name.familiar()}: content of some of its platforms is not here; "
            "pull them, or say which one with --platform"
        )

    def _is_whole(self, target: Descriptor) -> bool:
        roles, _ = self._images.graph.closure(target)
        return all(self._images.content.has(digest) for digest in roles)

    def _missing(self, image: PlatformImage) -> list[Digest]:
        parts = (image.manifest.config, *image.manifest.layers)
        return [part.digest for part in parts if not self._images.content.has(part.digest)]

    async def _document(self, target: Descriptor, reference: str) -> None:
        """Send what a document refers to, then the document; each once.
        :meth:`_choose` has checked the depth."""
        document = await threads.short(self._images.graph.document, target)
        if isinstance(document, Index):
            for child in document.manifests:
                if child.digest not in self._documents:
                    await self._document(child, child.digest)
        else:
            await self._blobs([*document.layers, document.config], document.config)
        data = await threads.short(self._images.content.read, target.digest, limit=oci.MANIFEST_SIZE_MAX)
        await self._pusher.manifest(reference, target, data)
        self._documents.add(target.digest)

    async def _blobs(self, blobs: Sequence[Descriptor], config: Descriptor) -> None:
        mine = []
        for blob in blobs:
            task = self._sent.get(blob.digest)
            if task is None:
                task = asyncio.create_task(self._blob(blob, shown=blob is not config))
                self._sent[blob.digest] = task
            mine.append(task)
        try:
            await asyncio.gather(*mine)
        finally:
            for task in mine:
                task.cancel()
            await asyncio.gather(*mine, return_exceptions=True)

    async def _blob(self, blob: Descriptor, *, shown: bool) -> None:
        if shown:
            self._report(blob.digest, "Preparing")
        last = 0.0

        def progress(current: int) -> None:
            nonlocal last
            if shown and ((now := monotonic()) - last >= _STEP or current == blob.size):
                last = now
                self._report(blob.digest, "Pushing", {"current": current, "total": blob.size})

        async with self._limit:
            sources = await threads.short(self._neighbours, blob.digest)
            sent = await self._pusher.blob(blob, mount_from=sources, progress=progress)
        if shown:
            self._report(blob.digest, _said(sent))

    def _neighbours(self, digest: Digest) -> list[str]:
        """Repositories of the same registry that should have a blob, judging by the local names."""
        names = [reference.parse(name) for name in self._images.rows.names_with(digest)]
        place = self._repository.place
        if not place.origin:
            return []
        paths = [n.path for n in names if n.domain == self._name.domain and n.path != place.path]
        return list(dict.fromkeys(paths))

    def _report(self, digest: Digest, status: str, detail: dict[str, Any] | None = None) -> None:
        identifier = digests.hex_of(digest)[:12]
        self._progress({"status": status, "progressDetail": detail or {}, "id": identifier})


def _said(sent: Sent) -> str:
    words = {"exists": "Layer already exists", "mounted": f"Mounted from {sent.source}", "sent": "Pushed"}
    return words[sent.how]


def _plain(descriptor: Descriptor) -> Descriptor:
    """The descriptor without the extra fields that an index adds."""
    return Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
