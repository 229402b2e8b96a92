"""The room of containers, put together."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.containers.commit import CommitService
from wherry.engine.containers.control import Control
from wherry.engine.containers.devices import Devices
from wherry.engine.containers.files import FileService
from wherry.engine.containers.hotplug import Hotplug
from wherry.engine.containers.leftovers import Leftovers
from wherry.engine.containers.lifecycle import Lifecycle
from wherry.engine.containers.links import Links
from wherry.engine.containers.listing import ListingService
from wherry.engine.containers.observers import Observers
from wherry.engine.containers.removal import Removal
from wherry.engine.containers.sandboxes import Sandboxes
from wherry.engine.containers.service import ContainerService
from wherry.engine.containers.stillness import Stillness
from wherry.engine.containers.takeover import TakeOver
from wherry.engine.containers.update import UpdateService
from wherry.engine.ground import Ground, Stores
from wherry.engine.logs.wiring import LogRoom
from wherry.engine.mounts.holds import Holds
from wherry.runtime.cdi import CdiRegistry


@dataclass(frozen=True)
class ContainerRoom:
    service: ContainerService
    listing: ListingService
    lifecycle: Lifecycle
    control: Control
    removal: Removal
    leftovers: Leftovers
    update: UpdateService
    takeover: TakeOver
    files: FileService
    commit: CommitService
    sandboxes: Sandboxes
    devices: Devices
    observers: Observers

    async def close(self) -> None:
        await self.lifecycle.close()


def wire(ground: Ground, stores: Stores, holds: Holds, logs: LogRoom, stillness: Stillness) -> ContainerRoom:
    observers = Observers()
    links = Links(settings=ground.settings, containers=ground.containers, network=stores.network)
    sandboxes = Sandboxes(ground, network=stores.network, links=links)
    devices = Devices(CdiRegistry(ground.settings.cdi_directories))
    lifecycle = Lifecycle(
        ground, stores, sandboxes=sandboxes, devices=devices, logs=logs.keeping, observers=observers
    )
    control = Control(ground, lifecycle=lifecycle)
    leftovers = Leftovers(ground, stores.runtimes)
    removal = Removal(
        ground,
        snapshotter=stores.snapshotter,
        holds=holds,
        links=links,
        control=control,
        leftovers=leftovers,
        logs=logs.keeping,
    )
    observers.self_removing.append(removal.remove_exited)
    service = ContainerService(ground, stores, holds=holds, sandboxes=sandboxes, links=links, devices=devices)
    hotplug = Hotplug(
        holds=holds, volumes=stores.volumes, snapshotter=stores.snapshotter, sandboxes=sandboxes
    )
    return ContainerRoom(
        service=service,
        listing=ListingService(containers=service, images=stores.images),
        lifecycle=lifecycle,
        control=control,
        removal=removal,
        leftovers=leftovers,
        update=UpdateService(ground, runtimes=stores.runtimes, holds=holds, hotplug=hotplug),
        takeover=TakeOver(ground, sandboxes),
        files=FileService(ground, snapshotter=stores.snapshotter, volumes=stores.volumes),
        commit=CommitService(
            ground, images=stores.images, snapshotter=stores.snapshotter, stillness=stillness
        ),
        sandboxes=sandboxes,
        devices=devices,
        observers=observers,
    )
