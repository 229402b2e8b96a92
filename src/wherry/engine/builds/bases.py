"""Images that builds start from: those that are here, pulled where they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from wherry.build.graph import BaseImage
from wherry.engine.pulls import Progress, PullService
from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import reference
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Platform
from wherry.storage.leases import Lease


class Bases:
    """See :class:`wherry.build.plan.Resolver`; for one build."""

    def __init__(
        self,
        *,
        images: ImageStore,
        pulls: PullService,
        lease: Lease,
        credentials: Sequence[Credentials],
        always_pull: bool,
        progress: Progress,
    ) -> None:
        self._images, self._pulls, self._lease = images, pulls, lease
        self._credentials, self._always, self._progress = credentials, always_pull, progress
        self.found: dict[Digest, Image] = {}
        """By the manifest's digest."""

    async def image(self, name: str, platform: Platform) -> BaseImage:
        image = None
        if not self._always or digests.is_digest(name):
            image = await asyncio.to_thread(self._here, name, platform)
        if image is None:
            await self._pull(name, platform)
            image = await asyncio.to_thread(self._here, name, platform)
        if image is None:
            raise NotFound(f"No such image: {name}")
        for chain_id in image.chain_ids:
            self._lease.keep_snapshot(chain_id)
        snapshot = await asyncio.to_thread(self._images.ensure_unpacked, image)
        digest = image.manifest_descriptor.digest
        self.found[digest] = image
        return BaseImage(name, digest, snapshot, image.config)

    def _here(self, name: str, platform: Platform) -> Image | None:
        try:
            image = self._images.resolve(name, platform)
        except NotFound:
            return None
        # Its blobs stay for as long as the build may need them for the image that it makes.
        for part in (image.target, image.manifest_descriptor, image.manifest.config, *image.manifest.layers):
            self._lease.keep_content(part.digest)
        return image

    async def _pull(self, name: str, platform: Platform) -> None:
        try:
            wanted = reference.parse(name)
        except InvalidArgument as e:
            raise InvalidArgument(f"failed to parse stage name {name!r}: {e.message}") from e

        def progress(message: dict[str, Any]) -> None:
            self._progress(message)

        if wanted.digest is None:
            wanted = wanted.with_default_tag()
        await self._pulls.pull(wanted, platform=platform, credentials=self._credentials, progress=progress)
