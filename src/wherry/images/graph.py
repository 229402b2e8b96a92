"""Reading what an image is made of: indexes, manifests, configurations, all bounded and checked.

The stored bytes decide. A document that could be read as a manifest and as an index, that names another
media type than its descriptor, or that says a thing twice, is refused (image-spec, manifest.md and
image-index.md; CVE-2021-41190).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.base import convert
from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, ImageConfig, Index, Manifest, Platform
from wherry.storage.content import ContentStore

_CACHED = 256
_DEPTH_MAX = 4
_MANIFESTS_MAX = 4096
_LAYERS_MAX = 1024
_ATTESTATION = "vnd.docker.reference.type"
_ONLY_MANIFEST, _ONLY_INDEX = ("config", "layers"), ("manifests",)


@dataclass(frozen=True)
class PlatformImage:
    """One manifest of a target, with its configuration where that is here and is an image's."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig | None

    @property
    def platform(self) -> Platform:
        """From the index where it says, else from the configuration."""
        if self.descriptor.platform is not None:
            return self.descriptor.platform
        return self.config.platform if self.config is not None else Platform()

    @property
    def is_attestation(self) -> bool:
        return _ATTESTATION in (self.descriptor.annotations or {})

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """Of every layer, lowest first; none where the configuration is not here."""
        return () if self.config is None else chain_ids(self.config)


class Graph:
    """Decoded documents, remembered. Safe to use from any thread."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._cache: OrderedDict[Digest, Any] = OrderedDict()
        self._lock = threading.Lock()

    def _decoded(self, digest: Digest, limit: int, decode: Any) -> Any:
        with self._lock:
            cached = self._cache.get(digest)
            if cached is not None:
                self._cache.move_to_end(digest)
        if cached is not None and self._content.has(digest):
            return cached
        value = decode(self._content.read(digest, limit=limit))
        with self._lock:
            self._cache[digest] = value
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return value

    def document(self, descriptor: Descriptor) -> Manifest | Index:
        """:raises NotFound: it is not here. :raises InvalidArgument: it is not what it claims to be."""

        def decode(data: bytes) -> Manifest | Index:
            return decode_document(data, descriptor.media_type)

        found: Manifest | Index = self._decoded(descriptor.digest, oci.MANIFEST_SIZE_MAX, decode)
        return found

    def config(self, descriptor: Descriptor) -> ImageConfig:
        """:raises NotFound: it is not here. :raises InvalidArgument: it is not an image's configuration."""
        found: ImageConfig = self._decoded(descriptor.digest, oci.CONFIG_SIZE_MAX, decode_config)
        return found

    def manifests(self, target: Descriptor, depth: int = 0) -> Iterator[PlatformImage]:
        """Every manifest of a target that is here, in the index's order."""
        try:
            document = self.document(target)
        except NotFound:
            return
        if isinstance(document, Manifest):
            config = None
            if self._content.has(document.config.digest):
                try:
                    config = self.config(document.config)
                except InvalidArgument:
                    config = None  # an artifact: its configuration is something else
            yield PlatformImage(target, document, config)
        elif depth < _DEPTH_MAX:
            for child in document.manifests:
                if child.media_type in oci.MANIFEST_TYPES | oci.INDEX_TYPES:
                    yield from self.manifests(child, depth + 1)

    def closure(self, target: Descriptor) -> tuple[dict[Digest, str], set[Digest]]:
        """Everything a target reaches, as digest -> role, and its layer chains. Absent blobs are included."""
        roles: dict[Digest, str] = {}
        chains: set[Digest] = set()
        self._reach(target, roles, 0)
        for image in self.manifests(target):
            roles.setdefault(image.manifest.config.digest, "config")
            for layer in image.manifest.layers:
                roles.setdefault(layer.digest, "layer")
            if not image.is_attestation:
                chains.update(image.chain_ids)
        return roles, chains

    def _reach(self, descriptor: Descriptor, roles: dict[Digest, str], depth: int) -> None:
        is_index = descriptor.media_type in oci.INDEX_TYPES
        is_manifest = descriptor.media_type in oci.MANIFEST_TYPES
        roles[descriptor.digest] = "index" if is_index else "manifest" if is_manifest else "other"
        if not is_index or depth >= _DEPTH_MAX or not self._content.has(descriptor.digest):
            return
        document = self.document(descriptor)
        assert isinstance(document, Index)
        for child in document.manifests:
            if child.digest not in roles:
                self._reach(child, roles, depth + 1)


def chain_ids(config: ImageConfig) -> tuple[Digest, ...]:
    """The ChainID of every layer, lowest first (image-spec, config.md)."""
    chain: list[Digest] = []
    for diff_id in config.rootfs.diff_ids:
        chain.append(digests.chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)


def decode_document(data: bytes, media_type: str) -> Manifest | Index:
    """Decode a manifest or an index, as ``media_type`` says.

    :raises InvalidArgument: too large, malformed, ambiguous, or of another type.
    """
    if len(data) > oci.MANIFEST_SIZE_MAX:
        raise InvalidArgument(f"invalid manifest: {len(data)} bytes are too many")
    raw = _load(data, "manifest")
    said = raw.get("mediaType")
    if said is not None and said != media_type:
        raise InvalidArgument(f"invalid manifest: it says {said!r}, its descriptor {media_type!r}")
    if raw.get("schemaVersion") != 2:
        raise InvalidArgument("invalid manifest: only schema version 2 is supported")
    if media_type in oci.INDEX_TYPES:
        _refuse_members(raw, _ONLY_MANIFEST, "an index")
        index = convert(raw, Index)
        if len(index.manifests) > _MANIFESTS_MAX:
            raise InvalidArgument("invalid index: too many manifests")
        _check_digests(index.manifests)
        return index
    if media_type not in oci.MANIFEST_TYPES:
        raise InvalidArgument(f"invalid manifest: media type {media_type!r} is not supported")
    _refuse_members(raw, _ONLY_INDEX, "a manifest")
    manifest = convert(raw, Manifest)
    if len(manifest.layers) > _LAYERS_MAX:
        raise InvalidArgument("invalid manifest: too many layers")
    _check_digests([manifest.config, *manifest.layers])
    return manifest


def guess_media_type(data: bytes) -> str:
    """The media type of a document whose descriptor is lost, by its own word or its members.

    :raises InvalidArgument: it is neither a manifest nor an index.
    """
    raw = _load(data, "manifest")
    said = raw.get("mediaType")
    if said in oci.MANIFEST_TYPES | oci.INDEX_TYPES:
        return str(said)
    if said is None and "manifests" in raw:
        return oci.INDEX
    if said is None and "layers" in raw:
        return oci.MANIFEST
    raise InvalidArgument("invalid manifest: it is neither a manifest nor an index")


def decode_config(data: bytes) -> ImageConfig:
    """:raises InvalidArgument: too large, malformed, or not an image's configuration."""
    if len(data) > oci.CONFIG_SIZE_MAX:
        raise InvalidArgument(f"invalid image configuration: {len(data)} bytes are too many")
    config = convert(_load(data, "image configuration"), ImageConfig)
    if len(config.rootfs.diff_ids) > _LAYERS_MAX:
        raise InvalidArgument("invalid image configuration: too many layers")
    for diff_id in config.rootfs.diff_ids:
        digests.parse(diff_id)
    return config


def decode_strict(data: bytes, what: str) -> Any:
    """JSON in which no object says a member twice. :raises InvalidArgument: malformed."""
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"invalid {what}: {e}") from e


def _load(data: bytes, what: str) -> dict[str, Any]:
    raw = decode_strict(data, what)
    if not isinstance(raw, dict):
        raise InvalidArgument(f"invalid {what}: it is not a JSON object")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same member twice")
    return found


def _refuse_members(raw: dict[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in names:
        if raw.get(name) is not None:
            raise InvalidArgument(f"invalid manifest: {what} has a member {name!r}")


def _check_digests(descriptors: list[Descriptor]) -> None:
    for descriptor in descriptors:
        digests.parse(descriptor.digest)
        if not 0 <= descriptor.size < 1 << 50:
            raise InvalidArgument(f"invalid manifest: {descriptor.digest} has {descriptor.size} bytes")
