"""Read the parts of an image from the content store: indexes, manifests, configurations."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument, NotFound
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.model.documents import decode_config, decode_document
from wherry.model.oci import Descriptor, ImageConfig, Index, Manifest, Platform
from wherry.storage.content import ContentStore

_CACHED = 256
DEPTH_MAX = 4
"""The limit for indexes within indexes."""
DOCUMENTS_MAX = 1024
"""The limit for the manifests and indexes of one image that are here."""
_ENTRIES_MAX = 16384
"""The limit for those that are not here."""
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True)
class PlatformImage:
    """One manifest of a target; with its configuration, if that is here and is an image's configuration."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig | None

    @property
    def platform(self) -> Platform:
        """From the index if it has it, else from the configuration."""
        said = self.descriptor.platform
        if said is not None and said.architecture:
            return said
        return self.config.platform if self.config is not None else Platform()

    @property
    def is_attestation(self) -> bool:
        return _ATTESTATION in (self.descriptor.annotations or {})

    @property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The chain ids of all layers, lowest first; empty if the configuration is not here."""
        return () if self.config is None else chain_ids(self.config)


class Graph:
    """Decoded documents, cached. Safe to use from any thread."""

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
        """:raises NotFound: it is not here.
        :raises InvalidArgument: it is not of the type that it should have."""

        def decode(data: bytes) -> Manifest | Index:
            return decode_document(data, descriptor.media_type)

        found: Manifest | Index = self._decoded(descriptor.digest, oci.MANIFEST_SIZE_MAX, decode)
        return found

    def config(self, descriptor: Descriptor) -> ImageConfig:
        """:raises NotFound: it is not here. :raises InvalidArgument: it is not an image's configuration."""
        found: ImageConfig = self._decoded(descriptor.digest, oci.CONFIG_SIZE_MAX, decode_config)
        return found

    def walk(self, target: Descriptor) -> Iterator[tuple[Descriptor, Manifest | Index | None]]:
        """Every document that a target refers to, directly or indirectly: the target first, in the order of
        its indexes. ``None`` stands for a document that is missing, or is neither manifest nor index.

        Each is visited once, even if indexes repeat it; a manifest once for each platform it is listed for.

        :raises InvalidArgument: there are more of them, or deeper ones, than an image can need.
        """
        seen: set[tuple[Digest, Platform | None]] = set()
        here = 0
        waiting = [(target, 0)]
        while waiting:
            descriptor, depth = waiting.pop()
            is_index = descriptor.media_type in oci.INDEX_TYPES
            key = (descriptor.digest, None if is_index else descriptor.platform)
            if key in seen:
                continue
            seen.add(key)
            document = self._here(descriptor)
            here += document is not None
            if len(seen) > _ENTRIES_MAX or here > DOCUMENTS_MAX:
                raise InvalidArgument(
                    f"invalid image {target.digest}: it has more than {DOCUMENTS_MAX} manifests and indexes"
                )
            yield descriptor, document
            if isinstance(document, Index):
                if depth >= DEPTH_MAX:
                    raise InvalidArgument(
                        f"invalid image {target.digest}: its indexes are nested more than {DEPTH_MAX} deep"
                    )
                waiting += [(child, depth + 1) for child in reversed(document.manifests)]

    def _here(self, descriptor: Descriptor) -> Manifest | Index | None:
        if descriptor.media_type not in oci.MANIFEST_TYPES | oci.INDEX_TYPES:
            return None
        try:
            return self.document(descriptor)
        except NotFound:
            return None

    def manifests(self, target: Descriptor) -> Iterator[PlatformImage]:
        """Every manifest of a target that is here, in the index's order. Raises what :meth:`walk` raises."""
        for descriptor, document in self.walk(target):
            if isinstance(document, Manifest):
                yield PlatformImage(descriptor, document, self._config_of(document))

    def _config_of(self, manifest: Manifest) -> ImageConfig | None:
        if not self._content.has(manifest.config.digest):
            return None
        try:
            return self.config(manifest.config)
        except InvalidArgument:
            return None  # an artifact: its configuration has another type

    def closure(self, target: Descriptor) -> tuple[dict[Digest, str], set[Digest]]:
        """Everything that a target refers to, as digest -> role, and its layer chains. Missing blobs are
        included.

        Raises what :meth:`walk` raises.
        """
        roles: dict[Digest, str] = {}
        manifests: list[PlatformImage] = []
        for descriptor, document in self.walk(target):
            roles.setdefault(descriptor.digest, _role(descriptor))
            if isinstance(document, Manifest):
                manifests.append(PlatformImage(descriptor, document, self._config_of(document)))
        chains: set[Digest] = set()
        for image in manifests:
            roles.setdefault(image.manifest.config.digest, "config")
            for layer in image.manifest.layers:
                roles.setdefault(layer.digest, "layer")
            if not image.is_attestation:
                chains.update(image.chain_ids)
        return roles, chains


def _role(descriptor: Descriptor) -> str:
    if descriptor.media_type in oci.INDEX_TYPES:
        return "index"
    return "manifest" if descriptor.media_type in oci.MANIFEST_TYPES else "other"


def chain_ids(config: ImageConfig) -> tuple[Digest, ...]:
    """The ChainID of every layer, lowest first (image-spec, config.md)."""
    chain: list[Digest] = []
    for diff_id in config.rootfs.diff_ids:
        chain.append(digests.chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)
