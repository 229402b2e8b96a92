"""What a container holds for its mounts from creation to removal: volumes by name, views of images."""

from __future__ import annotations

import secrets
from contextlib import ExitStack

from msgspec.structs import replace

from wherry.errors import NotFound
from wherry.images.store import ImageStore
from wherry.model.container import MountPoint
from wherry.storage.snapshots import VIEW, SnapshotInfo, Snapshotter
from wherry.volumes.store import VolumeStore


class Holds:
    """Safe to use from any thread."""

    def __init__(self, volumes: VolumeStore, images: ImageStore, snapshotter: Snapshotter) -> None:
        self._volumes = volumes
        self._images = images
        self._snapshotter = snapshotter

    def take(self, point: MountPoint, container_id: str, undo: ExitStack, made: list[str]) -> MountPoint:
        """The point with its volume or view named. A volume that is not there is made and put in ``made``.

        :raises NotFound: no such image or volume driver.
        """
        if point.type == "volume":
            return self._volume(point, container_id, undo, made)
        if point.type == "image":
            return self._image(point, container_id, undo)
        return point

    def release(self, point: MountPoint, container_id: str, *, anonymous: bool) -> str | None:
        """Let go; with ``anonymous`` an anonymous volume nobody else has is removed, its name returned."""
        if point.type == "volume":
            self._volumes.release(point.name, container_id)
            if anonymous and point.anonymous and not self._volumes.references(point.name):
                self._volumes.remove(point.name, force=True)
                return point.name
        elif point.type == "image":
            try:
                self._snapshotter.remove(point.name)
            except NotFound:
                pass
        return None

    def _volume(self, point: MountPoint, container_id: str, undo: ExitStack, made: list[str]) -> MountPoint:
        is_new = not point.name or not self._has_volume(point.name)
        volume = self._volumes.create(
            point.name or None,
            driver=point.driver or "local",
            options=point.driver_options,
            labels=point.labels,
        )
        if point.anonymous and not point.name:
            undo.callback(self._volumes.remove, volume.name, force=True)
        if is_new:
            made.append(volume.name)
        self._volumes.acquire(volume.name, container_id)
        undo.callback(self._volumes.release, volume.name, container_id)
        return replace(
            point, name=volume.name, driver=volume.driver, source=str(self._volumes.path(volume.name))
        )

    def _has_volume(self, name: str) -> bool:
        try:
            self._volumes.get(name)
        except NotFound:
            return False
        return True

    def _image(self, point: MountPoint, container_id: str, undo: ExitStack) -> MountPoint:
        image = self._images.resolve(point.source, None)
        key = f"{container_id}-{secrets.token_hex(6)}"
        self._snapshotter.view(key, self._images.ensure_unpacked(image))
        undo.callback(self._snapshotter.remove, key)
        return replace(point, name=key)


def owner_of(snapshot: SnapshotInfo) -> str | None:
    """The container a view was made for, as :meth:`Holds.take` names them."""
    return snapshot.key.partition("-")[0] if snapshot.kind == VIEW else None
