"""What a container holds for its mounts from creation to removal: named volumes and views of images."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set
from contextlib import ExitStack, suppress

from msgspec.structs import replace

from wherry.errors import NotFound
from wherry.images.store import ImageStore
from wherry.model.container import Container, MountPoint
from wherry.storage.snapshots import VIEW, SnapshotInfo, Snapshotter
from wherry.volumes.mounted import user_of
from wherry.volumes.store import VolumeStore


class Holds:
    """Safe to use from any thread."""

    def __init__(self, volumes: VolumeStore, images: ImageStore, snapshotter: Snapshotter) -> None:
        self._volumes = volumes
        self._images = images
        self._snapshotter = snapshotter

    def take(self, point: MountPoint, container_id: str, undo: ExitStack, made: list[str]) -> MountPoint:
        """Hold the volume or view; returns the point with its name. A missing volume is made and added to
        ``made``.

        :raises NotFound: no such image or volume driver.
        """
        if point.type == "volume":
            return self._volume(point, container_id, undo, made)
        if point.type == "image":
            return self._image(point, container_id, undo)
        return point

    def release(self, point: MountPoint, container_id: str, kept: Sequence[MountPoint]) -> None:
        """Release what one mount held; ``kept`` are the container's other mounts."""
        if point.type == "volume":
            self._volumes.mounts.give_back(point.volume, user_of(container_id, point.destination))
            if not any(p.type == "volume" and p.volume == point.volume for p in kept):
                self._volumes.release(point.volume, container_id)
        elif point.type == "image":
            self._remove_view(point)

    def settle(self, record: Container) -> None:
        """The container has its row now:
        remove the mark "incomplete" from its layer and anonymous volumes."""
        self._snapshotter.settle(record.id)
        for point in record.mounts:
            if point.type == "volume" and point.anonymous:
                self._volumes.keeping.settle(point.volume)

    def unsettle(self, record: Container, *, anonymous: bool) -> None:
        """The container's row is about to be deleted:
        mark its layer and, with ``anonymous``, its anonymous volumes."""
        # No room, or no layer: then the leftovers of a killed daemon are taken up (see takeup).
        with suppress(OSError, NotFound):
            self._snapshotter.unsettle(record.id)
        for point in record.mounts:
            if anonymous and point.type == "volume" and point.anonymous:
                self._volumes.keeping.unsettle(point.volume)

    def forget(self, points: Sequence[MountPoint], container_id: str, *, anonymous: bool) -> list[str]:
        """Release the volumes of a container that is being removed: rows only, in one transaction with its
        row.

        :param anonymous: also forget anonymous volumes that no other container uses.
        :returns: their ids, for :meth:`clean`.
        """
        gone = []
        for point in points:
            if point.type != "volume":
                continue
            if not (anonymous and point.anonymous):
                self._volumes.release(point.volume, container_id)
            elif self._volumes.release_last(point.volume, container_id):
                gone.append(point.volume)
        return gone

    def clean(self, points: Sequence[MountPoint], forgotten: Sequence[str]) -> None:
        """Remove the data of forgotten volumes, and the views of images."""
        for point in points:
            if point.type == "image":
                self._remove_view(point)
        drivers = {point.volume: point.driver or "local" for point in points}
        self._volumes.remove_data({volume_id: drivers[volume_id] for volume_id in forgotten})

    def sweep(self, known: Set[str]) -> list[str]:
        """At start-up: release volumes that are held by containers which do not exist.

        If the anonymous volumes of such a container are marked, the daemon was killed while it created the
        container:
        nobody owns these volumes, and they are removed.
        :returns: lines that say what was removed.
        """
        lines = []
        for volume in self._volumes.list():
            strangers = {user.container_id for user in self._volumes.references(volume.id)} - known
            for stranger in strangers:
                self._volumes.release(volume.id, stranger)
            used = self._volumes.references(volume.id) or not strangers
            if volume.anonymous and not used and not self._volumes.keeping.is_settled(volume.id):
                self._volumes.remove(volume.name, force=True)
                lines.append(f"removed volume {volume.name[:12]} of a container that was never made")
            elif volume.anonymous:
                self._volumes.keeping.settle(volume.id)
        return lines

    def named(self, points: Sequence[MountPoint]) -> list[MountPoint]:
        """The points with the current names of their volumes."""
        return [
            replace(p, name=self._volumes.name_of(p.volume) or p.name) if p.type == "volume" else p
            for p in points
        ]

    def _remove_view(self, point: MountPoint) -> None:
        try:
            self._snapshotter.remove(point.name)
        except NotFound:
            pass

    def _volume(self, point: MountPoint, container_id: str, undo: ExitStack, made: list[str]) -> MountPoint:
        if point.volume_id:  # taken over from another container
            volume = self._volumes.by_id(point.volume_id)
            self._volumes.acquire(volume.id, container_id)
            undo.callback(self._volumes.release, volume.id, container_id)
            return point
        had = self._has(point, container_id)
        is_new = had is None
        volume = self._volumes.create(
            point.name or None,
            driver=point.driver,
            options=point.driver_options,
            labels=point.labels,
            user=container_id,
        )
        if point.anonymous and not point.name:
            undo.callback(self._volumes.remove, volume.name, force=True)
        if is_new:
            made.append(volume.name)
        if not had:
            undo.callback(self._volumes.release, volume.id, container_id)
        return replace(
            point,
            name=volume.name,
            volume_id=volume.id,
            driver=volume.driver,
            source=str(volume.mountpoint or ""),
        )

    def _has(self, point: MountPoint, container_id: str) -> bool | None:
        """Whether another mount of the container uses the volume; None if there is no such volume."""
        if not point.name:
            return None
        try:
            volume = self._volumes.get(point.name)
        except NotFound:
            return None
        return container_id in {user.container_id for user in self._volumes.references(volume.id)}

    def _image(self, point: MountPoint, container_id: str, undo: ExitStack) -> MountPoint:
        image = self._images.resolve(point.source, None)
        key = f"{container_id}-{secrets.token_hex(6)}"
        self._snapshotter.view(key, self._images.ensure_unpacked(image))
        undo.callback(self._snapshotter.remove, key)
        return replace(point, name=key, image_id=image.id, image_platform=str(image.config.platform))


def owner_of(snapshot: SnapshotInfo) -> str | None:
    """The container that a view was made for, from the name that :meth:`Holds.take` gave the view."""
    return snapshot.key.partition("-")[0] if snapshot.kind == VIEW else None
