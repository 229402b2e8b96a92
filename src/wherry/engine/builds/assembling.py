"""Assemble the image at the end of a build: configuration, history and manifest, from the steps' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.layers import Form, Layers, NewLayer
from wherry.errors import NotFound
from wherry.images import packing
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, History, ImageConfig, Manifest, RootFS
from wherry.solver.graph import ImageOp, StagePlan, Vertex
from wherry.solver.solve import Result
from wherry.storage.leases import Lease

_OCI_TYPES = {
    oci.DOCKER_LAYER: oci.LAYER,
    oci.DOCKER_LAYER_GZIP: oci.LAYER_GZIP,
}
_TRIES = 3
COMMENT = "buildkit.dockerfile.v0"
"""By which tools tell how the lines of a history are worded."""


@dataclass(frozen=True)
class ImageForm:
    """The requested form of the image. ``epoch`` in seconds; ``annotations`` of the manifest; ``legacy``: its
    history is in the legacy builder's words."""

    layers: Form = field(default_factory=Form)
    epoch: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    squash: bool = False
    legacy: bool = False


@dataclass(frozen=True)
class Assembled:
    """An image whose blobs are in the content store; it has no row and no name yet."""

    target: Descriptor
    config_digest: Digest
    config: ImageConfig
    manifest: Manifest
    layers: tuple[NewLayer, ...]


class Assembler:
    def __init__(self, images: ImageStore, cache: BuildCache, layers: Layers) -> None:
        self._images, self.cache, self.layers = images, cache, layers

    def assemble(
        self,
        stage: StagePlan,
        results: Mapping[Vertex, Result],
        bases: Mapping[Digest, Image],
        form: ImageForm,
        lease: Lease,
    ) -> Assembled:
        """Blocks. :raises Unavailable: the disk is full."""
        for _ in range(_TRIES):
            try:
                return self._assemble(stage, results, bases, form, lease)
            except NotFound:
                continue  # another build made an image of the same snapshots: their names have changed
        return self._assemble(stage, results, bases, form, lease)

    def _assemble(
        self,
        stage: StagePlan,
        results: Mapping[Vertex, Result],
        bases: Mapping[Digest, Image],
        form: ImageForm,
        lease: Lease,
    ) -> Assembled:
        chain = stage.vertex.chain()
        base = chain[0].op.image if isinstance(chain[0].op, ImageOp) else None
        image = bases[base.digest] if base is not None else None
        below = image.chain_ids[-1] if image is not None and image.chain_ids else None
        snapshots, has_layer = self._snapshots(chain, results)
        made = self.layers.make(snapshots, below, form.layers, lease)
        if form.squash and len(made) > 1:
            made = self._squash(made, below, form, lease)
        old = list(image.manifest.layers) if image is not None else []
        blobs = [*map(_as_oci, old), *(layer.blob for layer in made)]
        history = _history(stage, results, has_layer, form, squashed=form.squash and len(snapshots) > 1)
        created = _created(chain, results, form.epoch)
        config = replace(
            stage.config,
            created=created,
            rootfs=RootFS(
                diff_ids=[
                    *(image.config.rootfs.diff_ids if image is not None else ()),
                    *(layer.diff_id for layer in made),
                ]
            ),
            history=[*(image.config.history if image is not None else ()), *history],
        )
        return self._write(config, blobs, tuple(made), form, lease)

    def _snapshots(
        self, chain: Sequence[Vertex], results: Mapping[Vertex, Result]
    ) -> tuple[list[str], set[Vertex]]:
        """Snapshots of steps that have files of their own, and the numbers of those steps."""
        found: list[str] = []
        has_layer: set[Vertex] = set()
        below = self.cache.snapshot_of(results[chain[0]])
        for vertex in chain[1:]:
            snapshot = self.cache.snapshot_of(results[vertex])
            if snapshot is not None and snapshot != below:
                found.append(snapshot)
                has_layer.add(vertex)
            below = snapshot
        return found, has_layer

    def _squash(
        self, made: Sequence[NewLayer], below: Digest | None, form: ImageForm, lease: Lease
    ) -> list[NewLayer]:
        key, mount = self.cache.prepare(Result("", snapshot=below))
        name = f"squash-{made[-1].chain_id}"
        try:
            for layer in made:
                if not self._images.content.has(layer.blob.digest):
                    packing.pack(self._images, (layer.blob, layer.chain_id), lease)
                self._images.layers.merge(layer.blob.digest, layer.diff_id, mount)
            lease.keep_snapshot(name)
            self.cache.snapshotter.commit(name, key)
        except BaseException:
            self.cache.discard(key)
            raise
        return self.layers.make([name], below, form.layers, lease)

    def _write(
        self,
        config: ImageConfig,
        blobs: list[Descriptor],
        made: tuple[NewLayer, ...],
        form: ImageForm,
        lease: Lease,
    ) -> Assembled:
        data = msgspec.json.encode(config)
        content = self._images.content
        digest = content.put(data, oci.CONFIG, lease=lease.id)
        manifest = Manifest(
            media_type=oci.MANIFEST,
            config=Descriptor(media_type=oci.CONFIG, digest=digest, size=len(data)),
            layers=blobs,
            annotations=dict(sorted(form.annotations.items())) or None,
        )
        document = encode_document(manifest)
        target = Descriptor(
            media_type=oci.MANIFEST,
            digest=content.put(document, oci.MANIFEST, lease=lease.id),
            size=len(document),
        )
        return Assembled(target, digest, config, manifest, made)


def _as_oci(layer: Descriptor) -> Descriptor:
    return replace(layer, media_type=_OCI_TYPES.get(layer.media_type, layer.media_type))


def _history(
    stage: StagePlan,
    results: Mapping[Vertex, Result],
    has_layer: set[Vertex],
    form: ImageForm,
    *,
    squashed: bool,
) -> list[History]:
    """The steps of the stage and of the stages below it.
    Without an epoch, a step has the time when it ran."""
    steps = list(stage.history)
    below = stage.base
    while below is not None:
        steps = [*below.history, *steps]
        below = below.base
    found: list[History] = []
    moment = next((results[s.vertex].created for s in steps if s.vertex in results and s.vertex), 0)
    for step in steps:
        if step.vertex is not None and step.vertex in results:
            moment = results[step.vertex].created or moment
        words = step.legacy if form.legacy else step.created_by
        if not words:
            continue
        layer = step.vertex in has_layer and not squashed
        found.append(
            History(
                created=timestamp(moment // 10**9, moment % 10**9)
                if form.epoch is None
                else timestamp(form.epoch),
                created_by=words,
                comment=None if form.legacy else COMMENT,
                empty_layer=not layer,
            )
        )
    if squashed:
        found.append(
            History(created=found[-1].created, comment=f"merge {len(has_layer)} layers", created_by="squash")
        )
    return found


def _created(chain: Sequence[Vertex], results: Mapping[Vertex, Result], epoch: int | None) -> str:
    """The time of the last step; without steps, of the base image."""
    if epoch is not None:
        return timestamp(epoch)
    moments = [results[vertex].created for vertex in chain if results[vertex].created]
    if moments:
        return timestamp(max(moments) // 10**9, max(moments) % 10**9)
    root = chain[0].op
    return (root.image.config.created if isinstance(root, ImageOp) else None) or timestamp(0)


def timestamp(seconds: int, nanoseconds: int = 0) -> str:
    """The time in RFC 3339 format, in UTC."""
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{text}{fraction}Z"
