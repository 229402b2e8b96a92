"""The values that the image store returns; they do not refer to the store."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.model.digest import Digest
from wherry.model.oci import Descriptor, ImageConfig, Manifest, Platform
from wherry.model.reference import Reference

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))"
)


@dataclass(frozen=True)
class Image:
    """One platform of one target, from which containers can be made.

    :ivar id: the target's digest (a manifest or an index): the image's identity.
    :ivar names: every tagged name that points at the target, normalised.
    :ivar chain_ids: of every layer, lowest first; the last one is the snapshot containers start from.
    :ivar last_tagged_ns: when a name last came or went, nanoseconds since the epoch.
    """

    id: Digest
    target: Descriptor
    manifest_descriptor: Descriptor
    manifest: Manifest
    config_descriptor: Descriptor
    config: ImageConfig
    names: tuple[Reference, ...]
    chain_ids: tuple[Digest, ...]
    last_tagged_ns: int

    @property
    def created_ns(self) -> int | None:
        """The creation time in the configuration, nanoseconds since the epoch; ``None`` if it has none."""
        return parse_time(self.config.created)

    @property
    def platform(self) -> Platform:
        return self.config.platform

    @property
    def repo_tags(self) -> list[str]:
        return [name.familiar() for name in self.names if name.tag]

    @property
    def repo_digests(self) -> list[str]:
        return repo_digests(self.names, self.id)


@dataclass(frozen=True)
class ManifestSummary:
    """One manifest of a target, for ``?manifests=1``. Sizes in bytes, of local content only.

    :ivar kind: ``image``, ``attestation`` or ``unknown``. :ivar attests: the manifest an attestation is for.
    """

    descriptor: Descriptor
    kind: str
    available: bool
    platform: Platform | None
    content_size: int
    unpacked_size: int
    attests: Digest | None = None


@dataclass(frozen=True)
class ImageSummary:
    """One target, for the list. ``size`` in bytes: its local blobs and its unpacked snapshots, as in Docker
    with the containerd image store. ``created`` in seconds since the epoch."""

    id: Digest
    target: Descriptor
    names: tuple[Reference, ...]
    created: int
    size: int
    shared_size: int
    labels: dict[str, str]
    manifests: tuple[ManifestSummary, ...] = ()
    created_ns: int = 0

    @property
    def repo_tags(self) -> list[str]:
        return [name.familiar() for name in self.names if name.tag]

    @property
    def repo_digests(self) -> list[str]:
        return repo_digests(self.names, self.id)

    @property
    def dangling(self) -> bool:
        return not self.names


@dataclass(frozen=True)
class HistoryEntry:
    """One step, newest first. ``created`` in seconds since the epoch, ``size`` in bytes of its layer."""

    id: str
    created: int
    created_by: str
    tags: tuple[str, ...]
    size: int
    comment: str


@dataclass(frozen=True)
class Untagged:
    """``reference`` in its short form. :ivar image: its target. :ivar labels: the image's."""

    reference: str
    image: Digest = field(default=Digest(""), compare=False)
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Deleted:
    id: Digest
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class ImageUser:
    """A container made from an image, or one that has it mounted; ``platform`` is the platform that it uses,
    ``name`` the reference in its request."""

    container: str
    running: bool
    platform: str = ""
    name: str = ""


Users = Callable[[Digest], Iterable[ImageUser]]
"""The containers that use the image with this id; the engine implements it."""


@dataclass(frozen=True)
class DiskUsage:
    """The bytes of everything that images use; each blob and snapshot counts once."""

    total: int


def repo_digests(names: Iterable[Reference], target: Digest) -> list[str]:
    """``repository@digest`` for every repository in which it has a name."""
    return list(dict.fromkeys(f"{name.familiar_name}@{target}" for name in names))


def parse_time(text: str | None) -> int | None:
    """RFC 3339 to nanoseconds since the epoch; ``None`` if it is missing or malformed."""
    match = _RFC3339.fullmatch(text or "")
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
    try:
        seconds = calendar.timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
    except (ValueError, OverflowError):
        return None
    if sign:
        offset = int(off_hours) * 3600 + int(off_minutes) * 60
        seconds -= offset if sign == "+" else -offset
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


@dataclass(frozen=True)
class NameVersion:
    """``number`` counts back from 0, the current or last target of the name.

    ``since`` is when it became the target, ``until`` when another one did (0: not yet), in nanoseconds since
    the epoch; ``present`` says whether the image is still in the store.
    """

    number: int
    target: Digest
    since: int
    until: int
    by: str
    why: str
    present: bool


@dataclass(frozen=True)
class Statement:
    """An in-toto statement about an image; ``body`` is its JSON, if it was requested."""

    descriptor: Descriptor
    predicate: str
    body: Any = None
