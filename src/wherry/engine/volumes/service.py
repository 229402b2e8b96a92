"""The use cases of volumes: the store's operations, with events and with the containers' uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry import threads
from wherry.engine.events import EventBus
from wherry.errors import Conflict, NotFound, WherryError
from wherry.model import patterns
from wherry.state.containers import Containers
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume as Volume


@dataclass(frozen=True)
class VolumeUse:
    """A container that uses a volume. ``since`` in nanoseconds since the epoch, 0 if unknown."""

    container_id: str
    name: str
    since: int
    destinations: tuple[str, ...]
    status: str


class VolumeService:
    def __init__(self, *, volumes: VolumeStore, containers: Containers, events: EventBus) -> None:
        self._volumes = volumes
        self._containers = containers
        self._events = events

    async def create(
        self, name: str, *, driver: str, options: Mapping[str, str], labels: Mapping[str, str]
    ) -> Volume:
        """If the volume exists it is returned unchanged, as in Docker."""
        if name:
            try:
                return self._volumes.get(name)
            except NotFound:
                pass
        volume = await threads.runtime(
            self._volumes.create,
            name or None,
            driver=driver or "local",
            options=dict(options),
            labels=dict(labels),
        )
        self._events.publish("volume", "create", volume.name, {"driver": volume.driver})
        return volume

    def get(self, name: str) -> Volume:
        return self._volumes.get(name)

    def status(self, volume: Volume) -> Mapping[str, Any]:
        """The status that the volume's driver reports; ``Error`` if it reports none."""
        try:
            return self._volumes.status(volume.id)
        except WherryError as e:
            return {"Error": e.message}

    def drivers(self) -> list[str]:
        return list(self._volumes.drivers())

    def users(self, volume: Volume) -> list[VolumeUse]:
        """The containers that use it, running or not."""
        found = []
        for user in self._volumes.references(volume.id):
            try:
                row = self._containers.find(user.container_id)
            except NotFound:
                continue  # removed in this very moment
            places = [p.destination for p in row.record.mounts if p.volume == volume.id]
            found.append(VolumeUse(row.id, row.name, user.since, tuple(places), row.state.status))
        return found

    def select(self, filters: Mapping[str, Sequence[str]]) -> list[Volume]:
        found = []
        in_use = self._volumes.used()
        named = patterns.Anywhere(filters.get("name", ()))
        for volume in self._volumes.list():
            used = volume.id in in_use
            if "dangling" in filters and (filters["dangling"][0].lower() in ("1", "true")) == used:
                continue
            if "driver" in filters and volume.driver not in filters["driver"]:
                continue
            if not named(volume.name):
                continue
            if not all(_label(volume.labels, wanted) for wanted in filters.get("label", ())):
                continue
            if any(_label(volume.labels, wanted) for wanted in filters.get("label!", ())):
                continue
            found.append(volume)
        return found

    async def rename(self, name: str, new: str) -> Volume:
        """:raises NotFound: no such volume. :raises Conflict: the name is taken."""
        volume = await threads.runtime(self._volumes.rename, name, new)
        self._events.publish("volume", "rename", new, {"driver": volume.driver, "oldName": name})
        return volume

    async def remove(self, name: str, *, force: bool) -> None:
        """:raises Conflict: a container uses it. :raises NotFound: no such volume (not raised if forced)."""
        try:
            volume = self._volumes.get(name)
        except NotFound:
            if force:
                return
            raise
        await threads.runtime(self._volumes.remove, name, force=force)
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})

    def references(self, volume: Volume) -> int:
        return len(self._volumes.references(volume.id))

    async def usage(self, volume: Volume) -> int:
        """Bytes on disk; -1 if this host does not store its data."""
        return await threads.disk(self._volumes.usage, volume.id)

    async def prune(self, filters: Mapping[str, Sequence[str]], *, everything: bool) -> tuple[list[str], int]:
        """Remove unused volumes, only anonymous ones unless ``everything``; returns names and bytes freed."""
        removed, freed = [], 0
        in_use = self._volumes.used()
        for volume in self.select({k: v for k, v in filters.items() if k in ("label", "label!")}):
            if volume.id in in_use or not (everything or volume.anonymous):
                continue
            size = await self.usage(volume)
            try:
                await self.remove(volume.name, force=False)
            except (Conflict, NotFound):
                continue  # removed, or taken into use, in this moment
            removed.append(volume.name)
            freed += max(0, size)
        return removed, freed


def _label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
