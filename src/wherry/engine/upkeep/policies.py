"""Automatic upkeep: apply the configured rules by which images are removed."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from wherry import threads
from wherry.engine.images.service import ImageService
from wherry.engine.images.users import images_of
from wherry.errors import Conflict, NotFound
from wherry.images import policy as rules
from wherry.images.delete import disk_usage
from wherry.images.policy import Candidate, ImageUpkeepPolicy
from wherry.images.store import ImageStore
from wherry.images.versions import Keep, protected
from wherry.mishaps import contained
from wherry.model.digest import Digest
from wherry.state.containers import Containers

log = logging.getLogger(__name__)


def free_bytes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


class ImageUpkeep:
    """Used on the loop only."""

    def __init__(
        self,
        *,
        root: Path,
        policy: ImageUpkeepPolicy,
        keep: Keep,
        images: ImageStore,
        service: ImageService,
        containers: Containers,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._root, self._policy, self._keep = root, policy, keep
        self._images, self._service, self._containers = images, service, containers
        self._free = free
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._policy:
            self._task = asyncio.create_task(self._forever())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            with contained("clean up images"):
                await self.once()
            await asyncio.sleep(self._policy.every)

    async def once(self) -> list[Digest]:
        """One round; returns what was removed."""
        gone: list[Digest] = []
        spared = await threads.disk(protected, self._images, self._keep)
        unused = await threads.disk(self._unused)
        chosen = rules.by_age_and_number(unused, self._policy, spared, time.time_ns())
        for target in chosen:
            await self._remove(target, gone)
        if self._policy.max_size:
            await self._until(self._small_enough, spared, gone)
        if self._policy.low_water:
            await self._until(self._room_enough, set(), gone)
        if gone:
            log.info("removed %d images by the configured image policy", len(gone))
        return gone

    def _unused(self) -> list[Candidate]:
        used = {image for row in self._containers.all() for image in images_of(row.record)}
        return [
            Candidate(image.id, image.names, row.updated)
            for image in self._images.list()
            if image.id not in used and (row := self._images.rows.get(image.id)) is not None
        ]

    async def _until(self, enough: Callable[[], bool], spared: set[Digest], gone: list[Digest]) -> None:
        if await threads.disk(enough):
            return
        for target in rules.by_space(await threads.disk(self._unused), spared):
            await self._remove(target, gone)
            if await threads.disk(enough):
                return
        log.warning("images exceed the configured size, and all that remain are in use")

    def _small_enough(self) -> bool:
        return disk_usage(self._images).total <= self._policy.max_size

    def _room_enough(self) -> bool:
        return self._free(self._root) >= self._policy.low_water

    async def _remove(self, target: Digest, gone: list[Digest]) -> None:
        try:
            await self._service.delete(target, force=True)
        except (Conflict, NotFound):
            return  # a container took it, or somebody else removed it first
        gone.append(target)
