"""Make the requested outputs from the results: an image or an index of several, names, attestations, pushes,
archives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from wherry import threads
from wherry.engine.builds import attest
from wherry.engine.builds.assembling import Assembled, Assembler, ImageForm
from wherry.engine.builds.clients import BuildClient, Delivery
from wherry.engine.builds.exchange import Exchange
from wherry.engine.builds.outputs import OutputStore, Ready
from wherry.engine.builds.reports import Report
from wherry.engine.builds.requests import (
    DOCKER,
    IMAGE,
    INDEX,
    INDEX_DESCRIPTOR,
    LOCAL,
    MANIFEST,
    MANIFEST_DESCRIPTOR,
    OCI,
    TAR,
    BuildRequest,
    Output,
    annotations_of,
)
from wherry.engine.builds.results import PlatformResult
from wherry.engine.events import EventBus
from wherry.engine.images.pushes import PushService
from wherry.engine.images.refetch import Refetcher
from wherry.engine.images.told import ImageEvents
from wherry.errors import InvalidArgument
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.oci import Descriptor, Index, Platform
from wherry.model.reference import Reference
from wherry.storage.leases import Lease

_EXPORTING = {
    IMAGE: "exporting to image",
    OCI: "exporting to oci image format",
    DOCKER: "exporting to docker image format",
}


@dataclass(frozen=True)
class Finished:
    """``provenance``: digest and size of the predicates by platform, if they were requested."""

    image: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, dict[str, Any]] = field(default_factory=dict)


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
        refetcher: Refetcher,
        events: EventBus,
    ) -> None:
        self._images, self.assembler, self._outputs = images, assembler, outputs
        self._exchange = exchange
        self._pushes, self._refetcher, self._events = pushes, refetcher, events

    async def finish(
        self,
        build_id: str,
        request: BuildRequest,
        client: BuildClient,
        results: Sequence[PlatformResult],
        lease: Lease,
        report: Report,
        facts: attest.BuildFacts,
    ) -> Finished:
        """:raises InvalidArgument: an output that contradicts another option. :raises WherryError: a push
        failed.
        """
        finished = Finished()
        ready = Ready()
        try:
            for number, output in enumerate(request.outputs):
                one = await self._one(number, output, request, client, results, lease, report, ready, facts)
                if one is not None and not finished.image:
                    finished = one
            await self._deliver(request, client, ready, report)
        except BaseException:
            await threads.child.surely(ready.undo.close)
            raise
        if ready.produce:
            self._outputs.keep(build_id, ready)
        else:
            await threads.child.surely(ready.undo.close)
        return finished

    async def _deliver(
        self, request: BuildRequest, client: BuildClient, ready: Ready, report: Report
    ) -> None:
        """Outputs that the client takes at once are not stored."""
        for number in list(ready.produce):
            output = request.outputs[number]
            if await client.deliver(Delivery(number, output, ready.produce[number])):
                del ready.produce[number]

    async def _one(
        self,
        number: int,
        output: Output,
        request: BuildRequest,
        client: BuildClient,
        results: Sequence[PlatformResult],
        lease: Lease,
        report: Report,
        ready: Ready,
        facts: attest.BuildFacts,
    ) -> Finished | None:
        if output.kind in (LOCAL, TAR):
            _check_rewrite(output, facts.epoch)
            several = len(results) > 1
            parts = [(str(one.platform).replace("/", "_") if several else "", one.files) for one in results]
            await threads.child(self._outputs.tree, ready, number, parts, facts.epoch)
            return None
        if output.kind not in (IMAGE, OCI, DOCKER):
            return None
        names = [*request.tags, *map(_name, output.names)]
        with report.task(_EXPORTING[output.kind]) as tell:
            tell({"status": "exporting layers"})
            target, first = await threads.child(self._image, output, request, results, lease, facts)
            tell({"status": f"exporting manifest {target.digest}"})
            if output.kind in (OCI, DOCKER):
                await self._refetcher.layers(target, (), lease)
                await threads.child(self._outputs.image, ready, number, target, names)
            else:
                await threads.short(self._keep, target, () if output.by_digest else names)
                for name in () if output.by_digest else names:
                    tell({"status": f"naming to {name}"})
        if output.kind == IMAGE:
            self._tell(target, () if output.by_digest else names)
            if output.push:
                await self._push(target, names, client, report, by_digest=output.by_digest)
        metadata = {
            "containerimage.config.digest": first.config_digest,
            "containerimage.descriptor": _descriptor_document(target),
            "containerimage.digest": target.digest,
        }
        if names:
            metadata["image.name"] = ",".join(str(name) for name in names)
        return Finished(target.digest, metadata)

    async def _push(
        self,
        target: Descriptor,
        names: Sequence[Reference],
        client: BuildClient,
        report: Report,
        *,
        by_digest: bool,
    ) -> None:
        if not names:
            raise InvalidArgument("tag is needed when pushing to registry")
        for name in names:
            with report.task(f"pushing {name.familiar()}") as tell:
                known = await client.credentials(name.domain)
                if by_digest:
                    await self._pushes.push_target(name, target, credentials=known, progress=tell)
                else:
                    await self._pushes.push(name, platform=None, credentials=known, progress=tell)

    def _image(
        self,
        output: Output,
        request: BuildRequest,
        results: Sequence[PlatformResult],
        lease: Lease,
        facts: attest.BuildFacts,
    ) -> tuple[Descriptor, Assembled]:
        inline = any(one.get("type") == "inline" for one in request.cache_to)
        assembled = [
            self.assembler.assemble(
                self._exchange.labelled(one) if inline else one.plan.target,
                one.results,
                one.bases,
                image_form(request, facts.epoch, output, one.platform),
                lease,
            )
            for one in results
        ]
        attesting = output.kind != DOCKER and bool(attest.asked(request.attestations))
        if len(results) == 1 and not attesting:
            if annotations_of(output.annotations, INDEX) or annotations_of(
                output.annotations, INDEX_DESCRIPTOR
            ):
                raise InvalidArgument("index annotations not supported for single platform export")
            return _described(assembled[0].target, output, results[0].platform), assembled[0]
        manifests = [
            _described(replace_platform(one.target, result.platform), output, result.platform)
            for one, result in zip(assembled, results, strict=True)
        ]
        for one, result in zip(assembled, results, strict=True) if attesting else ():
            finished = time.time_ns()
            found = attest.attestation(
                self._images, self.assembler.cache, facts, result, one, lease, finished=finished
            )
            if found is not None:
                manifests.append(found)
        index = Index(
            media_type=oci.INDEX,
            manifests=manifests,
            annotations=annotations_of(output.annotations, INDEX) or None,
        )
        document = encode_document(index)
        digest = self._images.content.put(document, oci.INDEX, lease=lease.id)
        target = Descriptor(
            media_type=oci.INDEX,
            digest=digest,
            size=len(document),
            annotations=annotations_of(output.annotations, INDEX_DESCRIPTOR) or None,
        )
        return target, assembled[0]

    def _keep(self, target: Descriptor, names: Sequence[Reference]) -> None:
        self._images.add(target)
        for name in names:
            self._images.tag(name, target, why="build")

    def _tell(self, target: Descriptor, names: Sequence[Reference]) -> None:
        told = ImageEvents(self._events, self._images)
        told.publish("create", target.digest, target.digest)
        for name in names:
            told.publish("tag", target.digest, name.familiar())


def _described(target: Descriptor, output: Output, platform: Platform) -> Descriptor:
    """The descriptor with the annotations that were requested for it."""
    found = annotations_of(output.annotations, MANIFEST_DESCRIPTOR, platform)
    return msgspec.structs.replace(target, annotations=found) if found else target


def image_form(request: BuildRequest, epoch: int | None, output: Output, platform: Platform) -> ImageForm:
    """The image's form, from the request and one of its outputs. :raises InvalidArgument: they contradict."""
    layers = output.form
    own = annotations_of(output.annotations, MANIFEST, platform)
    _check_rewrite(output, epoch)
    if output.rewrite:
        layers = replace(layers, epoch=epoch)
    return ImageForm(
        layers, epoch, {**request.annotations, **own}, squash=request.squash, legacy=request.legacy
    )


def _check_rewrite(output: Output, epoch: int | None) -> None:
    """:raises InvalidArgument: ``rewrite-timestamp`` is set, but there is no epoch to rewrite times to."""
    if output.rewrite and epoch is None:
        raise InvalidArgument("rewrite-timestamp needs SOURCE_DATE_EPOCH")


def replace_platform(target: Descriptor, platform: Platform) -> Descriptor:
    return Descriptor(media_type=target.media_type, digest=target.digest, size=target.size, platform=platform)


def _name(text: str) -> Reference:
    return reference.parse(text).with_default_tag()


def _descriptor_document(target: Descriptor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mediaType": target.media_type,
        "digest": target.digest,
        "size": target.size,
    }
    if target.annotations:
        found["annotations"] = dict(target.annotations)
    return found
