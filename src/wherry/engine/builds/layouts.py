"""Images from and to a store of the client (an OCI layout, a cache in a directory).

Received content is verified against its digests and kept by the build's lease; it gets no name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, BinaryIO

import msgspec

from wherry import threads
from wherry.engine.builds.clients import Blobs
from wherry.errors import InvalidArgument, NotFound
from wherry.images.graph import DEPTH_MAX, DOCUMENTS_MAX, PlatformImage
from wherry.images.store import ImageStore
from wherry.model import oci, typed
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Descriptor, Index, Platform
from wherry.storage.leases import Lease


class Layouts:
    """Used on the loop."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images

    async def image(self, blobs: Blobs, digest: Digest, platform: Platform, lease: Lease) -> Image:
        """The image of one platform. :raises NotFound: the store lacks it, or has none for the platform."""
        target = await self._document(blobs, digest, lease)
        chosen: PlatformImage | None = None
        async for one in self._manifests(blobs, target, lease, lambda found: found.satisfies(platform)):
            if not one.is_attestation and one.platform.satisfies(platform):
                chosen = one
                break
        if chosen is None or chosen.config is None:
            raise NotFound(f"the image {digest} does not provide the platform {platform}")
        for layer in chosen.manifest.layers:
            await self._blob(blobs, layer, lease)
        return held_image(target, chosen)

    async def images(self, blobs: Blobs, digest: Digest, lease: Lease) -> list[Image]:
        """Every image of a target. Their layers are not fetched: see :meth:`layers`."""
        target = await self._document(blobs, digest, lease)
        found = [one async for one in self._manifests(blobs, target, lease, lambda _platform: True)]
        return [held_image(target, one) for one in found if one.config is not None]

    async def layers(self, blobs: Blobs, image: Image, lease: Lease) -> None:
        for layer in image.manifest.layers:
            await self._blob(blobs, layer, lease)

    async def _manifests(
        self, blobs: Blobs, target: Descriptor, lease: Lease, wanted: Callable[[Platform], bool]
    ) -> AsyncIterator[PlatformImage]:
        """Manifests of a target in its indexes' order, fetched as they are come to; each is visited once,
        whatever indexes repeat.

        :raises InvalidArgument: there are more of them, or deeper ones, than an image can need.
        """
        graph = self._images.graph
        seen: set[tuple[Digest, Platform | None]] = set()
        waiting = [(target, 0)]
        while waiting:
            one, depth = waiting.pop()
            key = (one.digest, None if one.media_type in oci.INDEX_TYPES else one.platform)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > DOCUMENTS_MAX:
                raise InvalidArgument(
                    f"invalid image {target.digest}: it has more than {DOCUMENTS_MAX} manifests and indexes"
                )
            if one is not target:
                await self._blob(blobs, one, lease)
            document = await threads.short(graph.document, one)
            if isinstance(document, Index):
                if depth >= DEPTH_MAX:
                    raise InvalidArgument(f"invalid image {target.digest}: its indexes lie too deep")
                children = [c for c in document.manifests if c.platform is None or wanted(c.platform)]
                waiting += [(child, depth + 1) for child in reversed(children)]
                continue
            await self._blob(blobs, document.config, lease)
            for image in await threads.short(self._here, one):
                yield image

    def _here(self, target: Descriptor) -> list[PlatformImage]:
        return list(self._images.graph.manifests(target))

    async def _document(self, blobs: Blobs, digest: Digest, lease: Lease) -> Descriptor:
        """A manifest or an index of which only the digest is known."""
        data = bytearray()

        def take(piece: bytes) -> None:
            data.extend(piece)
            if len(data) > oci.MANIFEST_SIZE_MAX:
                raise InvalidArgument(f"invalid image {digest}: its document is too large")

        await blobs.read(digest, take)
        kind = _kind(bytes(data))
        await threads.short(
            partial(self._images.content.put, bytes(data), kind, expected=digest, lease=lease.id)
        )
        return Descriptor(media_type=kind, digest=digest, size=len(data))

    async def _blob(self, blobs: Blobs, wanted: Descriptor, lease: Lease) -> None:
        content = self._images.content
        if await threads.short(content.keep, wanted.digest, lease.id):
            return
        writer = await threads.short(content.ingest)
        with writer:
            size = 0

            def take(piece: bytes) -> None:
                nonlocal size
                size += len(piece)
                if size > wanted.size:
                    raise InvalidArgument(f"invalid content {wanted.digest}: more than {wanted.size} bytes")
                writer.write(piece)

            await blobs.read(wanted.digest, take)
            await threads.disk(
                partial(writer.commit, wanted.digest, media_type=wanted.media_type, lease=lease.id)
            )

    # ---- export --------------------------------------------------------------------------------------------

    async def send(self, blobs: Blobs, target: Descriptor) -> None:
        """Send everything that a target refers to, directly or indirectly."""
        roles, _chains = await threads.short(self._images.graph.closure, target)
        for digest in roles:
            if await threads.short(self._images.content.has, digest):
                size = await threads.short(self._images.content.size, digest)
                file: BinaryIO = await threads.short(self._images.content.open, digest)
                try:
                    await blobs.write(digest, size, file)
                finally:
                    file.close()


class _Kind(msgspec.Struct):
    media_type: str = msgspec.field(default="", name="mediaType")
    manifests: list[Any] | None = None


def _kind(document: bytes) -> str:
    """:raises InvalidArgument: neither a manifest nor an index."""
    try:
        found = typed.from_json(document, _Kind)
    except msgspec.DecodeError as e:
        raise InvalidArgument(f"invalid image: {e}") from e
    kind = found.media_type or (oci.MANIFEST if found.manifests is None else oci.INDEX)
    if kind not in oci.MANIFEST_TYPES | oci.INDEX_TYPES:
        raise InvalidArgument(f"invalid image: {kind[:100]!r} is neither a manifest nor an index")
    return kind


def held_image(target: Descriptor, one: PlatformImage) -> Image:
    """An image that has no row."""
    assert one.config is not None
    return Image(
        id=target.digest,
        target=target,
        manifest_descriptor=one.descriptor,
        manifest=one.manifest,
        config_descriptor=one.manifest.config,
        config=one.config,
        names=(),
        chain_ids=one.chain_ids,
        last_tagged_ns=0,
    )
