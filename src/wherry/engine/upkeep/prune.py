"""Prune: remove what nothing uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wherry.engine.containers.removal import Removal
from wherry.engine.containers.service import ContainerService
from wherry.errors import Conflict, NotFound
from wherry.storage.snapshots import Snapshotter

LabelTest = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class Pruned:
    """Ids or names of what was removed, and bytes freed."""

    removed: list[str]
    freed: int


class PruneService:
    def __init__(self, *, containers: ContainerService, removal: Removal, snapshotter: Snapshotter) -> None:
        self._containers = containers
        self._removal = removal
        self._snapshotter = snapshotter

    async def containers(self, *, until: int | None, labels: LabelTest) -> Pruned:
        """Remove every container that does not run.
        :param until: ns since the epoch; only those made before."""
        removed, freed = [], 0
        for row in self._containers.all():
            if row.state.status not in ("created", "exited", "dead"):
                continue
            if until is not None and row.record.created >= until:
                continue
            if not labels(row.record.config.labels or {}):
                continue
            try:
                size = self._snapshotter.usage(row.id).bytes
                await self._removal.remove(row.id, force=False, volumes=False)
            except (Conflict, NotFound):
                continue  # started or removed in this moment
            removed.append(row.id)
            freed += size
        return Pruned(removed, freed)
