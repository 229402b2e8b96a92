"""Manifests from a registry's view: the content that they refer to, and validation.

The original bytes are stored; they may be hostile, so they are decoded with limits. Formats:
OCI image-spec 1.1 (manifest.md, image-index.md), Docker's schema 2 and manifest lists, and the withdrawn
artefact manifest, which some registries still have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from wherry.hub.core import digests
from wherry.hub.core.refusals import Refusal
from wherry.model import mediatypes

SIZE_MAX = mediatypes.MANIFEST_SIZE_MAX
DEPTH_MAX = 32
DESCRIPTORS_MAX = 1000
NUMBER_MAX = 2**53 - 1
TYPE_MAX = 255
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_KINDS = mediatypes.MANIFEST_TYPES | mediatypes.INDEX_TYPES | {ARTIFACT}
_FOREIGN = ("nondistributable", "foreign")


@dataclass(frozen=True)
class BlobDescriptor:
    media_type: str
    digest: str
    size: int
    foreign: bool = False
    """Whether its content may be stored only elsewhere (``urls``, non-distributable layers)."""
    platform: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class ParsedManifest:
    """:ivar blobs: config first (role ``config``), then layers (role ``layer``), as (role, descriptor)."""

    media_type: str
    artifact_type: str
    size: int
    blobs: list[tuple[str, BlobDescriptor]] = field(default_factory=list)
    children: list[BlobDescriptor] = field(default_factory=list)
    subject: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        return self.media_type in mediatypes.INDEX_TYPES

    @property
    def total_size(self) -> int:
        """The size of the manifest and of all that it refers to; for an index, the sizes in
        its descriptors."""
        return self.size + sum(d.size for _, d in self.blobs) + sum(d.size for d in self.children)


def _refuse(reason: str) -> NoReturn:
    raise Refusal("MANIFEST_INVALID", f"manifest invalid: {reason}")


def parse(data: bytes, content_type: str) -> ParsedManifest:
    """Decode a manifest with the request's ``content_type`` (may be empty).

    :raises Refusal: ``MANIFEST_INVALID``; ``DIGEST_INVALID`` for a digest with an unsupported algorithm.
    """
    document = _document(data)
    media_type = _media_type(document, content_type)
    if media_type == ARTIFACT:
        blobs = [("layer", d) for d in _descriptors(document, "blobs")]
    else:
        if document.get("schemaVersion") != 2:
            _refuse("schemaVersion is not 2")
        blobs = []
    children: list[BlobDescriptor] = []
    artifact_type = _text(document, "artifactType")
    if media_type in mediatypes.INDEX_TYPES:
        _absent(document, media_type, "layers", "config", "fsLayers")
        children = _descriptors(document, "manifests", needed=True)
    elif media_type in mediatypes.MANIFEST_TYPES:
        _absent(document, media_type, "manifests", "fsLayers")  # CVE-2021-41190: it must not be both
        config = _descriptor(document.get("config"), "config")
        blobs = [("config", config), *(("layer", d) for d in _descriptors(document, "layers", needed=True))]
        artifact_type = artifact_type or config.media_type
    subject = document.get("subject")
    return ParsedManifest(
        media_type,
        artifact_type,
        len(data),
        blobs,
        children,
        _descriptor(subject, "subject").digest if subject is not None else "",
        _annotations(document),
    )


def layers(data: bytes) -> list[dict[str, Any]]:
    """The descriptors of a stored manifest's layers, as they stand there."""
    found = json.loads(data).get("layers")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _document(data: bytes) -> dict[str, Any]:
    if len(data) > SIZE_MAX:
        raise Refusal("MANIFEST_INVALID", f"manifest larger than {SIZE_MAX} bytes", status=413)
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as e:
        raise Refusal("MANIFEST_INVALID", f"manifest invalid: not JSON: {str(e)[:200]}") from e
    if not isinstance(document, dict):
        _refuse("not an object")
    if _deeper_than(document, DEPTH_MAX):
        _refuse(f"nested deeper than {DEPTH_MAX}")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two programs could read different images from it.
        raise ValueError("an object has a duplicate key")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    inside: Iterator[Any] = iter(value.values() if isinstance(value, dict) else value)
    return any(_deeper_than(one, levels - 1) for one in inside)


def _media_type(document: dict[str, Any], content_type: str) -> str:
    said = content_type.partition(";")[0].strip()
    inside = _text(document, "mediaType")
    if said and inside and said != inside:
        _refuse(f"Content-Type {said[:TYPE_MAX]!r} is not its mediaType {inside!r}")
    media_type = said or inside or (mediatypes.INDEX if "manifests" in document else mediatypes.MANIFEST)
    if media_type not in _KINDS:
        if media_type.startswith(SCHEMA_1):
            _refuse("schema 1 manifests are not taken; push with a client of the last ten years")
        _refuse(f"unknown media type {media_type[:TYPE_MAX]!r}")
    return media_type


def _absent(document: dict[str, Any], media_type: str, *names: str) -> None:
    for name in names:
        if name in document:
            _refuse(f"a {media_type} must not have {name!r}")


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str) or len(value) > TYPE_MAX:
        _refuse(f"{name} is not a text of at most {TYPE_MAX} characters")
    return value


def _descriptors(document: dict[str, Any], name: str, *, needed: bool = False) -> list[BlobDescriptor]:
    values = document.get(name)
    if values is None and not needed:
        return []
    if not isinstance(values, list):
        _refuse(f"{name} is not a list")
    if len(values) > DESCRIPTORS_MAX:
        _refuse(f"more than {DESCRIPTORS_MAX} {name}")
    return [_descriptor(value, f"{name}[{i}]") for i, value in enumerate(values)]


def _descriptor(value: Any, where: str) -> BlobDescriptor:
    if not isinstance(value, dict):
        _refuse(f"{where} is not a descriptor")
    media_type, digest, size = value.get("mediaType", ""), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or len(media_type) > TYPE_MAX:
        _refuse(f"the mediaType of {where} is not a short text")
    if not isinstance(digest, str):
        _refuse(f"{where} has no digest")
    if type(size) is not int or not 0 <= size <= NUMBER_MAX:
        _refuse(f"the size of {where} is not a number of bytes")
    foreign = bool(value.get("urls")) or any(word in media_type for word in _FOREIGN)
    return BlobDescriptor(media_type, digests.check(digest), size, foreign, _platform(value.get("platform")))


def _platform(value: Any) -> tuple[str, str, str]:
    if not isinstance(value, dict):
        return "", "", ""
    system, machine, variant = (
        part if isinstance(part := value.get(name), str) else "" for name in ("os", "architecture", "variant")
    )
    return system[:64], machine[:64], variant[:64]


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    value = document.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        _refuse("annotations are not texts")
    return value
