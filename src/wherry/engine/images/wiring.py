"""The room of images, put together."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.ground import Ground, Stores
from wherry.engine.images.copies import CopyService
from wherry.engine.images.pulls import PullService
from wherry.engine.images.pushes import PushService
from wherry.engine.images.refetch import Refetcher
from wherry.engine.images.registries import RegistryService
from wherry.engine.images.service import ImageService


@dataclass(frozen=True)
class ImageRoom:
    service: ImageService
    pulls: PullService
    pushes: PushService
    copies: CopyService
    registries: RegistryService
    refetcher: Refetcher

    async def close(self) -> None:
        await self.pulls.close()


def wire(ground: Ground, stores: Stores) -> ImageRoom:
    images, distribution, events = stores.images, stores.distribution, ground.events
    refetcher = Refetcher(images=images, distribution=distribution)
    return ImageRoom(
        service=ImageService(
            images=images,
            unpacker=stores.unpacker,
            containers=ground.containers,
            events=events,
            keep=ground.settings.keep_versions,
            refetcher=refetcher,
            scratch=ground.settings.root / "bootstrap",
        ),
        pulls=PullService(images=images, distribution=distribution, events=events),
        pushes=PushService(images=images, distribution=distribution, refetcher=refetcher, events=events),
        copies=CopyService(images=images, distribution=distribution),
        registries=RegistryService(distribution=distribution, images=images),
        refetcher=refetcher,
    )
