"""In-toto statements about an image: its origin, its contents (in-toto.io/Statement).

They are layers of a manifest in the image's own index, which names the manifest it is about, as BuildKit
writes it (``vnd.docker.reference.type``, ``vnd.docker.reference.digest``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ATTESTS, ImageStore
from wherry.model.documents import decode_strict
from wherry.model.images import Statement
from wherry.model.oci import Descriptor, Platform

_PREDICATE = "in-toto.io/predicate-type"
_SIZE_MAX = 64 << 20


def statements(
    store: ImageStore, name: str, platform: Platform | None, kinds: Collection[str], *, bodies: bool
) -> list[Statement]:
    """The statements about one platform of an image.

    :param kinds: predicate types; empty: all. :raises NotFound: no such image, or it lacks that platform.
    :raises InvalidArgument: a statement is not valid JSON.
    """
    image = store.resolve(name, platform)
    found = []
    for manifest in store.graph.manifests(image.target):
        about = (manifest.descriptor.annotations or {}).get(ATTESTS)
        if not manifest.is_attestation or about != image.manifest_descriptor.digest:
            continue
        for layer in manifest.manifest.layers:
            predicate = (layer.annotations or {}).get(_PREDICATE, "")
            if not kinds or predicate in kinds:
                found.append(Statement(layer, predicate, _body(store, layer) if bodies else None))
    return found


def _body(store: ImageStore, layer: Descriptor) -> Any:
    if layer.size > _SIZE_MAX:
        raise InvalidArgument(f"cannot read statement {layer.digest}: it has {layer.size} bytes")
    if not store.content.has(layer.digest):
        raise NotFound(f"cannot read statement {layer.digest}: it is not here")
    return decode_strict(store.content.read(layer.digest, limit=_SIZE_MAX), "statement")
