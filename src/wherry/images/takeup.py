"""Images whose rows were lost: found again by their documents.

Names exist only in the database, so a restored image has none, until a container's record tells which name it
had.
"""

from __future__ import annotations

from collections.abc import Iterator

from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.documents import decode_document, guess_media_type
from wherry.model.oci import Descriptor, Index


def take_up(store: ImageStore) -> Iterator[str]:
    """Make images of documents that had no row, if no other document refers to them and at least one platform
    of them is complete; the rest is left to the collector. Yields lines that say what was found.

    Call this before anything is collected.
    """
    documents = _documents(store)
    reached = {
        child.digest
        for descriptor in documents
        if isinstance(document := store.graph.document(descriptor), Index)
        for child in document.manifests
    }
    for descriptor in documents:
        if descriptor.digest not in reached and _is_whole(store, descriptor):
            try:
                store.add(descriptor)
            except WherryError as e:
                yield f"cannot take up the image {descriptor.digest}: {e.message}"
            else:
                yield f"took up the image {descriptor.digest}, which no row knew"


def _documents(store: ImageStore) -> list[Descriptor]:
    """Manifests and indexes that had no row, and that no image contains."""
    found = []
    unknown = set(store.content.unreferenced())
    for digest in store.content.taken_up:
        if digest not in unknown:
            continue
        size = store.content.size(digest)
        if size > oci.MANIFEST_SIZE_MAX:
            continue
        try:
            data = store.content.read(digest, limit=oci.MANIFEST_SIZE_MAX)
            media_type = guess_media_type(data)
            decode_document(data, media_type)
        except (InvalidArgument, NotFound):
            continue  # a layer, a configuration
        found.append(Descriptor(media_type=media_type, digest=Digest(digest), size=size))
    return found


def _is_whole(store: ImageStore, target: Descriptor) -> bool:
    """Whether one of its platforms can run:
    its configuration is here, and every layer, packed or unpacked."""
    try:
        return any(
            image.config is not None
            and not image.is_attestation
            and len(image.chain_ids) == len(image.manifest.layers)
            and all(
                store.content.has(layer.digest) or store.layers.has(chain)
                for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=True)
            )
            for image in store.graph.manifests(target)
        )
    except WherryError:
        return False
