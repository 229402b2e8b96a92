"""Cache from elsewhere and for elsewhere: an image whose layers are results of steps, and a label that says
which.

``io.wherry.cache.v1`` holds, for every step of the target's chain, the keys that lead to it and how many
layers lie up to it. So a cache travels as any image does: to a registry, inline in the image that was built,
or as a directory on the client's side, which comes and goes as an archive. Other stages are not in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as with_fields
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from wherry.build.graph import StagePlan, Vertex
from wherry.build.solve import Result
from wherry.engine.builds.assembling import Assembler, ImageForm
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.outputs import OutputStore, Ready
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.worker import BuildWorker
from wherry.engine.pulls import PullService
from wherry.engine.pushes import PushService
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model import reference, typed
from wherry.model.digest import is_digest
from wherry.model.images import Image
from wherry.storage.leases import Lease

if TYPE_CHECKING:
    from wherry.engine.builds.finishing import PlatformResult


Tell = Callable[[dict[str, Any]], None]
LABEL = "io.wherry.cache.v1"
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
    ) -> None:
        self._cache, self._images, self._assembler, self._outputs = cache, images, assembler, outputs
        self._pulls, self._pushes = pulls, pushes

    # ---- taking --------------------------------------------------------------------------------------------

    async def load(self, request: BuildRequest, worker: BuildWorker, tell: Tell) -> None:
        """Take what others built. A cache that is not there is no reason to fail; a line says so."""
        for one in request.cache_from:
            kind, name = one.get("type", ""), one.get("ref", "")
            if kind not in ("registry", "local", "inline"):
                raise InvalidArgument(f"unsupported cache importer type: {kind}")
            try:
                image = await self._image(name, request, tell)
                count = await asyncio.to_thread(self._take, image, worker)
            except WherryError as e:
                tell({"status": f"importing cache from {name}: {e.message}"})
                continue
            tell({"status": f"importing cache from {name}: {count} steps"})

    async def _image(self, name: str, request: BuildRequest, tell: Tell) -> Image:
        try:
            return await asyncio.to_thread(self._images.resolve, name)
        except NotFound:
            if is_digest(name):
                raise
        wanted = reference.parse(name).with_default_tag()
        await self._pulls.pull(wanted, platform=None, credentials=request.credentials, progress=tell)
        return await asyncio.to_thread(self._images.resolve, name)

    def _take(self, image: Image, worker: BuildWorker) -> int:
        """Blocks. :raises InvalidArgument: the image holds no cache."""
        text = (image.config.config.labels or {}).get(LABEL, "")
        try:
            steps = typed.from_json(text, list[_Step]) if text else []
        except msgspec.DecodeError as e:
            raise InvalidArgument(f"its cache cannot be read: {e}") from e
        if not steps or len(steps) > _STEPS_MAX:
            raise InvalidArgument("it holds no cache")
        wanted = [step for step in steps if self._cache.find(step.keys) is None]
        if wanted:
            self._images.ensure_unpacked(image)
        for step in wanted:
            if not 0 <= step.layers <= len(image.chain_ids):
                raise InvalidArgument("its cache names layers that it does not have")
            snapshot = image.chain_ids[step.layers - 1] if step.layers else None
            worker.hold(self._cache.adopt(snapshot, None, step.keys, step.description, created=step.created))
        return len(steps)

    # ---- giving --------------------------------------------------------------------------------------------

    def labelled(self, result: PlatformResult) -> StagePlan:
        """The target's plan, with the cache in its labels. Blocks."""
        stage = result.plan.target
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
        results: Sequence[PlatformResult],
        lease: Lease,
        tell: Tell,
    ) -> None:
        """:raises InvalidArgument: a type or mode there is not. :raises WherryError: a push failed."""
        ready = Ready()
        number = FIRST_OUTPUT
        for one in request.cache_to:
            kind = one.get("type", "")
            check_export(one, results)
            if kind == "inline":
                continue  # it is in the image
            stage = await asyncio.to_thread(self.labelled, results[0])
            assembled = await asyncio.to_thread(
                self._assembler.assemble, stage, results[0].results, results[0].bases, ImageForm(), lease
            )
            if kind == "local":
                await asyncio.to_thread(self._outputs.image, ready, number, assembled.target, [])
                number += 1
                continue
            name = reference.parse(one.get("ref", "")).with_default_tag()
            await asyncio.to_thread(self._images.add, assembled.target)
            await asyncio.to_thread(self._images.tag, name, assembled.target, why="build cache")
            await self._pushes.push(name, platform=None, credentials=request.credentials, progress=tell)
        if ready.produce:
            self._outputs.keep(build_id, ready)


def check_export(one: Mapping[str, str], results: Sequence[object]) -> None:
    """:raises InvalidArgument: it cannot be exported so."""
    kind, mode = one.get("type", ""), one.get("mode", "min")
    if kind not in ("registry", "local", "inline"):
        raise InvalidArgument(f"unsupported cache exporter type: {kind}")
    if mode != "min":
        raise InvalidArgument(f"cache mode {mode} is not supported: min, the steps of the target's own chain")
    if len(results) > 1:
        raise InvalidArgument("a cache is exported of one platform at a time")
