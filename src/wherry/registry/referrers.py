"""Manifests that refer to an image: signatures, SBOMs, provenance (distribution-spec 1.1, "Listing
Referrers").

A registry lists the manifests that have a given ``subject``. Older registries do not support this: there
clients that push a referrer maintain an index under the tag ``<algorithm>-<hex>`` instead.
"""

from __future__ import annotations

import json
from contextlib import suppress

from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.documents import decode_document
from wherry.model.oci import Descriptor, Index
from wherry.registry.errors import MANIFEST_UNKNOWN, RegistryError
from wherry.registry.repository import Repository

EACH_MAX = 64
"""The maximum number of referrers of one subject that are read."""


def tag_of(subject: Digest) -> str:
    """The tag of the list at registries without the referrers API (distribution-spec, "Referrers Tag
    Schema")."""
    algorithm, _, value = subject.partition(":")
    return f"{algorithm[:32]}-{value[:64]}"


async def listed(repository: Repository, subject: Digest) -> list[Descriptor]:
    """The referrers of a manifest or index, at most :data:`EACH_MAX`; empty if the registry has no list.

    :raises RegistryError: the registry cannot be asked.
    """
    data = await repository.referrers(subject)
    if data is None:
        data = await _tagged(repository, subject)
    if data is None:
        return []
    try:
        document = decode_document(data, oci.INDEX)
    except InvalidArgument:
        return []
    assert isinstance(document, Index)
    found = [d for d in document.manifests if d.media_type == oci.MANIFEST and not d.urls]
    return found[:EACH_MAX]


async def _tagged(repository: Repository, subject: Digest) -> bytes | None:
    try:
        return (await repository.manifest(tag_of(subject), accept=oci.INDEX)).data
    except RegistryError as e:
        if e.code == MANIFEST_UNKNOWN or e.status in (400, 404):
            return None
        raise


async def with_referrer(repository: Repository, subject: Digest, referrer: Descriptor) -> bytes | None:
    """The list under the subject's tag with one more entry, to be pushed; None if it has the
    entry already."""
    manifests: list[dict[str, object]] = []
    before = await _tagged(repository, subject)
    if before is not None:
        with suppress(ValueError, KeyError, TypeError):
            manifests = list(json.loads(before)["manifests"])
    if any(isinstance(m, dict) and m.get("digest") == referrer.digest for m in manifests):
        return None
    entry: dict[str, object] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        entry["annotations"] = referrer.annotations
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*manifests, entry]}
    return json.dumps(index).encode()


def index_descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type=oci.INDEX, digest=digests.of(data), size=len(data))
