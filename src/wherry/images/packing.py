"""Make the packed form of layers from their files.

A build makes files first. The blob for a push or a save is made from them when it is needed. It has the same
bytes each time (:mod:`wherry.storage.diff`), so it need not be stored as well. That is true only of plain
(uncompressed) archives; a compressed one is stored as it arrived.
"""

from __future__ import annotations

from collections.abc import Iterator

from wherry.errors import NotFound
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor
from wherry.storage.diff import Nowhere, write_layer
from wherry.storage.leases import Lease

Unpacked = tuple[Descriptor, Digest]
"""A layer whose blob is not here, and the chain id of its files, which are here."""


def unpacked(store: ImageStore, target: Descriptor) -> Iterator[Unpacked]:
    """Layers of a target's images whose files are here, with their chains, in order."""
    for image in store.graph.manifests(target):
        if image.config is None or image.is_attestation:
            continue
        for blob, chain in zip(image.manifest.layers, image.chain_ids, strict=False):
            if store.layers.has(chain):
                yield blob, chain


def missing(store: ImageStore, target: Descriptor) -> Iterator[Unpacked]:
    """The unpacked layers of a target's images that have no blob here; each once."""
    seen: set[Digest] = set()
    for blob, chain in unpacked(store, target):
        if blob.digest not in seen and not store.content.has(blob.digest):
            seen.add(blob.digest)
            yield blob, chain


def pack(store: ImageStore, layer: Unpacked, lease: Lease) -> bool:
    """Store a layer's blob, made from its files; ``False`` if the files do not give that digest. Blocks.

    :raises Unavailable: the disk is full.
    """
    blob, chain = layer
    if blob.media_type not in oci.PLAIN_LAYER_TYPES:
        return False
    with store.content.ingest() as writer:
        try:
            write_layer(store.layers.snapshotter, chain, writer)
        except NotFound:
            return False
        if writer.digest != blob.digest:
            return False
        writer.commit(blob.digest, blob.size, media_type=blob.media_type, lease=lease.id)
    return True


def pack_all(store: ImageStore, target: Descriptor, lease: Lease) -> list[Unpacked]:
    """Call :func:`pack` for every missing layer of a target; returns those that failed. Blocks."""
    return [layer for layer in missing(store, target) if not pack(store, layer, lease)]


def is_intact(store: ImageStore, layer: Unpacked) -> bool:
    """Whether a layer's files still give its blob; ``True`` if that cannot be checked. Blocks."""
    blob, chain = layer
    if blob.media_type not in oci.PLAIN_LAYER_TYPES:
        return True
    return write_layer(store.layers.snapshotter, chain, Nowhere()).diff_id == blob.digest
