"""Restore lost rows of containers, and deal with leftovers of containers that were never finished or are
gone.

marked, no row        creation or removal was interrupted: deleted
described, with layer a row is made again; the container does not run
anything else         is set aside
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Set
from pathlib import Path

from msgspec.structs import replace

from wherry.engine.containers import descriptions
from wherry.engine.containers.descriptions import Description
from wherry.engine.ground import Ground, Stores
from wherry.engine.mounts.holds import Holds, owner_of
from wherry.errors import NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.linux import files, unsettled
from wherry.linux.lostfound import LostFound
from wherry.mishaps import contained
from wherry.model import reference
from wherry.model.container import Container, ContainerState
from wherry.storage.snapshots import ACTIVE, VIEW, SnapshotInfo

log = logging.getLogger(__name__)
_ID = re.compile("[0-9a-f]{64}")
_UNKNOWN_EXIT = 255


class TakeUp:
    """Used at start-up, on a thread."""

    def __init__(self, ground: Ground, stores: Stores, *, holds: Holds) -> None:
        self._settings = ground.settings
        self._containers = ground.containers
        self._snapshotter = stores.snapshotter
        self._images = stores.images
        self._volumes = stores.volumes
        self._holds = holds
        self._lost = LostFound(ground.settings.root)

    def run(self) -> None:
        """Called before anything is compared with the rows: restore the rows that were lost."""
        with contained("take up volumes that no row knows"):
            for line in self._volumes.take_up():
                log.info("%s", line)
        known = {row.id for row in self._containers.all()}
        for directory in self._all():
            with contained(f"take up container {directory.name[:12]}, which no row knows"):
                if directory.name not in known and not unsettled.is_marked(directory):
                    for line in self._directory(directory):
                        log.info("%s", line)

    def _directory(self, directory: Path) -> Iterator[str]:
        found = descriptions.read(directory)
        if found is None:
            yield from self._set_aside(directory, "it does not say of what container it is")
        elif not self._has_layer(directory.name):
            yield from self._set_aside(directory, "its layer is not here")
        else:
            yield self._take_up(directory, found)

    def _all(self) -> list[Path]:
        directory = self._settings.root / "containers"
        return sorted(map(Path, os.scandir(directory))) if directory.is_dir() else []

    def _has_layer(self, container_id: str) -> bool:
        try:
            return self._snapshotter.is_settled(container_id)
        except NotFound:
            return False

    def _set_aside(self, directory: Path, why: str) -> Iterator[str]:
        if not any(directory.iterdir()):
            directory.rmdir()
            return
        yield self._lost.set_aside(directory, "container", directory.name, f"no row knows it, and {why}")

    def _take_up(self, directory: Path, found: Description) -> str:
        record = found.record
        name = (
            found.name if not self._containers.name_exists(found.name) else f"{found.name}-{record.id[:12]}"
        )
        log_file = self._settings.log_path(record.id)
        state = ContainerState()
        if log_file.exists():  # it has run, and how it ended is unknown
            state = replace(
                state,
                status="exited",
                exit_code=_UNKNOWN_EXIT,
                finished_at=log_file.stat().st_mtime_ns,
                manually_stopped=True,
            )
        self._containers.insert(name, record, state)
        self.hold(name, record)
        self._name_image(self._images, found)
        return f"took up container {record.id[:12]} ({name}), which no row knew"

    def hold(self, name: str, record: Container) -> None:
        """Hold again what a container needs through rows of other tables: volumes, and views of images."""
        for point in record.mounts:
            try:
                if point.type == "volume":
                    self._volumes.acquire(point.volume, record.id)
                elif point.type == "image":
                    image = self._images.resolve(point.source)
                    self._snapshotter.view(point.name, self._images.ensure_unpacked(image))
            except WherryError as e:
                log.warning("container %s lacks what it has at %s: %s", name, point.destination, e.message)

    @staticmethod
    def _name_image(images: ImageStore, found: Description) -> None:
        """Restore the name of an image whose row was lost too: only its containers' records still have it."""
        record = found.record
        try:
            name = reference.parse(record.image_ref).with_default_tag()
            is_free = name.digest is None and images.rows.target_of(str(name)) is None
            if is_free and not images.rows.names_of(record.image_id):
                images.tag(name, record.image_id, why="take up")
        except WherryError:
            return  # an id, or an image that does not exist here

    # ---- leftovers -------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Layers, directories and volume holds of containers that have no row."""
        rows = self._containers.all()
        known = {row.id for row in rows}
        self._sweep_layers(known)
        for row in rows:
            with contained(f"describe container {row.id[:12]}"):
                # It is older than descriptions, or a power cut destroyed the description or the directory.
                directory = self._settings.container_directory(row.id)
                directory.mkdir(mode=0o710, exist_ok=True)
                if not descriptions.is_there(directory):
                    descriptions.write(self._settings, row.name, row.record)
        for directory in self._all():
            with contained(f"sweep the directory of container {directory.name[:12]}"):
                if directory.name in known:
                    unsettled.settle(directory)
                elif unsettled.is_marked(directory):
                    files.remove_tree(directory)
                    log.info(
                        "removed what was half made or half removed of container %s", directory.name[:12]
                    )
        for line in self._holds.sweep(known):
            log.info("%s", line)

    def _sweep_layers(self, known: Set[str]) -> None:
        for snapshot in self._snapshotter.walk():
            with contained(f"sweep layer {snapshot.key[:12]}"):
                self._sweep_layer(snapshot, known)

    def _sweep_layer(self, snapshot: SnapshotInfo, known: Set[str]) -> None:
        if snapshot.kind == VIEW and _ID.fullmatch(owner_of(snapshot) or ""):
            if owner_of(snapshot) not in known:
                self._snapshotter.remove(snapshot.key)
        elif snapshot.kind != ACTIVE or not _ID.fullmatch(snapshot.key):
            return
        elif snapshot.key in known:
            self._snapshotter.settle(snapshot.key)
        elif self._snapshotter.is_settled(snapshot.key):
            log.warning("%s", self._snapshotter.set_aside(snapshot.key, "its container has no row"))
        else:
            self._snapshotter.remove(snapshot.key)
            log.info("removed the layer of container %s, which does not exist", snapshot.key[:12])
