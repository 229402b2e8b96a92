"""Versions of volumes: snapshots, their differences, clones, and schedules that make and delete them."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from wherry import threads
from wherry.engine.ground import Ground
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.linux import trees
from wherry.mishaps import contained
from wherry.state.containers import ContainerRow
from wherry.state.volume_snapshots import MANUAL, SCHEDULE, VolumeSnapshots
from wherry.state.volume_snapshots import ScheduleRow as ScheduleRow
from wherry.state.volume_snapshots import VolumeSnapshotRow as VolumeSnapshotRow
from wherry.storage import diff
from wherry.storage.confined.containerfiles import LayerChange
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume
from wherry.volumes.versions import VolumeVersions

log = logging.getLogger(__name__)

T = TypeVar("T")
_KINDS = {diff.CHANGED: 0, diff.ADDED: 1, diff.DELETED: 2}
EVERY_MIN = 10
"""The shortest interval of a schedule, in seconds."""
_NANO = 10**9
_ENTRIES_MAX = 10_000


@dataclass(frozen=True)
class Size:
    """Bytes on disk and number of entries of one directory or file in a volume,
    including everything below it."""

    path: str
    size: int
    entries: int


class Freezer(Protocol):
    """Freezes containers while their volume is copied."""

    def hold_all(self, rows: Sequence[ContainerRow]) -> AbstractAsyncContextManager[None]:
        """Within the block no process in these containers runs; all are frozen together."""


class VolumeVersionService:
    """Copies run on their own threads: copying a large volume does not delay the start of a container."""

    def __init__(
        self,
        ground: Ground,
        *,
        volumes: VolumeStore,
        versions: VolumeVersions,
        rows: VolumeSnapshots,
        stillness: Freezer,
    ) -> None:
        self._volumes, self._versions, self._rows = volumes, versions, rows
        self._containers, self._stillness, self._events, self._live = (
            ground.containers,
            stillness,
            ground.events,
            ground.live,
        )
        self._changed = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None

    # ---- snapshots -------------------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[VolumeSnapshotRow]:
        """Oldest first. :raises NotFound: no such volume."""
        return self._versions.of(self._volumes.get(name))

    def snapshot_of(self, volume: Volume, label: str) -> VolumeSnapshotRow:
        """:raises NotFound: no such snapshot."""
        return self._versions.get(volume, label)

    async def snapshot(self, name: str, label: str, *, freeze: bool) -> VolumeSnapshotRow:
        """Keep the volume's present data; with ``freeze`` the containers that use it are frozen meanwhile.

        :raises NotFound, Conflict, InvalidArgument, Unavailable: see :class:`VolumeVersions`.
        """
        return await self._snapshot(self._volumes.get(name), label, MANUAL, freeze=freeze)

    async def _snapshot(self, volume: Volume, label: str, origin: str, *, freeze: bool) -> VolumeSnapshotRow:
        def work() -> VolumeSnapshotRow:
            return self._versions.create(volume, label, origin=origin, frozen=freeze)

        row = await self._still(volume, lambda: threads.disk(work), freeze=freeze)
        self._tell(volume, "snapshot", row)
        return row

    async def _still(self, volume: Volume, work: Callable[[], Awaitable[T]], *, freeze: bool) -> T:
        if not freeze:
            return await work()
        async with self._stillness.hold_all(self._writers(volume)):
            return await work()

    def _writers(self, volume: Volume) -> list[ContainerRow]:
        rows = []
        for user in self._volumes.references(volume.id):
            try:
                row = self._containers.find(user.container_id)
            except NotFound:
                continue  # removed in this very moment
            writes = any(p.type == "volume" and p.volume == volume.id and p.rw for p in row.record.mounts)
            if writes and self._live.get(row.id).task is not None:
                rows.append(row)
        return rows

    async def remove(self, name: str, label: str) -> None:
        """:raises NotFound: no such volume or snapshot."""
        volume = self._volumes.get(name)
        row = self._versions.get(volume, label)
        await threads.disk(lambda: self._versions.remove(volume, label))
        self._tell(volume, "snapshot-remove", row)

    async def restore(self, name: str, label: str) -> VolumeSnapshotRow:
        """Replace the volume's data by a snapshot's. :returns: a snapshot of the data before that."""
        volume = self._volumes.get(name)
        wanted = self._versions.get(volume, label)
        kept = await threads.disk(lambda: self._versions.restore(volume, label))
        self._tell(volume, "restore", wanted)
        return kept

    async def clone(
        self, name: str, new: str, *, snapshot: str, labels: Mapping[str, str] | None, freeze: bool
    ) -> Volume:
        """A new volume with the same data."""
        volume = self._volumes.get(name)

        def work() -> Volume:
            return self._versions.clone(volume, new, snapshot=snapshot, labels=labels)

        made = await self._still(volume, lambda: threads.disk(work), freeze=freeze and not snapshot)
        self._events.publish("volume", "create", made.name, {"driver": made.driver, "from": volume.name})
        return made

    def _tell(self, volume: Volume, action: str, row: VolumeSnapshotRow) -> None:
        self._events.publish(
            "volume",
            action,
            volume.name,
            {"driver": volume.driver, "snapshot": row.name, "origin": row.origin},
        )

    # ---- looking at them -------------------------------------------------------------------------------

    async def differences(self, name: str, before: str, now: str) -> list[LayerChange]:
        """The changes between two snapshots, sorted by path; ``""`` stands for the volume's present data."""
        volume = self._volumes.get(name)

        def work() -> list[LayerChange]:
            with self.place(volume, before) as old, self.place(volume, now) as new:
                found = [
                    LayerChange("/" + os.fsdecode(change.path), _KINDS[change.kind])
                    for change in diff.compare(old, new)
                    if not _only_above(change)
                ]
            return sorted(found, key=lambda change: change.path)

        return await threads.disk(work)

    async def sizes(self, name: str, snapshot: str, depth: int) -> list[Size]:
        """Sizes of directories, down to ``depth`` levels; the whole volume first."""
        if not 0 <= depth <= 64:
            raise InvalidArgument("invalid depth: it is 0 to 64")
        volume = self._volumes.get(name)

        def work() -> list[Size]:
            with self.place(volume, snapshot) as path:
                return _sizes(path, depth)

        return await threads.disk(work)

    def place(self, volume: Volume, snapshot: str) -> _Place:
        """A context manager that mounts the directory of a snapshot,
        or of the volume, while it is entered."""
        return _Place(self._volumes, self._versions, volume, snapshot)

    # ---- schedules -------------------------------------------------------------------------------------

    def schedule_of(self, name: str) -> ScheduleRow | None:
        return self._rows.schedule_of(self._volumes.get(name).id)

    def schedule(self, name: str, *, every: int, keep: int, freeze: bool) -> ScheduleRow | None:
        """Make a snapshot every ``every`` seconds, and keep that many; ``every`` 0 ends the schedule.

        :raises InvalidArgument: the interval is too short, or nothing would be kept.
        """
        volume = self._volumes.get(name)
        if not every:
            self._rows.unschedule(volume.id)
            self._changed.set()
            return None
        if every < EVERY_MIN:
            raise InvalidArgument(f"invalid schedule: at the most one snapshot every {EVERY_MIN} seconds")
        if not 1 <= keep <= 10_000:
            raise InvalidArgument("invalid schedule: the number of snapshots to keep is 1 to 10000")
        self._versions.check(volume)
        row = ScheduleRow(volume.id, every, keep, freeze, time.time_ns() + every * _NANO)
        if not self._rows.schedule(row):
            raise NotFound(f"get {name}: no such volume")
        self._changed.set()
        return row

    def start(self) -> None:
        """Make snapshots when they are due. One that became due while no daemon ran is made now, once."""
        self._timer = asyncio.create_task(self._forever())

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            self._changed.clear()
            upcoming = self._rows.schedules()
            wait = (upcoming[0].due - time.time_ns()) / _NANO if upcoming else None
            try:
                await asyncio.wait_for(self._changed.wait(), wait if wait is None else max(0.0, wait))
            except TimeoutError:
                for row in upcoming:
                    if row.due <= time.time_ns():
                        with contained(f"make the scheduled snapshot of volume {row.volume_id[:12]}"):
                            await self._due(row)

    async def _due(self, row: ScheduleRow) -> None:
        try:
            volume = self._volumes.by_id(row.volume_id)
            # Set the next time first: if the snapshot fails, it must not be retried without a pause.
            self._rows.schedule(replace(row, due=time.time_ns() + row.every * _NANO))
            await self._snapshot(volume, "", SCHEDULE, freeze=row.freeze)
            await threads.disk(lambda: self._versions.forget_old(volume, row.keep))
        except NotFound:
            return  # the volume was removed in this moment
        except WherryError as e:
            log.warning("cannot make a scheduled snapshot: %s", e.message)
            self._events.publish("volume", "snapshot-failed", volume.name, {"reason": e.message})


class _Place:
    def __init__(self, volumes: VolumeStore, versions: VolumeVersions, volume: Volume, snapshot: str) -> None:
        self._volumes, self._versions, self._volume, self._snapshot = volumes, versions, volume, snapshot
        self._held: str | None = None

    def __enter__(self) -> Path:
        if self._snapshot:
            return self._versions.path(self._volume, self._snapshot)
        self._held = f"look-{id(self)} /"
        return self._volumes.mounts.take(self._volume.id, self._held)

    def __exit__(self, *_details: object) -> None:
        if self._held is not None:
            self._volumes.mounts.give_back(self._volume.id, self._held)


def _only_above(change: diff.PathChange) -> bool:
    """A directory that is listed only because of changes inside it has no entry of its own."""
    return change.kind == diff.CHANGED and change.status is not None and stat.S_ISDIR(change.status.st_mode)


def _sizes(root: Path, depth: int) -> list[Size]:
    totals: dict[bytes, list[int]] = {b"": [0, 0]}
    linked: set[tuple[int, int]] = set()
    for path, status in trees.walk(root):
        size = status.st_blocks * 512
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            inode = (status.st_dev, status.st_ino)
            size = 0 if inode in linked else size
            linked.add(inode)
        parts = path.split(b"/")
        for length in range(min(len(parts), depth) + 1):
            name = b"/".join(parts[:length])
            total = totals.get(name)
            if total is None:
                if len(totals) >= _ENTRIES_MAX:
                    raise InvalidArgument(f"more than {_ENTRIES_MAX} entries: ask for less depth")
                total = totals[name] = [0, 0]
            total[0] += size
            total[1] += 1
    found = [Size("/" + os.fsdecode(name), size, entries) for name, (size, entries) in totals.items()]
    return sorted(found, key=lambda s: (-s.size, s.path))
