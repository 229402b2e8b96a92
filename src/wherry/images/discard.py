"""Discard the packed form of unpacked layers.

A large part of an image's disk usage are the blobs it was pulled as. Only a push or a save needs them again.
"""

from __future__ import annotations

from wherry.images import packing
from wherry.images.store import ImageStore
from wherry.model.digest import Digest


def blobs(store: ImageStore, target: Digest) -> int:
    """Remove the blobs of a target's unpacked layers; returns how many. Everything else stays."""
    layers = packing.unpacked(store, store.find(target))
    return sum(store.content.discard(layer.digest) for layer, _ in layers)
