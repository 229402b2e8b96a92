"""The store's upkeep: the rules of the configuration about images that go by themselves."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from wherry.engine.images import ImageService
from wherry.errors import Conflict, NotFound, WherryError
from wherry.images import policy as rules
from wherry.images.delete import disk_usage
from wherry.images.policy import Candidate, Policy
from wherry.images.store import ImageStore
from wherry.images.versions import Keep, protected
from wherry.model.digest import Digest
from wherry.state.containers import Containers

log = logging.getLogger(__name__)


def free_bytes(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


class Upkeep:
    """Used on the loop only."""

    def __init__(
        self,
        *,
        root: Path,
        policy: Policy,
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
            try:
                await self.once()
            except (WherryError, OSError) as e:
                log.warning("images could not be cleaned up: %s", e)
            await asyncio.sleep(self._policy.every)

    async def once(self) -> list[Digest]:
        """One round; what went."""
        gone: list[Digest] = []
        spared = await asyncio.to_thread(protected, self._images, self._keep)
        unused = await asyncio.to_thread(self._unused)
        chosen = rules.by_age_and_number(unused, self._policy, spared, time.time_ns())
        for target in chosen:
            await self._remove(target, gone)
        if self._policy.max_size:
            await self._until(self._small_enough, spared, gone)
        if self._policy.low_water:
            await self._until(self._room_enough, set(), gone)
        if gone:
            log.info("%d images went by the rules of the configuration", len(gone))
        return gone

    def _unused(self) -> list[Candidate]:
        used = {row.record.image_id for row in self._containers.all()}
        return [
            Candidate(image.id, image.names, row.updated)
            for image in self._images.list()
            if image.id not in used and (row := self._images.rows.get(image.id)) is not None
        ]

    async def _until(self, enough: Callable[[], bool], spared: set[Digest], gone: list[Digest]) -> None:
        if await asyncio.to_thread(enough):
            return
        for target in rules.by_space(await asyncio.to_thread(self._unused), spared):
            await self._remove(target, gone)
            if await asyncio.to_thread(enough):
                return
        log.warning("images take more room than the configuration grants, and all that are left are in use")

    def _small_enough(self) -> bool:
        return disk_usage(self._images).total <= self._policy.max_size

    def _room_enough(self) -> bool:
        return self._free(self._root) >= self._policy.low_water

    async def _remove(self, target: Digest, gone: list[Digest]) -> None:
        try:
            await self._service.delete(target, force=True)
        except (Conflict, NotFound):
            return  # a container came, or somebody was quicker
        gone.append(target)
