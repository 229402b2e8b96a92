"""Data that was set aside: list it, restore it as a volume, or delete it for good."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from wherry import threads
from wherry.engine.ground import Ground, Stores
from wherry.linux.lostfound import Lost, LostFound
from wherry.volumes.descriptions import AboutVolume, read
from wherry.volumes.types import Volume

_INNER = {"volume": "_data", "volume snapshot": "_data", "layer": "fs"}
"""The subdirectory with the files that users look for."""


@dataclass(frozen=True)
class LostView:
    """``size`` in bytes on disk."""

    lost: Lost
    size: int


class LostService:
    """Used on the loop."""

    def __init__(self, ground: Ground, stores: Stores) -> None:
        self._volumes = stores.volumes
        self._events = ground.events
        self._lost = LostFound(ground.settings.root)
        self._lock = asyncio.Lock()

    async def all(self) -> list[LostView]:
        """The newest first."""

        def work() -> list[LostView]:
            return [LostView(one, self._lost.size(one)) for one in self._lost.all()]

        return await threads.disk(work)

    async def restore(self, wanted: str, name: str) -> Volume:
        """Make a volume of it; of a container's layer, of the files that the container wrote. The data are
        moved.

        :param name: of the volume; empty: the name it had if it was a volume, else a generated one.
        :raises NotFound: nothing has that id. :raises Conflict: the name is taken.
        """
        async with self._lock:
            volume = await threads.disk(self._restore, wanted, name)
        self._events.publish("volume", "create", volume.name, {"driver": volume.driver})
        return volume

    def _restore(self, wanted: str, name: str) -> Volume:
        one = self._lost.find(wanted)
        about = read(one.path, AboutVolume) if one.kind == "volume" else None
        inner = one.path / _INNER.get(one.kind, "")
        data = inner if inner.is_dir() else one.path
        volume = self._volumes.take_back(
            data,
            name or (about.name if about is not None else _name_of(one)),
            about.labels if about is not None else {},
        )
        self._lost.forget(one)
        return volume

    async def remove(self, wanted: str) -> str:
        """Delete it for good; returns its id. :raises NotFound: nothing has that id."""
        async with self._lock:
            one = self._lost.find(wanted)
            await threads.disk(self._lost.forget, one)
        return one.id


def _name_of(one: Lost) -> str:
    short = re.sub(r"[^a-zA-Z0-9_.-]+", "-", Path(one.name).name.removeprefix("sha256:"))[:40].strip("-.")
    return f"{one.kind.replace(' ', '-')}-{short or one.id}"
