"""The media types of images (image-spec 1.1, media-types.md, and Docker's), and limits of their documents.

Apart from :mod:`~wherry.model.oci`, so that whoever needs no structs does not load their library.
"""

from __future__ import annotations

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({INDEX, DOCKER_LIST})
LAYER_TYPES = frozenset({LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP})
PLAIN_LAYER_TYPES = frozenset({LAYER, DOCKER_LAYER})
"""The media types of uncompressed layers: the digest is the diff id, so the blob can be made again from the
layer's files."""

MANIFEST_SIZE_MAX = 4 << 20
"""Bytes: the size that the distribution spec requires registries to accept; it is our limit."""
CONFIG_SIZE_MAX = 8 << 20
