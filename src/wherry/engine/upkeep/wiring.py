"""The room of what concerns the host as a whole, put together."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.containers.stillness import Stillness
from wherry.engine.containers.wiring import ContainerRoom
from wherry.engine.ground import Ground, Stores
from wherry.engine.images.wiring import ImageRoom
from wherry.engine.logs.wiring import LogRoom
from wherry.engine.mounts.holds import Holds
from wherry.engine.upkeep.backup import BackupService
from wherry.engine.upkeep.disk import DiskService
from wherry.engine.upkeep.fsck import FsckService
from wherry.engine.upkeep.lost import LostService
from wherry.engine.upkeep.policies import ImageUpkeep
from wherry.engine.upkeep.prune import PruneService
from wherry.engine.upkeep.reconcile import Reconciler
from wherry.engine.upkeep.restore import Restorer
from wherry.engine.upkeep.system import SystemService


@dataclass(frozen=True)
class UpkeepRoom:
    system: SystemService
    disk: DiskService
    fsck: FsckService
    lost: LostService
    backup: BackupService
    restorer: Restorer
    prune: PruneService
    policies: ImageUpkeep
    reconciler: Reconciler

    def start(self) -> None:
        self.policies.start()

    async def close(self) -> None:
        await self.reconciler.close()
        await self.policies.close()


def wire(
    ground: Ground,
    stores: Stores,
    holds: Holds,
    stillness: Stillness,
    logs: LogRoom,
    images: ImageRoom,
    containers: ContainerRoom,
) -> UpkeepRoom:
    settings = ground.settings
    return UpkeepRoom(
        system=SystemService(
            settings=settings,
            containers=containers.service,
            images=stores.images,
            snapshotter=stores.snapshotter,
            devices=containers.devices,
            registries=stores.distribution.config,
        ),
        disk=DiskService(root=settings.root, snapshotter=stores.snapshotter),
        fsck=FsckService(images=stores.images, refetcher=images.refetcher, containers=ground.containers),
        lost=LostService(ground, stores),
        backup=BackupService(ground, stores, stillness=stillness),
        restorer=Restorer(ground, stores, holds=holds, refetcher=images.refetcher),
        prune=PruneService(
            containers=containers.service, removal=containers.removal, snapshotter=stores.snapshotter
        ),
        policies=ImageUpkeep(
            root=settings.root,
            policy=settings.image_policy,
            keep=settings.keep_versions,
            images=stores.images,
            service=images.service,
            containers=ground.containers,
        ),
        reconciler=Reconciler(
            ground,
            stores,
            holds=holds,
            lifecycle=containers.lifecycle,
            removal=containers.removal,
            leftovers=containers.leftovers,
            logs=logs.keeping,
        ),
    )
