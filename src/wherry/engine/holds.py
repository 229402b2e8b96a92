"""What a container holds for its mounts from creation to removal: volumes by name, views of images."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Set
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

    def release(self, point: MountPoint, container_id: str) -> None:
        """Let go of what one mount held."""
        if point.type == "volume":
            self._volumes.release(point.name, container_id)
        elif point.type == "image":
            self._remove_view(point)

    def forget(self, points: Sequence[MountPoint], container_id: str, *, anonymous: bool) -> list[str]:
        """Let go of the volumes of a container that goes: rows only, to stand in one transaction with it.

        :param anonymous: anonymous volumes that nobody else has are forgotten as well.
        :returns: their names, for :meth:`clean`.
        """
        gone = []
        for point in points:
            if point.type != "volume":
                continue
            if not (anonymous and point.anonymous):
                self._volumes.release(point.name, container_id)
            elif self._volumes.release_last(point.name, container_id):
                gone.append(point.name)
        return gone

    def clean(self, points: Sequence[MountPoint], forgotten: Sequence[str]) -> None:
        """Remove the data of forgotten volumes, and the views of images."""
        for point in points:
            if point.type == "image":
                self._remove_view(point)
        self._volumes.remove_data(forgotten)

    def sweep(self, known: Set[str]) -> list[str]:
        """At start-up: let go of volumes that containers which do not exist have.

        Such a container was being made when the daemon was killed, so its anonymous volumes are nobody's.
        :returns: lines that say what was removed.
        """
        lines = []
        for volume in self._volumes.list():
            strangers = set(self._volumes.references(volume.name)) - known
            for user in strangers:
                self._volumes.release(volume.name, user)
            if strangers and volume.anonymous and not self._volumes.references(volume.name):
                self._volumes.remove(volume.name, force=True)
                lines.append(f"removed volume {volume.name[:12]} of a container that was never made")
        return lines

    def _remove_view(self, point: MountPoint) -> None:
        try:
            self._snapshotter.remove(point.name)
        except NotFound:
            pass

    def _volume(self, point: MountPoint, container_id: str, undo: ExitStack, made: list[str]) -> MountPoint:
        is_new = not point.name or not self._has_volume(point.name)
        volume = self._volumes.create(
            point.name or None,
            driver=point.driver or "local",
            options=point.driver_options,
            labels=point.labels,
            user=container_id,
        )
        if point.anonymous and not point.name:
            undo.callback(self._volumes.remove, volume.name, force=True)
        if is_new:
            made.append(volume.name)
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
