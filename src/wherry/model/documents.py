"""Decode indexes, manifests and image configurations, with limits and checks.

A document is refused if it could be read both as a manifest and as an index, if its media type differs from
its descriptor's, or if a member appears twice (image-spec, manifest.md and image-index.md; CVE-2021-41190).
"""

from __future__ import annotations

import json
from typing import Any

from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.base import convert
from wherry.model.oci import Descriptor, ImageConfig, Index, Manifest

_MANIFESTS_MAX = 4096
_LAYERS_MAX = 1024
_ONLY_MANIFEST, _ONLY_INDEX = ("config", "layers"), ("manifests",)


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
    if raw.get("schemaVersion") not in (None, 0, 2):  # some tools omit it; version 1 is another format
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
    """The media type of a document without a descriptor, from its own media type or its members.

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
    config = convert(_kept(_load(data, "image configuration")), ImageConfig)
    if len(config.rootfs.diff_ids) > _LAYERS_MAX:
        raise InvalidArgument("invalid image configuration: too many layers")
    for diff_id in config.rootfs.diff_ids:
        digests.parse(diff_id)
    return config


def _kept(raw: dict[str, Any]) -> dict[str, Any]:
    """Normalise members whose presence alone has a meaning and that are null, and a command
    that is a string."""
    config = raw.get("config")
    if not isinstance(config, dict):
        return raw
    changed: dict[str, Any] = {}
    for name, empty in (("ExposedPorts", {}), ("Volumes", {}), ("Labels", "")):
        if isinstance(members := config.get(name), dict):
            changed[name] = {key: empty if value is None else value for key, value in members.items()}
    for name in ("Entrypoint", "Cmd", "Shell"):
        if isinstance(text := config.get(name), str):
            changed[name] = [text]
    return {**raw, "config": {**config, **changed}}


def decode_strict(data: bytes, what: str) -> Any:
    """Decode JSON; no member may appear twice in an object. :raises InvalidArgument: malformed."""
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
