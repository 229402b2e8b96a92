"""Fetch manifests and indexes, decode them and check them against the request.

The bytes and their digest decide. The media type that the registry sends must agree with the one in the
document (CVE-2021-41190). Kinds that this engine cannot store are refused with an error that names the kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.model import oci
from wherry.model.documents import decode_document, decode_strict, guess_media_type
from wherry.model.oci import Descriptor, Index, Manifest
from wherry.registry.errors import REFUSED, UNSUPPORTED, RegistryError
from wherry.registry.repository import Document, Repository

SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
_SAYS_NOTHING = frozenset({"", "application/json", "text/plain", "application/octet-stream"})
_FOREIGN = ("nondistributable", "foreign")
CONFIG_TYPES = frozenset({oci.CONFIG, oci.DOCKER_CONFIG})


@dataclass(frozen=True)
class Resolved:
    """A document with the descriptor that names it; ``data`` is byte for byte as it came."""

    descriptor: Descriptor
    document: Manifest | Index
    data: bytes


async def fetch_target(repository: Repository, reference: str) -> Resolved:
    """The document that a tag or a digest points to.

    :raises RegistryError: it does not exist, or is not a kind that this engine can store.
    """
    return _decode(repository, await repository.manifest(reference), None)


async def fetch_child(repository: Repository, wanted: Descriptor) -> Resolved:
    """A manifest (or an inner index) that an index names. Raises as :func:`fetch_target`."""
    if not 0 < wanted.size <= oci.MANIFEST_SIZE_MAX:
        raise repository.error(REFUSED, f"manifest {wanted.digest} is said to have {wanted.size} bytes")
    found = await repository.manifest(wanted.digest, accept=wanted.media_type)
    return _decode(repository, found, wanted)


def _decode(repository: Repository, found: Document, wanted: Descriptor | None) -> Resolved:
    shown = wanted.digest if wanted is not None else found.digest
    try:
        media_type = _media_type(repository, found, wanted)
        document = decode_document(found.data, media_type)
    except InvalidArgument as e:
        raise repository.error(REFUSED, f"manifest {shown}: {e.message}") from e
    descriptor = Descriptor(media_type=media_type, digest=found.digest, size=len(found.data))
    if wanted is not None:
        if wanted.size != len(found.data):
            raise repository.error(
                REFUSED, f"manifest {shown} has {len(found.data)} bytes, its index says {wanted.size}"
            )
        descriptor = wanted
    return Resolved(descriptor, document, found.data)


def _media_type(repository: Repository, found: Document, wanted: Descriptor | None) -> str:
    said = found.media_type
    raw = decode_strict(found.data, "manifest")
    is_object = isinstance(raw, dict)
    if said in SCHEMA1 or (is_object and raw.get("schemaVersion") == 1):
        raise RegistryError(
            repository.host,
            UNSUPPORTED,
            "its manifest is of Docker's schema 1, which is not supported any more; "
            "it must be pushed again by a newer client",
        )
    if said in _SAYS_NOTHING:
        said = wanted.media_type if wanted is not None else guess_media_type(found.data)
    if wanted is not None and said != wanted.media_type:
        raise InvalidArgument(f"it comes as {said!r}, its index says {wanted.media_type!r}")
    return said


def check_image(repository: Repository, manifest: Manifest) -> None:
    """Refuse a manifest that is not a container image.

    :raises RegistryError: an artifact, a layer of an unknown kind, or a foreign layer.
    """
    if manifest.config.media_type not in CONFIG_TYPES:
        kind = manifest.artifact_type or manifest.config.media_type
        raise repository.error(REFUSED, f"it is not an image: its configuration is {kind!r}")
    if manifest.config.size > oci.CONFIG_SIZE_MAX:
        raise repository.error(
            REFUSED,
            f"its configuration {manifest.config.digest} has {manifest.config.size} bytes, "
            f"more than {oci.CONFIG_SIZE_MAX}",
        )
    for layer in manifest.layers:
        if layer.urls or any(word in layer.media_type for word in _FOREIGN):
            raise repository.error(
                REFUSED, f"layer {layer.digest} is to be fetched from elsewhere ({layer.media_type})"
            )
        if layer.media_type not in oci.LAYER_TYPES:
            raise repository.error(
                REFUSED, f"layer {layer.digest} has the unknown media type {layer.media_type!r}"
            )
