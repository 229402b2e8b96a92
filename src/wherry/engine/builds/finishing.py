"""From results to what was asked for: an image or several in an index, names, attestations, pushes,
archives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wherry.build import instructions as ins
from wherry.build.graph import Plan, Vertex
from wherry.build.solve import Result
from wherry.engine.builds import attest
from wherry.engine.builds.assembling import Assembled, Assembler, ImageForm
from wherry.engine.builds.exchange import Exchange
from wherry.engine.builds.outputs import OutputStore, Ready
from wherry.engine.builds.reports import Report
from wherry.engine.builds.requests import DOCKER, IMAGE, LOCAL, OCI, TAR, BuildRequest, Output
from wherry.engine.builds.worker import Inputs
from wherry.engine.events import EventBus
from wherry.engine.pushes import PushService
from wherry.errors import InvalidArgument
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, Index, Platform
from wherry.model.reference import Reference
from wherry.storage.leases import Lease


@dataclass(frozen=True)
class PlatformResult:
    """One platform of a build."""

    platform: Platform
    plan: Plan
    results: Mapping[Vertex, Result]
    bases: Mapping[Digest, Image]

    @property
    def files(self) -> Result:
        return self.results[self.plan.target.vertex]


@dataclass(frozen=True)
class Finished:
    image: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Finisher:
    """Used on the loop."""

    def __init__(
        self,
        *,
        images: ImageStore,
        assembler: Assembler,
        exchange: Exchange,
        outputs: OutputStore,
        pushes: PushService,
        events: EventBus,
    ) -> None:
        self._images, self.assembler, self._outputs = images, assembler, outputs
        self._exchange = exchange
        self._pushes, self._events = pushes, events

    async def finish(
        self,
        build_id: str,
        request: BuildRequest,
        inputs: Inputs,
        results: Sequence[PlatformResult],
        lease: Lease,
        report: Report,
        *,
        started: int,
        dockerfile: ins.Dockerfile,
    ) -> Finished:
        """:raises InvalidArgument: an output that does not go with the rest. :raises WherryError: a
        push failed.
        """
        finished = Finished()
        ready = Ready()
        facts = attest.Facts(request, dockerfile, build_id, started, inputs.epoch)
        try:
            for number, output in enumerate(request.outputs):
                one = await self._one(number, output, request, inputs, results, lease, report, ready, facts)
                if one is not None and not finished.image:
                    finished = one
        except BaseException:
            await asyncio.shield(asyncio.to_thread(ready.undo.close))
            raise
        if ready.produce:
            self._outputs.keep(build_id, ready)
        return finished

    async def _one(
        self,
        number: int,
        output: Output,
        request: BuildRequest,
        inputs: Inputs,
        results: Sequence[PlatformResult],
        lease: Lease,
        report: Report,
        ready: Ready,
        facts: attest.Facts,
    ) -> Finished | None:
        if output.kind in (LOCAL, TAR):
            if len(results) > 1:
                raise InvalidArgument(f"output {output.kind} takes one platform")
            _check_rewrite(output, inputs.epoch)
            await asyncio.to_thread(self._outputs.tree, ready, number, results[0].files, inputs.epoch)
            return None
        if output.kind not in (IMAGE, OCI, DOCKER):
            return None
        names = [*request.tags, *map(_name, output.names)]
        target, first = await asyncio.to_thread(self._image, output, request, inputs, results, lease, facts)
        if output.kind in (OCI, DOCKER):
            await asyncio.to_thread(self._outputs.image, ready, number, target, names)
        else:
            await asyncio.to_thread(self._keep, target, names)
            self._tell(target, names)
            if output.push:
                for name in names:
                    await self._pushes.push(
                        name, platform=None, credentials=request.credentials, progress=report.pulling
                    )
        metadata = {
            "containerimage.config.digest": first.config_digest,
            "containerimage.descriptor": _descriptor_document(target),
            "containerimage.digest": target.digest,
        }
        if names:
            metadata["image.name"] = ",".join(str(name) for name in names)
        return Finished(target.digest, metadata)

    def _image(
        self,
        output: Output,
        request: BuildRequest,
        inputs: Inputs,
        results: Sequence[PlatformResult],
        lease: Lease,
        facts: attest.Facts,
    ) -> tuple[Descriptor, Assembled]:
        form = image_form(request, inputs.epoch, output)
        inline = any(one.get("type") == "inline" for one in request.cache_to)
        assembled = [
            self.assembler.assemble(
                self._exchange.labelled(one) if inline else one.plan.target,
                one.results,
                one.bases,
                form,
                lease,
            )
            for one in results
        ]
        if len(results) == 1 and not request.attestations:
            return assembled[0].target, assembled[0]
        manifests = [
            replace_platform(one.target, result.platform)
            for one, result in zip(assembled, results, strict=True)
        ]
        for one, result in zip(list(assembled), results, strict=True):
            finished = time.time_ns()
            found = attest.attestation(
                self._images, self.assembler.cache, facts, result, one, lease, finished=finished
            )
            if found is not None:
                manifests.append(found)
        document = encode_document(Index(media_type=oci.INDEX, manifests=manifests))
        digest = self._images.content.put(document, oci.INDEX, lease=lease.id)
        return Descriptor(media_type=oci.INDEX, digest=digest, size=len(document)), assembled[0]

    def _keep(self, target: Descriptor, names: Sequence[Reference]) -> None:
        self._images.add(target)
        for name in names:
            self._images.tag(name, target, why="build")

    def _tell(self, target: Descriptor, names: Sequence[Reference]) -> None:
        self._events.publish("image", "create", target.digest, {"name": target.digest})
        for name in names:
            self._events.publish("image", "tag", target.digest, {"name": name.familiar()})


def image_form(request: BuildRequest, epoch: int | None, output: Output) -> ImageForm:
    """What the request and one output of it ask of the image. :raises InvalidArgument: they contradict."""
    layers = output.form
    _check_rewrite(output, epoch)
    if output.rewrite:
        layers = replace(layers, epoch=epoch)
    return ImageForm(layers, epoch, {**request.annotations, **output.annotations}, squash=request.squash)


def _check_rewrite(output: Output, epoch: int | None) -> None:
    """:raises InvalidArgument: times are to be rewritten, and there is none to rewrite them to."""
    if output.rewrite and epoch is None:
        raise InvalidArgument("rewrite-timestamp needs SOURCE_DATE_EPOCH")


def replace_platform(target: Descriptor, platform: Platform) -> Descriptor:
    return Descriptor(media_type=target.media_type, digest=target.digest, size=target.size, platform=platform)


def _name(text: str) -> Reference:
    return reference.parse(text).with_default_tag()


def _descriptor_document(target: Descriptor) -> dict[str, Any]:
    return {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
