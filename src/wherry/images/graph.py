"""Reading what an image is made of: indexes, manifests, configurations, from the content store."""

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
_DEPTH_MAX = 4
_ATTESTATION = "vnd.docker.reference.type"


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
