"""Restore a backup below an empty root, by the program that will serve it. No daemon may run meanwhile.

First the files that the stores are opened on: the database, blobs, containers' directories. Once the stores
are open, the rest: containers' layers and volumes, which are unpacked by confined children. See
:mod:`wherry.engine.upkeep.backup` for the contents and their order.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from wherry import threads
from wherry.engine.containers import descriptions
from wherry.engine.ground import Ground, Stores
from wherry.engine.images.refetch import Refetcher
from wherry.engine.mounts.holds import Holds
from wherry.engine.upkeep.backup import FORMAT, BackupSummary
from wherry.engine.upkeep.takeup import TakeUp
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.linux import unsettled
from wherry.linux.containerroot import LayerMounts
from wherry.linux.files import sync_file_system
from wherry.model import oci, paths, typed
from wherry.model.container import Container, ContainerState, MountPoint
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.mount import Mount
from wherry.state.containers import ContainerRow
from wherry.storage import bundle
from wherry.storage.bundle import BundleStream
from wherry.storage.confined.containerfiles import Job
from wherry.storage.verify import Verifier

log = logging.getLogger(__name__)
_SMALL = 1 << 20
_HEX = re.compile("[0-9a-f]{64}")
_ENDED = 255


class Archive:
    """A backup, read once from its beginning to its end."""

    def __init__(self, next_piece: Callable[[int], bytes]) -> None:
        """:raises InvalidArgument: it is not a backup, or it has a later version."""
        self._streams = bundle.read(next_piece)
        self._held: BundleStream | None = None
        first = self._next()
        if first is None or first.name != "about":
            raise InvalidArgument("cannot restore: this is not a backup of wherry")
        try:
            self.about = typed.from_json(first.read(limit=_SMALL), BackupSummary)
        except (msgspec.DecodeError, msgspec.ValidationError) as e:
            raise InvalidArgument(f"cannot restore: this is not a backup of wherry: {e}") from e
        if self.about.format != FORMAT:
            raise InvalidArgument(
                f"cannot restore: the backup is of format {self.about.format}, not {FORMAT}"
            )

    def _next(self) -> BundleStream | None:
        held, self._held = self._held, None
        return held or next(self._streams, None)

    def place(self, root: Path) -> None:
        """Put the files below an empty root that must be there before the stores are opened.

        :raises InvalidArgument: the archive is broken.
        """
        while (stream := self._next()) is not None:
            kind, _, rest = stream.name.partition("/")
            if kind in ("layers", "volumes"):
                self._held = stream
                return
            if kind == "blobs":
                _place_blob(root, rest, stream)
            elif kind == "containers":
                container_id, _, name = rest.partition("/")
                directory = paths.below(root / "containers", container_id, what="container id")
                directory.mkdir(parents=True, exist_ok=True, mode=0o710)
                _write(paths.below(directory, name, what="file name"), stream)
            elif stream.name in ("wherry.db", "secrets.key"):
                _write(root / stream.name, stream)
            else:
                raise InvalidArgument(f"cannot restore: the backup has an unknown part {stream.name[:80]!r}")

    def rest(self) -> Iterator[BundleStream]:
        """Layers and volumes. :raises InvalidArgument: the archive is broken, or ends too early."""
        while (stream := self._next()) is not None:
            yield stream


def _write(path: Path, stream: BundleStream) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb", buffering=0) as file:
        for piece in stream:
            file.write(piece)


def _place_blob(root: Path, name: str, stream: BundleStream) -> None:
    if not _HEX.fullmatch(name):
        raise InvalidArgument(f"cannot restore: the backup has an unexpected blob {name[:80]!r}")
    directory = root / "content" / "sha256"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / name
    _write(path, stream)
    size = path.stat().st_size
    verifier = Verifier(Digest(f"sha256:{name}"), size)
    with path.open("rb") as file:
        while piece := file.read(_SMALL):
            verifier.update(piece)
        verifier.check()


class Restorer:
    """Used on the loop, before any part of the engine is started."""

    def __init__(self, ground: Ground, stores: Stores, *, holds: Holds, refetcher: Refetcher) -> None:
        self._settings, self._containers = ground.settings, ground.containers
        self._images, self._snapshotter = stores.images, stores.snapshotter
        self._volumes = stores.volumes
        self._refetcher = refetcher
        self._takeup = TakeUp(ground, stores, holds=holds)

    async def run(self, archive: Archive) -> None:
        """Make layers and volumes from the rest of the archive.

        :raises NotFound: an image that a container needs is not in the archive, and its registry does not
        have it.
        :raises InvalidArgument: the archive is broken.
        """
        for line in self._volumes.sweep():
            log.debug("%s", line)  # every volume has a directory from here on
        for row in self._containers.all():
            await self._prepare(row)
        await self._fetch_references()
        await threads.waits(self._unpack, archive)
        for row in self._containers.all():
            self._takeup.hold(row.name, row.record)
            self._snapshotter.settle(row.id)
            unsettled.settle(self._settings.container_directory(row.id))
        await threads.disk(sync_file_system, self._settings.root)

    # ---- containers ------------------------------------------------------------------------------------

    async def _prepare(self, row: ContainerRow) -> None:
        """Make its layer, still empty, on its image's; adapt its record and state to this host."""
        directory = self._settings.container_directory(row.id)
        directory.mkdir(parents=True, exist_ok=True, mode=0o710)
        unsettled.mark(directory)
        chain = row.record.chain_id
        if chain is not None:
            chain = await self._unpacked(row)
        self._snapshotter.prepare(row.id, chain)
        record = replace(
            row.record,
            mounts=[self._moved(point) for point in row.record.mounts],
            storage_driver=self._snapshotter.name,
        )
        self._containers.set_record(record)
        self._containers.set_state(row.id, _as_ended(row.state))
        descriptions.write(self._settings, row.name, record)

    def _moved(self, point: MountPoint) -> MountPoint:
        if point.type != "volume":
            return point
        try:
            return replace(point, source=str(self._volumes.by_id(point.volume).mountpoint or ""))
        except NotFound:
            return point

    async def _unpacked(self, row: ContainerRow) -> Digest | None:
        try:
            image = self._image(row.record)
            await self._fetch(image)
            return await threads.child(self._images.ensure_unpacked, image)
        except WherryError as e:
            raise NotFound(
                f"cannot restore container {row.name}: its image {row.record.image_ref}: {e.message}"
            ) from e

    def _image(self, record: Container) -> Image:
        return self._images.resolve(record.image_id, oci.parse_platform(record.platform))

    async def _fetch(self, image: Image) -> None:
        with self._images.leases.hold("restore") as lease:
            for blob in image.manifest.layers:
                here = self._images.content.has(blob.digest) or await self._refetcher.packed(blob, lease)
                if not here:
                    await self._refetcher.blob(blob, (), lease)

    async def _fetch_references(self) -> None:
        """Fetch layers of images that no container needs.
        Failures are reported; the image can be pulled later."""
        for row in self._images.rows.all():
            try:
                image = self._images.resolve(row.target, None)
                await self._fetch(image)
            except WherryError as e:
                log.warning("image %s is incomplete: %s", row.target, e.message)

    # ---- files -----------------------------------------------------------------------------------------

    def _unpack(self, archive: Archive) -> None:
        known = {row.id for row in self._containers.all()}
        for stream in archive.rest():
            kind, _, name = stream.name.partition("/")
            if kind == "layers" and name in known:
                self._unpack_layer(name, stream)
            elif kind == "volumes" and self._volumes.name_of(name) is not None:
                self._unpack_volume(name, stream)
            else:
                log.info("left out %s: no row knows it", stream.name[:80])

    def _unpack_layer(self, container_id: str, stream: BundleStream) -> None:
        (mount,) = self._snapshotter.mounts(container_id)
        with self._images.content.ingest() as writer:
            for piece in stream:
                writer.write(piece)
            fd = writer.reopen()
            try:
                self._images.layers.merge_open(fd, writer.digest, mount)
            finally:
                os.close(fd)

    def _unpack_volume(self, volume_id: str, stream: BundleStream) -> None:
        volume = self._volumes.by_id(volume_id)
        assert volume.mountpoint is not None
        view = LayerMounts(
            Mount("bind", str(volume.mountpoint), ("bind",)), [], writable=True, readonly=False
        )
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        pipe = os.fdopen(write_end, "wb", buffering=0)
        with pipe:

            def work() -> None:
                try:
                    what = f"cannot restore volume {volume.name}"
                    Job().run(view, ("write", "/", "0", "1"), what=what, stdin=read_end)
                finally:
                    os.close(read_end)

            done = threads.pump.submit(work)
            with suppress(BrokenPipeError):  # the child says why
                for piece in stream:
                    pipe.write(piece)
            pipe.close()
            done.result()


def _as_ended(state: ContainerState) -> ContainerState:
    """The container does not run on this host: mark it as ended.
    Restart policies apply, as after a power cut."""
    if state.status in ("created", "exited"):
        return replace(state, pid=0, conmon_pid=0)
    return replace(
        state, status="exited", pid=0, conmon_pid=0, exit_code=_ENDED, finished_at=time.time_ns(), health=None
    )
