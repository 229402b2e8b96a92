"""The engine: its rooms joined. This is all that a face (the API, later others) is given.

    builds  upkeep  processes  networks
               containers
     images  volumes  logs  mounts
      ground: settings, rows, events, live

Each room is put together where it lives (``wiring.py``); here they only meet. The room of builds is the
largest, and needed last: its modules are imported after the first answers (:meth:`Engine.open_builds`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from wherry import memory, threads
from wherry.engine.containers import wiring as containers
from wherry.engine.containers.stillness import Stillness
from wherry.engine.containers.wiring import ContainerRoom
from wherry.engine.events import EventBus
from wherry.engine.ground import Ground, Stores
from wherry.engine.images import wiring as images
from wherry.engine.images.wiring import ImageRoom
from wherry.engine.logs import wiring as logs
from wherry.engine.logs.wiring import LogRoom
from wherry.engine.mounts.holds import Holds
from wherry.engine.networks import NetworkService
from wherry.engine.processes import wiring as processes
from wherry.engine.processes.wiring import ProcessRoom, StatsEncoding
from wherry.engine.settings import Settings
from wherry.engine.upkeep import wiring as upkeep
from wherry.engine.upkeep.wiring import UpkeepRoom
from wherry.engine.volumes import wiring as volumes
from wherry.engine.volumes.wiring import VolumeRoom
from wherry.linux import launchspace
from wherry.mishaps import contained
from wherry.model import oci
from wherry.runtime.spec import warm_up

if TYPE_CHECKING:
    from wherry.engine.builds.service import BuildService

log = logging.getLogger(__name__)
_SETTLING = 1.0
"""Seconds to wait for the last user of something that is being closed."""
_LAST_JOBS = 5.0
"""Seconds that jobs on threads have to end when the daemon stops."""


@dataclass
class Engine:
    """The use cases, by the nouns users know."""

    ground: Ground
    stores: Stores
    containers: ContainerRoom
    processes: ProcessRoom
    logs: LogRoom
    images: ImageRoom
    volumes: VolumeRoom
    networks: NetworkService
    upkeep: UpkeepRoom
    _make_builds: Callable[[], BuildService]
    _builds: BuildService | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _background: list[asyncio.Task[object]] = field(default_factory=list)

    async def open_builds(self) -> None:
        """Have :attr:`builds`. Whoever uses it awaits this first; only the first call takes time."""
        async with self._opening:
            if self._builds is None:
                self._builds = await threads.disk.to_end(self._make_builds)

    @property
    def builds(self) -> BuildService:
        """The use cases of builds, after :meth:`open_builds`."""
        assert self._builds is not None, "open_builds was not awaited"
        return self._builds

    @property
    def opened_builds(self) -> BuildService | None:
        """The same, or ``None`` before the first build."""
        return self._builds

    @property
    def events(self) -> EventBus:
        return self.ground.events

    @property
    def settings(self) -> Settings:
        return self.ground.settings

    async def start(self) -> None:
        """Bring the host into the state that the rows (the database) describe, as far as the first answers
        depend on it."""
        await threads.runtime(self.stores.network.start)
        await threads.runtime(launchspace.prepare, self.settings.run / "tasks")
        await self.upkeep.reconciler.run()
        self._background = [
            asyncio.create_task(threads.disk(work))
            for work in (lambda: warm_up(oci.host().architecture), self.stores.images.collect)
        ]
        self.upkeep.start()
        self.volumes.start()

    def resume(self) -> None:
        """The API answers: adopt what runs, and then start what restart policies start."""
        self._background.append(asyncio.create_task(self._resume()))

    async def _resume(self) -> None:
        with contained("take over the running containers"):
            await self.upkeep.reconciler.adoption.run()
        self._background.append(asyncio.create_task(self._open_builds_soon()))
        with contained("take up what earlier daemons left"):
            await self.upkeep.reconciler.resume()

    async def _open_builds_soon(self) -> None:
        """Remove what builds of an earlier daemon left, and have the first build begin at once."""
        with contained("open the room of builds"):
            await self.open_builds()

    async def settle(self, *, rows_only: bool = False) -> None:
        """Make a finished change durable before the client is told: a power cut does not undo it then.

        :param rows_only: the change touched only the database; no files were made or removed.
        """
        database = self.stores.database
        if not database.is_settled(rows_only=rows_only):
            await threads.short(partial(database.settle, rows_only=rows_only))

    async def give_memory_back(self) -> None:
        """Return free memory to the system after a large job."""
        await asyncio.sleep(_SETTLING)
        await threads.short(memory.give_back)

    async def close(self) -> None:
        """Release every resource. Containers keep running."""
        self.events.close()
        await self.upkeep.close()
        await self.volumes.close()
        if self._builds is not None:
            await self._builds.close()
        await self.images.close()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.processes.close()
        await self.containers.close()
        await self.logs.close()
        for runtime in self.stores.runtimes.values():
            runtime.close()
        await threads.runtime(self.stores.network.shutdown)
        if late := await threads.drain(_LAST_JOBS):
            log.warning("stopping although work is under way on the threads %s", ", ".join(late))


def wire(ground: Ground, stores: Stores, encoding: StatsEncoding) -> Engine:
    """Put every room together on open stores. Must run on the loop's thread."""
    stillness = Stillness(ground)
    holds = Holds(stores.volumes, stores.images, stores.snapshotter)
    log_room = logs.wire(ground)
    image_room = images.wire(ground, stores)
    container_room = containers.wire(ground, stores, holds, log_room, stillness)
    return Engine(
        ground=ground,
        stores=stores,
        containers=container_room,
        processes=processes.wire(ground, stores, container_room, encoding),
        logs=log_room,
        images=image_room,
        volumes=volumes.wire(ground, stores, stillness),
        networks=NetworkService(ground, network=stores.network, sandboxes=container_room.sandboxes),
        _make_builds=partial(_wire_builds, ground, stores, image_room, container_room),
        upkeep=upkeep.wire(ground, stores, holds, stillness, log_room, image_room, container_room),
    )


def _wire_builds(
    ground: Ground, stores: Stores, images: ImageRoom, containers: ContainerRoom
) -> BuildService:
    """Blocks: a tenth of a second for the imports, and as long as it takes to remove what builds left."""
    from wherry.engine.builds import wiring as builds

    return builds.wire(ground, stores, images, containers)
