"""The table of contents of an archive:
``index.json`` of an OCI layout, ``manifest.json`` of a docker archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.images.store import ImageStore
from wherry.model import oci, reference
from wherry.model.base import convert
from wherry.model.digest import Digest
from wherry.model.documents import decode_config, decode_document, decode_strict, guess_media_type
from wherry.model.oci import Descriptor, Index, Manifest
from wherry.model.reference import Reference
from wherry.storage import streams
from wherry.storage.leases import Lease

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_IMAGES_MAX = 4096
_LAYER_TYPES = {streams.PLAIN: oci.LAYER, streams.GZIP: oci.LAYER_GZIP, streams.ZSTD: oci.LAYER_ZSTD}


@dataclass(frozen=True)
class ArchiveMember:
    """A file of the archive; ``data`` only for small files that are not in the content store (yet)."""

    digest: Digest
    size: int
    data: bytes | None


@dataclass(frozen=True)
class LoadPlan:
    """A target that is in the content store, and the names to give it."""

    target: Descriptor
    names: tuple[Reference, ...]


class _DockerImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    repo_tags: list[str] = msgspec.field(default_factory=list)
    layers: list[str] = msgspec.field(default_factory=list)


Find = Callable[[str], ArchiveMember | None]
Keep = Callable[[ArchiveMember], None]


def plan_oci(find: Find, keep: Keep, store: ImageStore) -> list[LoadPlan]:
    """The targets of an OCI layout (image-spec, image-layout.md); one entry per digest, with all its names.

    :raises InvalidArgument: the layout is broken, or a target is missing.
    """
    data = _small(find, "index.json")
    said = decode_strict(data, "index.json")
    kind = said.get("mediaType") if isinstance(said, dict) else None
    index = decode_document(data, kind if kind in oci.INDEX_TYPES else oci.INDEX)
    assert isinstance(index, Index)
    plans: dict[Digest, LoadPlan] = {}
    for described in index.manifests:
        entry = described if described.media_type else _guessed(described, find, store)
        if entry.media_type not in oci.MANIFEST_TYPES | oci.INDEX_TYPES:
            continue
        hex_part = entry.digest.partition(":")[2]
        member = find(f"blobs/sha256/{hex_part}")
        if member is not None:
            keep(member)
        if not store.content.has(entry.digest):
            raise InvalidArgument(f"cannot load the archive: blob {entry.digest} is missing")
        # names belong to the archive, not to the target
        target = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)
        if store.content.size(entry.digest) != entry.size:
            raise InvalidArgument(f"cannot load the archive: blob {entry.digest} is not {entry.size} bytes")
        store.graph.document(target)
        annotations = entry.annotations or {}
        name = _name(annotations.get(IMAGE_NAME) or annotations.get(REF_NAME))
        earlier = plans[entry.digest].names if entry.digest in plans else ()
        plans[entry.digest] = LoadPlan(target, tuple(dict.fromkeys([*earlier, *name])))
    return list(plans.values())


def _guessed(entry: Descriptor, find: Find, store: ImageStore) -> Descriptor:
    """For an entry without a media type: guess it."""
    member = find(f"blobs/sha256/{entry.digest.partition(':')[2]}")
    data = member.data if member is not None else None
    if data is None:
        if not store.content.has(entry.digest):
            raise InvalidArgument(f"cannot load the archive: blob {entry.digest} is missing")
        data = store.content.read(entry.digest, limit=oci.MANIFEST_SIZE_MAX)
    return msgspec.structs.replace(entry, media_type=guess_media_type(data))


def plan_docker(find: Find, keep: Keep, store: ImageStore, lease: Lease) -> list[LoadPlan]:
    """Write the manifests that a docker archive lacks; they refer to its unchanged blobs.

    :raises InvalidArgument: the archive is broken, or a blob is missing.
    """
    raw = decode_strict(_small(find, "manifest.json"), "manifest.json")
    images = convert(raw, list[_DockerImage])
    if len(images) > _IMAGES_MAX:
        raise InvalidArgument("cannot load the archive: it has too many images")
    plans = []
    for image in images:
        config = _required(find, image.config)
        keep(config)
        config_data = store.content.read(config.digest, limit=oci.CONFIG_SIZE_MAX)
        if len(decode_config(config_data).rootfs.diff_ids) != len(image.layers):
            raise InvalidArgument("cannot load the archive: an image's layers and its configuration differ")
        layers = []
        for path in image.layers:
            layer = _required(find, path)
            keep(layer)
            layers.append(_layer(store, layer))
        manifest = Manifest(
            media_type=oci.MANIFEST,
            config=Descriptor(media_type=oci.CONFIG, digest=config.digest, size=config.size),
            layers=layers,
        )
        data = encode_document(manifest)
        digest = store.content.put(data, oci.MANIFEST, lease=lease.id)
        names = [name for tag in image.repo_tags for name in _name(tag)]
        target = Descriptor(media_type=oci.MANIFEST, digest=digest, size=len(data))
        plans.append(LoadPlan(target, tuple(dict.fromkeys(names))))
    return plans


def encode_document(document: Manifest | Index) -> bytes:
    """The JSON of a manifest or an index that we have made."""
    fields: dict[str, Any] = {"schemaVersion": 2, "mediaType": document.media_type}
    return msgspec.json.encode({**fields, **msgspec.to_builtins(document)})


def _layer(store: ImageStore, member: ArchiveMember) -> Descriptor:
    with store.content.open(member.digest) as blob:
        compression = streams.detect(streams.read_head(blob))
    if compression not in _LAYER_TYPES:
        raise InvalidArgument(f"cannot load the archive: {compression} is not a layer format")
    return Descriptor(media_type=_LAYER_TYPES[compression], digest=member.digest, size=member.size)


def _name(text: str | None) -> list[Reference]:
    """A name to give, if it is valid."""
    if not text:
        return []
    try:
        name = reference.parse(text)
    except InvalidArgument:
        return []
    return [] if name.digest is not None else [name.with_default_tag()]


def _required(find: Find, path: str) -> ArchiveMember:
    member = find(path)
    if member is None:
        raise InvalidArgument(f"cannot load the archive: {path[:200]!r} is missing")
    return member


def _small(find: Find, path: str) -> bytes:
    member = _required(find, path)
    assert member.data is not None
    return member.data
