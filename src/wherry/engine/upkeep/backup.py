"""``system backup``: everything of a running daemon in one archive, from which another host can continue.

    about                      what the archive contains and what it leaves out (JSON)
    wherry.db                  a copy of the database, as it was at one moment
    secrets.key                the key that secrets in it are sealed with, if asked for
    blobs/<hex>                of images: all; or documents, and blobs that no registry is known to have
    containers/<id>/<file>     logs and descriptions
    layers/<id>                the changes of a container, as a layer
    volumes/<id>               a volume's files, as they were in a snapshot made for this

The database comes first. So what is removed meanwhile is missing in the rest, and what is created meanwhile
is not in the archive. Blobs are protected from the collector from the beginning. See
:mod:`wherry.engine.upkeep.restore`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from wherry import __version__, threads
from wherry.engine.containers.stillness import Stillness
from wherry.engine.ground import Ground, Stores
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images import packing
from wherry.images.store import descriptor_of
from wherry.linux import trees
from wherry.linux.containerroot import LayerMounts
from wherry.model import digest as digests
from wherry.model.digest import Digest
from wherry.model.mount import Mount
from wherry.state import copies
from wherry.state.containers import ContainerRow
from wherry.storage import bundle, diff
from wherry.storage.confined.containerfiles import Job
from wherry.storage.leases import Lease
from wherry.storage.verify import Verifier
from wherry.volumes.types import Volume

T = TypeVar("T")
log = logging.getLogger(__name__)

WHOLE, REFERENCE = "whole", "reference"
FORMAT = 1
_PIECE = 1 << 20
_SMALL = 4 << 20


class BackupSummary(msgspec.Struct, frozen=True):
    """:ivar created: nanoseconds since the epoch. :ivar left_out: descriptions of what the archive lacks."""

    format: int
    version: str
    created: int
    root: str
    images: str
    volumes: bool
    secrets: bool
    left_out: list[str]


@dataclass(frozen=True)
class WantedBackup:
    """:ivar images: ``whole``, or ``reference``: leaves out layers that a registry is known to have.
    :ivar secrets: whether the key is included.
    :ivar freeze: whether containers are frozen while their files are read."""

    images: str = WHOLE
    volumes: bool = True
    secrets: bool = False
    freeze: bool = True


class BackupService:
    """Used on the loop."""

    def __init__(self, ground: Ground, stores: Stores, *, stillness: Stillness) -> None:
        self._settings, self._containers, self._live = ground.settings, ground.containers, ground.live
        self._images, self._snapshotter = stores.images, stores.snapshotter
        self._volumes, self._versions = stores.volumes, stores.volume_versions
        self._database = stores.database
        self._stillness = stillness

    def check(self, wanted: WantedBackup) -> None:
        """Call before anything is sent. :raises InvalidArgument: the options contradict each other."""
        if wanted.images not in (WHOLE, REFERENCE):
            raise InvalidArgument(f"invalid images {wanted.images!r}: known are {WHOLE} and {REFERENCE}")

    async def write(self, wanted: WantedBackup, out: BinaryIO) -> None:
        """Write the archive.
        :raises WherryError: a part cannot be read; then what was written is not a valid archive."""
        self.check(wanted)
        writer = bundle.BundleWriter(out)
        with self._images.leases.hold("backup") as lease:
            blobs = await threads.waits(lambda: self._keep(lease))
            about, volumes = self._about(wanted)
            writer.put("about", msgspec.json.encode(about))
            await threads.waits(lambda: self._write_database(writer))
            if wanted.secrets:
                await threads.waits(lambda: self._write_key(writer))
            chosen = await threads.waits(lambda: self._chosen(blobs, wanted.images))
            await threads.waits(lambda: self._write_blobs(writer, chosen))
            rows = self._containers.all()
            for row in rows:
                await threads.waits(lambda row=row: self._write_directory(writer, row))  # type: ignore[misc]
            for row in rows:
                await self._write_layer(writer, row, freeze=wanted.freeze)
            for volume in volumes:
                await self._write_volume(writer, volume, freeze=wanted.freeze)
            await threads.waits(writer.close)

    def _about(self, wanted: WantedBackup) -> tuple[BackupSummary, list[Volume]]:
        left_out, volumes = [], []
        for volume in self._volumes.list():
            if volume.driver != "local" or volume.options.get("device"):
                left_out.append(f"the data of volume {volume.name}, which are not kept by this host")
            elif not wanted.volumes:
                left_out.append(f"the data of volume {volume.name}")
            else:
                volumes.append(volume)
        about = BackupSummary(
            format=FORMAT,
            version=__version__,
            created=time.time_ns(),
            root=str(self._settings.root),
            images=wanted.images,
            volumes=wanted.volumes,
            secrets=wanted.secrets,
            left_out=left_out,
        )
        return about, volumes

    # ---- rows ------------------------------------------------------------------------------------------

    def _write_database(self, writer: bundle.BundleWriter) -> None:
        place = self._settings.root / f".backup-{secrets.token_hex(6)}"
        place.mkdir(mode=0o700)
        try:
            copies.copy(self._database, place / "wherry.db")
            with writer.stream("wherry.db") as pieces, (place / "wherry.db").open("rb") as file:
                while piece := file.read(_PIECE):
                    pieces.write(piece)
        finally:
            trees.remove(place)

    def _write_key(self, writer: bundle.BundleWriter) -> None:
        with suppress(FileNotFoundError):  # no secret was ever made
            writer.put("secrets.key", (self._settings.root / "secrets.key").read_bytes())

    # ---- images ----------------------------------------------------------------------------------------

    def _keep(self, lease: Lease) -> list[Digest]:
        """Every blob, including those that exist only as the files of an unpacked layer."""
        for row in self._images.rows.all():
            target = descriptor_of(row)
            packing.pack_all(self._images, target, lease)
        found = [row.digest for row in self._images.content.walk()]
        return [digest for digest in found if self._images.content.keep(digest, lease.id)]

    def _chosen(self, blobs: Iterable[Digest], images: str) -> list[Digest]:
        if images == WHOLE:
            return list(blobs)
        rows = self._images.rows
        layers = {digest for row in rows.all() for digest in rows.content_with(row.target, "layer")}
        return [digest for digest in blobs if digest not in layers or not rows.pulled_with(digest)]

    def _write_blobs(self, writer: bundle.BundleWriter, blobs: Iterable[Digest]) -> None:
        content = self._images.content
        for digest in blobs:
            verifier = Verifier(digest, content.size(digest))
            with writer.stream(f"blobs/{digests.hex_of(digest)}") as pieces, content.open(digest) as file:
                while piece := file.read(_PIECE):
                    verifier.update(piece)
                    pieces.write(piece)
                verifier.check()

    # ---- containers ------------------------------------------------------------------------------------

    def _write_directory(self, writer: bundle.BundleWriter, row: ContainerRow) -> None:
        directory = self._settings.container_directory(row.id)
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            return  # removed meanwhile
        for name in names:
            try:
                fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # rotated away in this moment
            with os.fdopen(fd, "rb", buffering=0) as file:
                status = os.fstat(fd)
                if name.startswith(".") or not stat.S_ISREG(status.st_mode):
                    continue
                with writer.stream(f"containers/{row.id}/{name}") as pieces:
                    left = status.st_size  # bytes that are written later are not included
                    while left > 0 and (piece := file.read(min(_PIECE, left))):
                        pieces.write(piece)
                        left -= len(piece)

    async def _write_layer(self, writer: bundle.BundleWriter, row: ContainerRow, *, freeze: bool) -> None:
        def work() -> None:
            with writer.stream(f"layers/{row.id}") as pieces:
                try:
                    diff.write_layer(self._snapshotter, row.id, pieces)
                except OSError as e:
                    raise NotFound(f"cannot back up container {row.name}: {e.strerror or e}") from e

        try:
            async with self._stillness.hold(row, freeze=freeze):
                if self._snapshotter.has_files(row.id):
                    await threads.waits(work)
        except NotFound:
            if self._containers.name_exists(row.name):
                raise
            log.info("container %s was removed while it was backed up", row.name)

    # ---- volumes ---------------------------------------------------------------------------------------

    async def _write_volume(self, writer: bundle.BundleWriter, volume: Volume, *, freeze: bool) -> None:
        async with self._snapshot(volume, freeze=freeze) as path:
            if path is not None:
                await threads.waits(lambda: _export(writer, volume, path))

    @asynccontextmanager
    async def _snapshot(self, volume: Volume, *, freeze: bool) -> AsyncIterator[Path | None]:
        """The volume's data as they were at one moment; None if the volume was removed."""
        label = f"backup-{secrets.token_hex(6)}"
        try:
            async with self._stillness.hold_all(self._writers(volume) if freeze else []):
                await threads.waits(lambda: self._versions.create(volume, label, frozen=freeze))
        except WherryError:
            if self._volumes.name_of(volume.id) is not None:
                raise
            yield None
            return
        try:
            yield self._versions.path(volume, label)
        finally:
            with suppress(NotFound):  # the volume was removed meanwhile
                await asyncio.shield(threads.disk(self._versions.remove, volume, label))

    def _writers(self, volume: Volume) -> list[ContainerRow]:
        rows = []
        for row in self._containers.all():
            writes = any(p.type == "volume" and p.volume == volume.id and p.rw for p in row.record.mounts)
            if writes and self._live.get(row.id).task is not None:
                rows.append(row)
        return rows


def _export(writer: bundle.BundleWriter, volume: Volume, path: Path) -> None:
    """Export through the child that reads containers' files, with the volume as its root."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(read_end, "rb", buffering=0) as source:

        def work() -> None:
            try:
                view = LayerMounts(Mount("bind", str(path), ("rbind", "ro")))
                Job().run(view, ("read", "/", "/."), what=f"cannot back up {volume.name}", stdout=write_end)
            finally:
                os.close(write_end)

        done = threads.pump.submit(work)
        with writer.stream(f"volumes/{volume.id}") as pieces:
            while piece := source.read(_PIECE):
                pieces.write(piece)
            done.result()
