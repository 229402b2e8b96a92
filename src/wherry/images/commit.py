"""Make a container's changes one more layer on its image.

There are two steps, so that a container is frozen only while its files are read: :func:`store_layer`, then
:func:`assemble`. One lease protects the results of both; after a failure nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from wherry.errors import WherryError
from wherry.images.archive_index import encode_document
from wherry.images.store import ImageStore, layers_of
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.images import Image
from wherry.model.oci import Descriptor, History, ImageRunConfig, Manifest, RootFS
from wherry.model.reference import Reference
from wherry.storage.diff import Writable, Written
from wherry.storage.leases import Lease


@dataclass(frozen=True)
class CommitStep:
    """The new layer's history entry, and the image's configuration. ``created`` is RFC 3339.

    ``then``: history entries for instructions that change only the configuration.
    """

    created: str
    created_by: str
    config: ImageRunConfig
    comment: str = ""
    author: str = ""
    then: Sequence[str] = ()


def store_layer(store: ImageStore, write: Callable[[Writable], Written], lease: Lease) -> Descriptor:
    """Store the uncompressed layer that ``write`` writes; its digest is its diff id.

    :raises Unavailable: the disk is full.
    """
    try:
        with store.content.ingest() as writer:
            written = write(writer)
            digest = writer.commit(written.diff_id, written.size, media_type=oci.LAYER, lease=lease.id)
    except WherryError:
        store.collect()
        raise
    return Descriptor(media_type=oci.LAYER, digest=digest, size=written.size)


def assemble(
    store: ImageStore,
    parent: Image,
    layer: Descriptor,
    step: CommitStep,
    ref: Reference | None,
    lease: Lease,
    *,
    why: str = "commit",
) -> Image:
    """Unpack the layer on its parents, write the image and name it.

    :raises Unavailable: the disk is full.
    """
    diff_ids = [*parent.config.rootfs.diff_ids, layer.digest]
    blobs = [*parent.manifest.layers, layer]
    try:
        chain = digests.chain_id(parent.chain_ids[-1] if parent.chain_ids else None, layer.digest)
        lease.keep_snapshot(chain)
        store.layers.ensure(layers_of(blobs, diff_ids))
        target = _write(store, parent, step, diff_ids, blobs, lease)
        store.add(target)
        if ref is not None:
            store.tag(ref, target, why=why)
    except WherryError:
        store.collect()
        raise
    return store.resolve(target.digest)


def _write(
    store: ImageStore,
    parent: Image,
    step: CommitStep,
    diff_ids: list[digests.Digest],
    blobs: list[Descriptor],
    lease: Lease,
) -> Descriptor:
    entry = History(
        created=step.created,
        created_by=step.created_by or None,
        author=step.author or None,
        comment=step.comment or None,
    )
    words = [History(created=step.created, created_by=text, empty_layer=True) for text in step.then]
    config = replace(
        parent.config,
        created=step.created,
        author=step.author or None,
        config=step.config,
        rootfs=RootFS(diff_ids=diff_ids),
        history=[*parent.config.history, entry, *words],
    )
    data = msgspec.json.encode(config)
    digest = store.content.put(data, oci.CONFIG, lease=lease.id)
    manifest = Manifest(
        media_type=oci.MANIFEST,
        config=Descriptor(media_type=oci.CONFIG, digest=digest, size=len(data)),
        layers=blobs,
    )
    document = encode_document(manifest)
    return Descriptor(
        media_type=oci.MANIFEST,
        digest=store.content.put(document, oci.MANIFEST, lease=lease.id),
        size=len(document),
    )
