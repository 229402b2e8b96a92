"""The OCI image nouns: descriptors, manifests, indexes and image configurations (image-spec 1.1).

JSON names are the spec's (camelCase; the image config mixes snake_case and PascalCase). The stored bytes
of a blob are what counts: these structs are a view on them and are never written back over them.
"""

from __future__ import annotations

import platform as host_platform
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.model.digest import Digest

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

MANIFEST_SIZE_MAX = 4 << 20
"""Bytes; the bound the distribution spec asks registries to take at least, used as ours."""
CONFIG_SIZE_MAX = 8 << 20

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", None),
    "ppc64le": ("ppc64le", None),
    "riscv64": ("riscv64", None),
    "s390x": ("s390x", None),
}


class _Oci(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    pass


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``os/architecture[/variant]`` as in an index entry."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")

    def __str__(self) -> str:
        return "/".join(p for p in (self.os, self.architecture, self.variant) if p)

    def satisfies(self, wanted: Platform) -> bool:
        """Whether this platform answers a request for ``wanted`` (a missing variant matches any)."""
        mine, theirs = self.normalised(), wanted.normalised()
        if (mine.os, mine.architecture) != (theirs.os, theirs.architecture):
            return False
        return theirs.variant is None or mine.variant == theirs.variant

    def normalised(self) -> Platform:
        arch, variant = self.architecture.lower(), (self.variant or "").lower()
        arch = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}.get(
            arch, arch
        )
        if arch == "arm64" and variant in ("8", "v8"):
            variant = ""
        if arch == "arm" and variant in ("", "7"):
            variant = "v7"
        if arch == "amd64" and variant == "v1":
            variant = ""
        return Platform(os=self.os.lower(), architecture=arch, variant=variant or None)


def host() -> Platform:
    """The platform of this machine."""
    machine = host_platform.machine()
    arch, variant = _ARCHITECTURES.get(machine, (machine, None))
    return Platform(os="linux", architecture=arch, variant=variant)


def parse_platform(text: str) -> Platform:
    """Parse ``linux/arm64/v8``; a lone word is an architecture or an operating system.

    :raises InvalidArgument: empty parts or more than three of them.
    """
    parts = text.split("/")
    if not all(parts) or len(parts) > 3:
        raise InvalidArgument(f"{text!r} is an invalid OS/architecture specifier")
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(os=parts[0], architecture=host().architecture).normalised()
        return Platform(os="linux", architecture=parts[0]).normalised()
    return Platform(
        os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else None
    ).normalised()


class Descriptor(_Oci, frozen=True, kw_only=True):
    """What a blob is: media type, digest, size in bytes (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str | None = None
    data: str | None = None


class Manifest(_Oci, frozen=True, kw_only=True):
    """One image for one platform (image-spec, manifest.md; Docker's schema 2 has the same shape)."""

    schema_version: int = msgspec.field(default=2)
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(_Oci, frozen=True, kw_only=True):
    """Several manifests under one digest (image-spec, image-index.md; Docker's manifest list)."""

    schema_version: int = msgspec.field(default=2)
    media_type: str | None = None
    artifact_type: str | None = None
    manifests: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[Digest]


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step that made the image; ``empty_layer`` steps have no layer of their own."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Durations are nanoseconds; ``test`` is ``["NONE"]``, ``["CMD", …]`` or ``["CMD-SHELL", text]``.

    ``on_failure`` is ours: what happens to a container that became unhealthy (``none``, ``restart``,
    ``stop``, ``kill``).
    """

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    on_failure: str = ""


class ImageRunConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """The ``config`` member: defaults for containers made from the image (image-spec, config.md)."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image's configuration blob."""

    created: str | None = None
    author: str | None = None
    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    config: ImageRunConfig = msgspec.field(default_factory=ImageRunConfig)
    rootfs: RootFS
    history: list[History] = msgspec.field(default_factory=list)

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)
