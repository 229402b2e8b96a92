"""Volumes in registries, as OCI artifacts: one archive, and the volume's metadata beside it.

    artifactType   application/vnd.wherry.volume.v1
    config         application/vnd.wherry.volume.config.v1+json: {"name", "labels"}
    layers         one, application/vnd.oci.image.layer.v1.tar+zstd

The archive goes through the content store under a lease. So a push sends an archive that is there already by
its digest, an interrupted pull is resumed, and data are verified against their digest before a byte is
unpacked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, cast

import msgspec

from wherry import threads
from wherry.engine.events import EventBus
from wherry.engine.volumes.files import VolumeFileService
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci, typed
from wherry.model.credentials import Credentials
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, Manifest
from wherry.model.reference import Reference
from wherry.registry.distribution import Distribution
from wherry.registry.errors import RegistryError, explain
from wherry.registry.push import Pusher
from wherry.registry.resolve import fetch_target
from wherry.storage.confined.containerfiles import Job
from wherry.storage.content import Writer
from wherry.storage.leases import Lease
from wherry.volumes.store import VolumeStore
from wherry.volumes.types import Volume

Progress = Callable[[dict[str, Any]], None]
ARTIFACT = "application/vnd.wherry.volume.v1"
CONFIG = "application/vnd.wherry.volume.config.v1+json"
_CONFIG_MAX = 1 << 20
_LAYERS = frozenset({oci.LAYER, oci.LAYER_GZIP, oci.LAYER_ZSTD})
_STEP = 0.1


class _Config(msgspec.Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}


class VolumeRegistryService:
    """Used on the loop only."""

    def __init__(
        self,
        *,
        volumes: VolumeStore,
        files: VolumeFileService,
        images: ImageStore,
        distribution: Distribution,
        events: EventBus,
    ) -> None:
        self._volumes, self._files, self._images = volumes, files, images
        self._distribution, self._events = distribution, events

    async def push(
        self,
        name: str,
        target: Reference,
        *,
        snapshot: str,
        credentials: Sequence[Credentials],
        progress: Progress,
    ) -> Descriptor:
        """Send a volume, or one of its snapshots, under a tag.

        :raises NotFound: no such volume or snapshot. :raises WherryError: see :func:`explain`.
        """
        volume = self._volumes.get(name)
        if target.digest is not None:
            raise InvalidArgument("cannot push a digest reference")
        target = target.with_default_tag()
        assert target.tag is not None
        self._files.check_export(name, snapshot, "zstd")
        progress({"status": f"The push refers to repository [{target.name}]"})
        try:
            with self._images.leases.hold("volume push") as lease:
                layer = await self._archive(volume, snapshot, lease)
                config = await self._config(volume, lease)
                async with self._distribution.session() as session:
                    (there,) = await self._distribution.open(
                        session, target, credentials, actions="pull,push"
                    )
                    pusher = Pusher(there, self._images.content)
                    await pusher.blob(layer, progress=_Said(progress, "Pushing", layer))
                    await pusher.blob(config)
                    sent, data = _manifest(config, layer)
                    await pusher.manifest(target.tag, sent, data)
        except RegistryError as e:
            raise explain(e, target, action="push") from e
        finally:
            await threads.disk(self._images.collect)
        progress({"status": f"{target.tag}: digest: {sent.digest} size: {sent.size}"})
        self._events.publish("volume", "push", volume.name, {"driver": volume.driver, "to": str(target)})
        return sent

    async def _archive(self, volume: Volume, snapshot: str, lease: Lease) -> Descriptor:
        with self._images.content.ingest() as writer:
            archive = _Archive(writer)
            await self._files.export(
                volume.name, cast(BinaryIO, archive), Job(), compression="zstd", snapshot=snapshot
            )
            digest = await threads.disk(writer.commit, media_type=oci.LAYER_ZSTD, lease=lease.id)
        return Descriptor(media_type=oci.LAYER_ZSTD, digest=digest, size=archive.size)

    async def _config(self, volume: Volume, lease: Lease) -> Descriptor:
        data = msgspec.json.encode(_Config(volume.name, dict(volume.labels)))
        digest = await threads.short(self._images.content.put, data, CONFIG, lease=lease.id)
        return Descriptor(media_type=CONFIG, digest=digest, size=len(data))

    async def pull(
        self,
        source: Reference,
        name: str,
        *,
        credentials: Sequence[Credentials],
        progress: Progress,
    ) -> Volume:
        """Make a volume from what :meth:`push` sent. The volume appears only once it is complete.

        :param name: empty: the name that the volume had.
        :raises Conflict: the name is taken. :raises WherryError: see :func:`explain`.
        """
        source = source.with_default_tag()
        if name:
            self._check_free(name)
        try:
            with self._images.leases.resume(f"volume pull {source}", worthwhile=_not_an_answer) as lease:
                async with self._distribution.session() as session:
                    sources = await self._distribution.open(session, source, credentials)
                    found = await fetch_target(sources[-1], str(source.digest or source.tag))
                    manifest = _checked(found.document, source)
                    limit = asyncio.Semaphore(1)
                    fetch = self._distribution.fetcher.fetch
                    await fetch(sources, manifest.config, lease, limit=limit)
                    config = await threads.short(self._read_config, manifest.config.digest)
                    name = name or config.name
                    self._check_free(name)
                    layer = manifest.layers[0]
                    told = _Said(progress, "Downloading", layer)
                    await fetch(sources, layer, lease, limit=limit, progress=told)
                    progress({"status": "Extracting", "progressDetail": {}, "id": told.id})
                    volume = await self._import(name, layer, config)
        except RegistryError as e:
            raise explain(e, source) from e
        finally:
            await threads.disk(self._images.collect)
        progress({"status": f"Digest: {found.descriptor.digest}"})
        self._events.publish("volume", "pull", volume.name, {"driver": volume.driver, "from": str(source)})
        return volume

    def _check_free(self, name: str) -> None:
        """Checked before anything is fetched."""
        try:
            self._volumes.get(name)
        except NotFound:
            return
        raise Conflict(f"cannot pull volume {name}: there is such a volume already")

    def _read_config(self, digest: Digest) -> _Config:
        data = self._images.content.read(digest, limit=_CONFIG_MAX)
        try:
            return typed.from_json(data, _Config)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise InvalidArgument(f"cannot pull a volume: its description is malformed: {e}") from e

    async def _import(self, name: str, layer: Descriptor, config: _Config) -> Volume:
        file = await threads.short(self._images.content.open, layer.digest)
        with file:
            return await self._files.import_(name, file, Job(), labels=config.labels, merge=False)


class _Archive:
    """A file object whose data become an ingest."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self.size = writer, 0

    def write(self, data: bytes) -> int:
        self._writer.write(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        return


class _Said:
    """Progress in the form that Docker's clients draw, a few times per second."""

    def __init__(self, progress: Progress, status: str, blob: Descriptor) -> None:
        self._progress, self._status, self._size = progress, status, blob.size
        self.id = digests.hex_of(blob.digest)[:12]
        self._last = 0.0

    def __call__(self, current: int) -> None:
        now = time.monotonic()
        if now - self._last >= _STEP or current == self._size:
            self._last = now
            detail = {"current": current, "total": self._size}
            self._progress({"status": self._status, "progressDetail": detail, "id": self.id})


def _manifest(config: Descriptor, layer: Descriptor) -> tuple[Descriptor, bytes]:
    def shown(d: Descriptor) -> dict[str, Any]:
        return {"mediaType": d.media_type, "digest": d.digest, "size": d.size}

    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": ARTIFACT,
        "config": shown(config),
        "layers": [shown(layer)],
    }
    data = msgspec.json.encode(document)
    return Descriptor(media_type=oci.MANIFEST, digest=digests.of(data), size=len(data)), data


def _checked(document: object, source: Reference) -> Manifest:
    """:raises InvalidArgument: not a volume, or of a kind that this engine does not support."""
    what = f"cannot pull {source.familiar()}"
    if not isinstance(document, Manifest) or document.config.media_type != CONFIG:
        kind = "an index" if not isinstance(document, Manifest) else document.config.media_type
        raise InvalidArgument(f"{what}: it is not a volume, but {kind}")
    if document.config.size > _CONFIG_MAX:
        raise InvalidArgument(f"{what}: its description has {document.config.size} bytes")
    if len(document.layers) != 1 or document.layers[0].media_type not in _LAYERS or document.layers[0].urls:
        raise InvalidArgument(f"{what}: a volume is one archive")
    return document


def _not_an_answer(error: BaseException) -> bool:
    return not isinstance(error, InvalidArgument | Conflict | NotFound)
