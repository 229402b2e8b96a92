"""The room of volumes and secrets, put together."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.ground import Ground, Stores
from wherry.engine.volumes.files import VolumeFileService
from wherry.engine.volumes.registry import VolumeRegistryService
from wherry.engine.volumes.secrets import SecretService
from wherry.engine.volumes.service import VolumeService
from wherry.engine.volumes.versions import Freezer, VolumeVersionService


@dataclass(frozen=True)
class VolumeRoom:
    service: VolumeService
    versions: VolumeVersionService
    files: VolumeFileService
    registry: VolumeRegistryService
    secrets: SecretService

    def start(self) -> None:
        self.versions.start()

    async def close(self) -> None:
        await self.versions.close()


def wire(ground: Ground, stores: Stores, stillness: Freezer) -> VolumeRoom:
    volumes, containers, events = stores.volumes, ground.containers, ground.events
    versions = VolumeVersionService(
        ground,
        volumes=volumes,
        versions=stores.volume_versions,
        rows=stores.volume_snapshots,
        stillness=stillness,
    )
    files = VolumeFileService(volumes=volumes, versions=versions, events=events)
    return VolumeRoom(
        service=VolumeService(volumes=volumes, containers=containers, events=events),
        versions=versions,
        files=files,
        registry=VolumeRegistryService(
            volumes=volumes,
            files=files,
            images=stores.images,
            distribution=stores.distribution,
            events=events,
        ),
        secrets=SecretService(secrets=stores.secrets, containers=containers, events=events),
    )
