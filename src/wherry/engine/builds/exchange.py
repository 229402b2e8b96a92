"""Import and export of build cache: an image whose layers are results of steps, and a label that lists
them.

The label ``io.wherry.cache.v1`` contains, for every step in the target's chain, its keys and the number of
layers up to it. So a cache travels like any image: to a registry, inline in the built image, or as a
directory on the client's side, which is sent and received as an archive or blob by blob. With ``mode=max`` it
is an index: one image for the target, and one for each stage from which the target only copies files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as with_fields
from itertools import takewhile
from typing import Any

import msgspec
from msgspec.structs import replace

from wherry import threads
from wherry.engine.builds.assembling import Assembler, ImageForm
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.clients import BuildClient
from wherry.engine.builds.layouts import Layouts, held_image
from wherry.engine.builds.outputs import OutputStore, Ready
from wherry.engine.builds.reports import Report
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.results import PlatformResult
from wherry.engine.builds.worker import BuildWorker
from wherry.engine.images.pulls import PullService
from wherry.engine.images.pushes import PushService
from wherry.engine.images.refetch import Refetcher
from wherry.errors import InvalidArgument, NotFound, NotImplemented_, WherryError
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore
from wherry.model import oci, reference, typed
from wherry.model.digest import Digest, is_digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, Index
from wherry.solver.graph import StagePlan, Vertex
from wherry.solver.solve import Result
from wherry.storage.leases import Lease

Tell = Callable[[dict[str, Any]], None]
LABEL = "io.wherry.cache.v1"
CHAIN = "io.wherry.cache.chain"
"""Annotation of a manifest in an index: the stage that the chain of steps belongs to."""
FIRST_OUTPUT = 1000
"""The number of the first output that is a cache."""
_STEPS_MAX = 10_000


class _Step(msgspec.Struct, array_like=True):
    keys: list[str]
    layers: int
    created: int
    description: str


class Exchange:
    """Used on the loop."""

    def __init__(
        self,
        *,
        cache: BuildCache,
        images: ImageStore,
        assembler: Assembler,
        outputs: OutputStore,
        pulls: PullService,
        pushes: PushService,
        refetcher: Refetcher,
    ) -> None:
        self._cache, self._images, self._assembler, self._outputs = cache, images, assembler, outputs
        self._pulls, self._pushes, self._refetcher = pulls, pushes, refetcher
        self._layouts = Layouts(images)

    # ---- import --------------------------------------------------------------------------------------------

    async def load(
        self, request: BuildRequest, client: BuildClient, worker: BuildWorker, report: Report, lease: Lease
    ) -> None:
        """Import caches. A cache that does not exist is not an error; a log line reports it."""
        for one in request.cache_from:
            kind = one.get("type", "")
            if kind not in ("registry", "local", "inline"):
                raise InvalidArgument(f"unsupported cache importer type: {kind}")
            name = one.get("ref", "") or one.get("src", "")
            with report.task(f"importing cache manifest from {name}") as tell:
                try:
                    if one.get("digest") and one.get("src"):
                        count = await self._from_store(one, client, worker, lease)
                    else:
                        count = await self._from_images(name, client, worker, tell)
                except WherryError as e:
                    tell({"status": f"importing cache from {name}: {e.message}"})
                    continue
                tell({"status": f"importing cache from {name}: {count} steps"})

    async def _from_images(self, name: str, client: BuildClient, worker: BuildWorker, tell: Tell) -> int:
        """From an image, or an index with one image for each chain of steps, which are fetched one by one."""
        image = await self._image(name, client, tell)
        count = 0
        document = await threads.short(self._images.graph.document, image.target)
        others = list(document.manifests) if isinstance(document, Index) else []
        for other in [one for one in others if CHAIN in (one.annotations or {})]:
            chain = f"{reference.parse(name).name}@{other.digest}" if not is_digest(name) else other.digest
            if other.digest == image.manifest_descriptor.digest:
                continue
            if is_digest(name):
                count += await self._of_manifest(other, worker)
            else:
                count += await threads.waits(self._take, await self._image(chain, client, tell), worker)
        return count + await threads.waits(self._take, image, worker)

    async def _of_manifest(self, target: Descriptor, worker: BuildWorker) -> int:
        """From one manifest of an index that is here already."""
        for one in await threads.short(lambda: list(self._images.graph.manifests(target))):
            if one.config is not None:
                return await threads.waits(self._take, held_image(target, one), worker)
        return 0

    async def _from_store(
        self, one: Mapping[str, str], client: BuildClient, worker: BuildWorker, lease: Lease
    ) -> int:
        """From a directory of the client. Only chains with steps that the cache lacks are fetched."""
        if not is_digest(one["digest"]):
            raise InvalidArgument(f"invalid digest {one['digest'][:100]!r} of a cache")
        blobs = client.blobs(f"local:{one['src']}")
        count = 0
        for image in await self._layouts.images(blobs, Digest(one["digest"]), lease):
            if await threads.short(self._lacks, image):
                await self._layouts.layers(blobs, image, lease)
            count += await threads.waits(self._take, image, worker)
        return count

    def _lacks(self, image: Image) -> bool:
        return any(self._cache.find(step.keys) is None for step in _steps_in(image))

    async def _image(self, name: str, client: BuildClient, tell: Tell) -> Image:
        try:
            return await threads.short(self._images.resolve, name)
        except NotFound:
            if is_digest(name):
                raise
        wanted = reference.parse(name).with_default_tag()
        known = await client.credentials(wanted.domain)
        await self._pulls.pull(wanted, platform=None, credentials=known, progress=tell)
        return await threads.short(self._images.resolve, name)

    def _take(self, image: Image, worker: BuildWorker) -> int:
        """Blocks. :raises InvalidArgument: the image contains no cache."""
        steps = _steps_in(image)
        if not steps or len(steps) > _STEPS_MAX:
            raise InvalidArgument("it contains no cache")
        wanted = [step for step in steps if self._cache.find(step.keys) is None]
        if wanted:
            self._images.ensure_unpacked(image)
        for step in wanted:
            if not 0 <= step.layers <= len(image.chain_ids):
                raise InvalidArgument("its cache names layers that it does not have")
            snapshot = image.chain_ids[step.layers - 1] if step.layers else None
            worker.hold(self._cache.adopt(snapshot, None, step.keys, step.description, created=step.created))
        return len(steps)

    # ---- export --------------------------------------------------------------------------------------------

    def labelled(self, result: PlatformResult) -> StagePlan:
        """The target's image with the cache in its label. Blocks."""
        return self._labelled(result.plan.target, result)

    def _labelled(self, stage: StagePlan, result: PlatformResult) -> StagePlan:
        run = stage.config.config
        text = msgspec.json.encode(self._steps(stage.vertex, result.results, result)).decode()
        labels = {**(run.labels or {}), LABEL: text}
        return with_fields(stage, config=replace(stage.config, config=replace(run, labels=labels)))

    def _steps(self, vertex: Vertex, results: Mapping[Vertex, Result], result: PlatformResult) -> list[_Step]:
        chain = vertex.chain()
        below = self._cache.snapshot_of(results[chain[0]])
        image = next((i for i in result.bases.values() if i.chain_ids and i.chain_ids[-1] == below), None)
        layers = len(image.chain_ids) if image is not None else 0
        found: list[_Step] = []
        for one in chain[1:]:
            snapshot = self._cache.snapshot_of(results[one])
            layers += snapshot != below
            below = snapshot
            keys = self._cache.rows.keys_of(results[one].record)
            found.append(_Step(keys, layers, results[one].created, f"[{one.stage}] {one.text}"))
        return found

    async def store(
        self,
        build_id: str,
        request: BuildRequest,
        client: BuildClient,
        results: Sequence[PlatformResult],
        lease: Lease,
        report: Report,
    ) -> dict[str, Any]:
        """Export the caches; returns what the client is told. :raises InvalidArgument: an unknown type or
        mode.
        :raises WherryError: a push failed.
        """
        ready = Ready()
        number = FIRST_OUTPUT
        told: dict[str, Any] = {}
        for one in request.cache_to:
            kind = one.get("type", "")
            check_export(one)
            if kind == "inline":
                continue  # it is in the image already
            everything = one.get("mode", "min") == "max"
            with report.task("exporting cache") as tell:
                target = await threads.child(self._target, results, everything, lease)
                tell({"status": f"writing cache manifest {target.digest}"})
                if kind == "registry":
                    await self._push(one, target, client, tell)
                    continue
                await self._refetcher.layers(target, (), lease)
                try:
                    blobs = client.blobs(f"local:{one.get('dest', '')}")
                except NotImplemented_:  # the client fetches it itself
                    await threads.child(self._outputs.image, ready, number, target, [])
                    number += 1
                    continue
                await self._layouts.send(blobs, target)
                told["cache.manifest"] = {
                    "mediaType": target.media_type,
                    "digest": target.digest,
                    "size": target.size,
                }
        if ready.produce:
            self._outputs.keep(build_id, ready)
        return told

    async def _push(
        self, one: Mapping[str, str], target: Descriptor, client: BuildClient, tell: Tell
    ) -> None:
        name = reference.parse(one.get("ref", "")).with_default_tag()
        await threads.short(self._images.add, target)
        await threads.short(self._images.tag, name, target, why="build cache")
        known = await client.credentials(name.domain)
        await self._pushes.push(name, platform=None, credentials=known, progress=tell)

    def _target(self, results: Sequence[PlatformResult], everything: bool, lease: Lease) -> Descriptor:
        """The image with the cache;
        an index of several images if one chain of steps is not enough. Blocks."""
        made: list[Descriptor] = []
        for result in results:
            for stage in self._chains(result) if everything else [result.plan.target]:
                labelled = self._labelled(stage, result)
                target = self._assembler.assemble(
                    labelled, result.results, result.bases, ImageForm(), lease
                ).target
                made.append(replace(target, platform=result.platform, annotations={CHAIN: stage.name}))
        if len(made) == 1:
            return replace(made[0], platform=None, annotations=None)
        document = encode_document(Index(media_type=oci.INDEX, manifests=made))
        digest = self._images.content.put(document, oci.INDEX, lease=lease.id)
        return Descriptor(media_type=oci.INDEX, digest=digest, size=len(document))

    def _chains(self, result: PlatformResult) -> list[StagePlan]:
        """The target, and every stage that is not part of another chain; only steps with known results."""
        target = result.plan.target
        found = [target]
        covered = set(target.vertex.chain())
        for stage in reversed(result.plan.stages):
            chain = stage.vertex.chain()
            known = list(takewhile(lambda vertex: vertex in result.results, chain))
            if len(known) > 1 and known[-1] not in covered:
                covered |= set(known)
                found.append(with_fields(stage, vertex=known[-1], history=(), base=None))
        return found


def _steps_in(image: Image) -> list[_Step]:
    """:raises InvalidArgument: the image's cache label cannot be read."""
    text = (image.config.config.labels or {}).get(LABEL, "")
    try:
        return typed.from_json(text, list[_Step]) if text else []
    except msgspec.DecodeError as e:
        raise InvalidArgument(f"its cache cannot be read: {e}") from e


def check_export(one: Mapping[str, str]) -> None:
    """:raises InvalidArgument: this cache export is not possible."""
    kind, mode = one.get("type", ""), one.get("mode", "min")
    if kind not in ("registry", "local", "inline"):
        raise InvalidArgument(f"unsupported cache exporter type: {kind}")
    if mode not in ("min", "max"):
        raise InvalidArgument(f"invalid cache mode {mode[:80]!r}: min or max")
    if kind == "inline" and mode == "max":
        raise InvalidArgument(
            "cache mode max is not supported of type inline: other stages' layers are not in the image"
        )
