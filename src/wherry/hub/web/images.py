"""What the page of an image shows, read from rows and from the image's own documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wherry.hub.core import images, sbom
from wherry.hub.core.images import LayerLine, ShownConfig
from wherry.hub.core.refusals import Refusal
from wherry.hub.core.sbom import Package
from wherry.hub.store import content, manifests
from wherry.hub.store.manifests import Referrer, StoredManifest
from wherry.hub.store.objects import Full, ObjectLost
from wherry.hub.store.profiles import RepositoryProfile
from wherry.hub.store.sql import Tx

Load = Callable[[str, int], bytes]
_ATTESTATION = "vnd.docker.reference.digest"
_REFERRERS = 100


@dataclass(frozen=True)
class IndexMember:
    """One platform of an index. ``held``: the hub has its manifest."""

    platform: str
    digest: str
    size: int
    held: bool


@dataclass(frozen=True)
class ImagePage:
    """``digest`` is that of the tag (an index or an image), ``shown`` that of the image of the chosen
    platform."""

    digest: str
    media_type: str
    size: int
    shown: str
    members: list[IndexMember]
    config: ShownConfig
    layers: list[LayerLine]
    shared: dict[str, int]
    referrers: list[Referrer]
    packages: list[Package]
    body: str
    tags: list[str]
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The compressed size of the layers, in bytes."""
        return sum(one.size for one in self.layers)

    @property
    def largest(self) -> int:
        return max((one.size for one in self.layers), default=0)

    @property
    def is_image(self) -> bool:
        return bool(self.layers) and bool(self.config.platform or self.config.history)


def resolve(tx: Tx, name: str, reference: str) -> StoredManifest:
    """A manifest by tag or digest. :raises Refusal: ``MANIFEST_UNKNOWN``."""
    find = manifests.by_digest if ":" in reference else manifests.by_tag
    found = find(tx, name, reference)
    if found is None:
        raise Refusal("MANIFEST_UNKNOWN", f"{name} has no {reference}")
    return found


def members(document: dict[str, Any], held: set[str]) -> list[IndexMember]:
    """The images of an index, without attestations."""
    found = []
    for one in document.get("manifests") or []:
        if _ATTESTATION in (one.get("annotations") or {}):
            continue
        platform = one.get("platform") or {}
        words = [str(platform.get(key) or "") for key in ("os", "architecture", "variant")]
        digest = str(one.get("digest"))
        found.append(
            IndexMember(
                "/".join(w for w in words if w) or "any", digest, int(one.get("size") or 0), digest in held
            )
        )
    return found


def page(tx: Tx, repository: RepositoryProfile, reference: str, platform: str, load: Load) -> ImagePage:
    """Read everything. ``platform`` is the digest of a member, or the name of a platform; empty: the usual
    one.

    :raises Refusal: ``MANIFEST_UNKNOWN``.
    """
    name = repository.name
    top = resolve(tx, name, reference)
    document = json.loads(top.body)
    children = _children(tx, top.id)
    found = members(document, set(children))
    chosen = _choose(found, platform)
    image = manifests.by_digest(tx, name, chosen.digest) if chosen is not None and chosen.held else None
    image = image or top
    inner = json.loads(image.body)
    config = _config(tx, name, inner, load)
    layers = images.layers([one for one in inner.get("layers") or [] if isinstance(one, dict)], config)
    referrers = manifests.referrers(tx, repository.row, image.digest, "", 0, _REFERRERS)
    if image.digest != top.digest:
        referrers += manifests.referrers(tx, repository.row, top.digest, "", 0, _REFERRERS)
    size = tx.one("SELECT total_size FROM manifest WHERE id = ?", top.id)
    return ImagePage(
        digest=top.digest, media_type=top.media_type, size=int(size[0]) if size else 0, shown=image.digest,
        members=found, config=config, layers=layers, shared=_shared(tx, repository.id, layers),
        referrers=referrers, packages=_packages(tx, name, document, image.digest, referrers, load),
        body=json.dumps(json.loads(top.body), indent=2, ensure_ascii=False)[:200_000], tags=_tags(tx, top.id),
        annotations={str(k): str(v) for k, v in (document.get("annotations") or {}).items()},
    )  # fmt: skip


def _children(tx: Tx, manifest: int) -> list[str]:
    rows = tx.all(
        "SELECT m.digest FROM manifest_child c JOIN manifest m ON m.id = c.child_id WHERE c.parent_id = ?",
        manifest,
    )
    return [row[0] for row in rows]


def _choose(found: list[IndexMember], platform: str) -> IndexMember | None:
    usual = ("linux/amd64", "linux/arm64/v8", "linux/arm64")
    for wanted in (platform, *usual):
        for one in found:
            if wanted and wanted in (one.digest, one.platform) and one.held:
                return one
    return next((one for one in found if one.held), None)


def _config(tx: Tx, name: str, document: dict[str, Any], load: Load) -> ShownConfig:
    descriptor = document.get("config")
    if not isinstance(descriptor, dict):
        return ShownConfig()
    blob = content.find(tx, name, str(descriptor.get("digest")))
    if blob is None or blob.size > images.SIZE_MAX:
        return ShownConfig()
    return images.parse(_loaded(blob, load))


def _loaded(blob: content.Blob, load: Load) -> bytes:
    try:
        return load(blob.key, blob.size)
    except (ObjectLost, Full):
        return b""


def _shared(tx: Tx, repository: int, layers: list[LayerLine]) -> dict[str, int]:
    """How many other images of the repository have each layer. Those of other repositories are not counted:
    it would tell what is in private ones."""
    found: dict[str, int] = {}
    for digest in {one.digest for one in layers if one.digest}:
        row = tx.one(
            "SELECT count(*) FROM blob b JOIN manifest_blob l ON l.blob_id = b.id AND l.repository_id = ?"
            " WHERE b.digest = ?",
            repository, digest,
        )  # fmt: skip
        if row is not None and row[0] > 1:
            found[digest] = int(row[0]) - 1
    return found


def _packages(
    tx: Tx, name: str, document: dict[str, Any], digest: str, referrers: list[Referrer], load: Load
) -> list[Package]:
    """From the first list of packages that is attached to the image, as a referrer or as an attestation."""
    attached = [one.digest for one in referrers]
    attached += [
        str(one.get("digest"))
        for one in document.get("manifests") or []
        if (one.get("annotations") or {}).get(_ATTESTATION) == digest
    ]
    for other in attached[:20]:
        found = manifests.by_digest(tx, name, other)
        if found is None:
            continue
        for layer in json.loads(found.body).get("layers") or []:
            if not isinstance(layer, dict) or layer.get("mediaType") not in sbom.TYPES:
                continue
            blob = content.find(tx, name, str(layer.get("digest")))
            if (
                blob is not None
                and blob.size <= sbom.SIZE_MAX
                and (packages := sbom.parse(_loaded(blob, load)))
            ):
                return packages
    return []


def _tags(tx: Tx, manifest: int) -> list[str]:
    return [row[0] for row in tx.all("SELECT name FROM tag WHERE manifest_id = ? ORDER BY name", manifest)]
