"""The OCI image nouns: descriptors, manifests, indexes and image configurations (image-spec 1.1).

JSON names are the spec's (camelCase; the image config mixes snake_case and PascalCase). The stored bytes of a
blob are authoritative: these structs are decoded from them and never written back.
"""

from __future__ import annotations

import platform as host_platform
import re
from typing import Any

import msgspec

from wherry.errors import InvalidArgument
from wherry.model.digest import Digest
from wherry.model.mediatypes import (
    CONFIG as CONFIG,
)
from wherry.model.mediatypes import (
    CONFIG_SIZE_MAX as CONFIG_SIZE_MAX,
)
from wherry.model.mediatypes import (
    DOCKER_CONFIG as DOCKER_CONFIG,
)
from wherry.model.mediatypes import (
    DOCKER_LAYER as DOCKER_LAYER,
)
from wherry.model.mediatypes import (
    DOCKER_LAYER_GZIP as DOCKER_LAYER_GZIP,
)
from wherry.model.mediatypes import (
    DOCKER_LIST as DOCKER_LIST,
)
from wherry.model.mediatypes import (
    DOCKER_MANIFEST as DOCKER_MANIFEST,
)
from wherry.model.mediatypes import (
    INDEX as INDEX,
)
from wherry.model.mediatypes import (
    INDEX_TYPES as INDEX_TYPES,
)
from wherry.model.mediatypes import (
    LAYER as LAYER,
)
from wherry.model.mediatypes import (
    LAYER_GZIP as LAYER_GZIP,
)
from wherry.model.mediatypes import (
    LAYER_TYPES as LAYER_TYPES,
)
from wherry.model.mediatypes import (
    LAYER_ZSTD as LAYER_ZSTD,
)
from wherry.model.mediatypes import (
    MANIFEST as MANIFEST,
)
from wherry.model.mediatypes import (
    MANIFEST_SIZE_MAX as MANIFEST_SIZE_MAX,
)
from wherry.model.mediatypes import (
    MANIFEST_TYPES as MANIFEST_TYPES,
)
from wherry.model.mediatypes import (
    PLAIN_LAYER_TYPES as PLAIN_LAYER_TYPES,
)

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


_PLATFORM_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SYSTEMS = frozenset(
    {
        "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl",
        "netbsd", "openbsd", "plan9", "solaris", "wasi", "wasip1", "windows", "zos",
    }
)  # fmt: skip
_MACHINES = frozenset(
    {
        "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64",
        "mips64le", "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390",
        "s390x", "sparc", "sparc64", "wasm",
    }
)  # fmt: skip
"""The platforms that Go supports, by Go's names."""


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
        """Whether this platform satisfies a request for ``wanted`` (a missing variant matches any)."""
        mine, theirs = self.normalised(), wanted.normalised()
        if (mine.os, mine.architecture) != (theirs.os, theirs.architecture):
            return False
        return theirs.variant is None or mine.variant == theirs.variant

    def runs_on(self, machine: Platform) -> bool:
        """Whether ``machine`` can execute programs for this platform natively."""
        older = {"amd64": ("386",), "arm64": ("arm",)}.get(machine.architecture, ())
        return self.satisfies(machine) or (self.os == machine.os and self.normalised().architecture in older)

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

    :raises InvalidArgument: an unknown platform, in the words of Docker's parser.
    """
    parts = text.split("/")
    for part in parts:
        if not _PLATFORM_PART.fullmatch(part):
            raise InvalidArgument(
                f'"{part[:80]}" is an invalid component of "{text[:80]}": platform specifier component must '
                'match "^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(parts) > 3:
        raise InvalidArgument(f'"{text[:80]}": cannot parse platform specifier: invalid argument')
    system = "darwin" if parts[0].lower() == "macos" else parts[0].lower()
    if len(parts) == 1 and system in _SYSTEMS:
        found = Platform(os=system, architecture=host().architecture)
    elif len(parts) == 1:
        found = Platform(os="linux", architecture=parts[0])
    else:
        found = Platform(os=system, architecture=parts[1], variant=parts[2] if len(parts) == 3 else None)
    found = found.normalised()
    if found.os not in _SYSTEMS or found.architecture not in _MACHINES:
        raise InvalidArgument(f'"{text[:80]}": unknown operating system or architecture: invalid argument')
    return found


class Descriptor(_Oci, frozen=True, kw_only=True):
    """The description of a blob: media type, digest, size in bytes (image-spec, descriptor.md)."""

    media_type: str = ""
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
    layers: list[Descriptor] = msgspec.field(default_factory=list)
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(_Oci, frozen=True, kw_only=True):
    """Several manifests under one digest (image-spec, image-index.md; Docker's manifest list)."""

    schema_version: int = msgspec.field(default=2)
    media_type: str | None = None
    artifact_type: str | None = None
    manifests: list[Descriptor] = msgspec.field(default_factory=list)
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "layers"
    diff_ids: list[Digest] = msgspec.field(default_factory=list)


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step that made the image; ``empty_layer`` steps have no layer of their own."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Durations are nanoseconds; ``test`` is ``["NONE"]``, ``["CMD", …]`` or ``["CMD-SHELL", text]``.

    ``on_failure`` is an addition: what happens to a container that becomes unhealthy (``none``, ``restart``,
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
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: list[str] | None = msgspec.field(default=None, name="os.features")
    config: ImageRunConfig = msgspec.field(default_factory=ImageRunConfig)
    rootfs: RootFS
    history: list[History] = msgspec.field(default_factory=list)

    @property
    def platform(self) -> Platform:
        """Missing fields are taken from this host's platform, as in Docker."""
        mine = host()
        variant = self.variant if self.architecture else mine.variant
        return Platform(
            os=self.os or mine.os, architecture=self.architecture or mine.architecture, variant=variant
        )
