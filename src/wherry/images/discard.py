"""Letting go of the packed form of layers that are unpacked.

Much of what an image takes on the disk is the blobs it came as, which only a push or a save needs again.
"""

from __future__ import annotations

from wherry.images.store import ImageStore
from wherry.model.digest import Digest


def blobs(store: ImageStore, target: Digest) -> int:
    """Remove the blobs of a target's layers that are unpacked; how many. Everything else stays."""
    gone = 0
    for image in store.graph.manifests(store.find(target)):
        if image.config is None or image.is_attestation:
            continue
        for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=False):
            if store.layers.has(chain):
                gone += store.content.discard(layer.digest)
    return gone
