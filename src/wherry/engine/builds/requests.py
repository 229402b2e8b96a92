"""A client's build request, decoded and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.dockerfile.requests import NamedContext
from wherry.engine.builds.layers import Form, form_of
from wherry.engine.builds.runner import BuildLimits
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model.oci import Platform, parse_platform
from wherry.model.reference import Reference

IMAGE, LOCAL, TAR, OCI, DOCKER, CACHE_ONLY = "image", "local", "tar", "oci", "docker", "cacheonly"
_KINDS = (IMAGE, LOCAL, TAR, OCI, DOCKER, CACHE_ONLY)
_ATTRIBUTES = frozenset(
    "name push store unpack compression compression-level force-compression rewrite-timestamp oci-mediatypes "
    "name-canonical dest tar platform-split push-by-digest prefer-image-digest load".split()
)

_FIXED = {
    "store": True,
    "load": True,
    "prefer-image-digest": True,
    "force-compression": False,
    "platform-split": True,
    "oci-mediatypes": True,
}
"""Attributes that are accepted, but with one value only."""


MANIFEST, INDEX = "manifest", "index"
MANIFEST_DESCRIPTOR, INDEX_DESCRIPTOR = "manifest-descriptor", "index-descriptor"
_LEVELS = (MANIFEST, INDEX, MANIFEST_DESCRIPTOR, INDEX_DESCRIPTOR)
_ANNOTATION = re.compile(r"annotation(?:-(?P<level>[a-z-]+?))?(?:\[(?P<platform>[^\]]+)\])?\.(?P<key>.+)")


@dataclass(frozen=True)
class Annotation:
    """An annotation for one of the levels of an image: its manifest, its index, or the descriptor of either.
    ``platform`` is ``""`` for all platforms.
    """

    level: str
    key: str
    value: str
    platform: str = ""


def annotations_of(
    found: Sequence[Annotation], level: str, platform: Platform | None = None
) -> dict[str, str]:
    """The annotations of one level, for an image of one platform."""
    text = "" if platform is None else str(platform.normalised())
    return {one.key: one.value for one in found if one.level == level and one.platform in ("", text)}


@dataclass(frozen=True)
class Output:
    """Where the result goes. ``names``: the image's names besides the request's tags. ``tar``: an OCI image
    is one archive, not blobs in a directory. ``by_digest``: pushed without a tag, and gets no tag here.
    """

    kind: str = IMAGE
    names: tuple[str, ...] = ()
    push: bool = False
    form: Form = field(default_factory=Form)
    rewrite: bool = False
    annotations: Sequence[Annotation] = ()
    tar: bool = True
    by_digest: bool = False


@dataclass(frozen=True)
class BuildRequest:
    """A build request. ``dockerfile`` is its path in the context; ``text`` its content, if it is not in the
    context.

    ``remote`` is a context to fetch. Each of ``cache_from`` and ``cache_to`` has a ``type``. ``attestations``
    are attributes by kind (``provenance``, ``sbom``). ``name`` identifies the build for a client that wants
    to cancel it. ``legacy`` is set for clients of the builder before BuildKit: the history has its words.
    """

    dockerfile: str = "Dockerfile"
    text: bytes | None = None
    remote: str = ""
    tags: Sequence[Reference] = ()
    target: str = ""
    platforms: Sequence[Platform] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    valueless_args: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    entitlements: frozenset[str] = frozenset()
    limits: BuildLimits = field(default_factory=BuildLimits)
    outputs: Sequence[Output] = (Output(),)
    annotations: Mapping[str, str] = field(default_factory=dict)
    squash: bool = False
    cache_from: Sequence[Mapping[str, str]] = ()
    cache_to: Sequence[Mapping[str, str]] = ()
    attestations: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    debug: bool = False
    legacy: bool = False


def outputs(asked: Sequence[Mapping[str, Any]]) -> Sequence[Output]:
    """``[{"Type": "moby", "Attrs": {"type": "image", …}}]``, as in the API; an empty list means an image.

    :raises InvalidArgument: an unknown type or attribute. :raises NotImplemented_: one that is not supported.
    """
    return tuple(_output(one) for one in asked) or (Output(),)


def _output(asked: Mapping[str, Any]) -> Output:
    attributes = {str(k): str(v) for k, v in (asked.get("Attrs") or {}).items()}
    kind = attributes.pop("type", "") or str(asked.get("Type", ""))
    if kind in ("moby", ""):
        kind = IMAGE
    if kind == "registry":
        kind, attributes["push"] = IMAGE, "true"
    if kind not in _KINDS:
        raise InvalidArgument(f"unsupported output type: {kind}")
    annotations: list[Annotation] = []
    for key in list(attributes):
        if key.startswith("annotation"):
            annotations.append(_annotation(key, attributes.pop(key)))
        elif key not in _ATTRIBUTES:
            raise InvalidArgument(f"unknown attribute {key!r} of output {kind}")
    for key, value in _FIXED.items():
        if key in attributes and _true(attributes[key]) != value:
            raise NotImplemented_(
                f"{key}={attributes[key]} of an output is not implemented: it is always {str(value).lower()}"
            )
    if kind == CACHE_ONLY and len(attributes):
        raise InvalidArgument("output cacheonly has no attributes")
    rewrite = _true(attributes.get("rewrite-timestamp", "false"))
    return Output(
        kind,
        tuple(name for name in attributes.get("name", "").split(",") if name),
        _true(attributes.get("push", "false")),
        form_of(attributes.get("compression", ""), attributes.get("compression-level", ""), None),
        rewrite,
        tuple(annotations),
        _true(attributes.get("tar", "true")),
        _true(attributes.get("push-by-digest", "false")),
    )


def _annotation(key: str, value: str) -> Annotation:
    """From ``annotation[-LEVEL][[PLATFORM]].KEY``."""
    found = _ANNOTATION.fullmatch(key)
    level = (found["level"] or MANIFEST) if found is not None else ""
    if found is None or level not in _LEVELS:
        raise InvalidArgument(f"invalid annotation {key[:200]!r}")
    platform = str(parse_platform(found["platform"]).normalised()) if found["platform"] else ""
    return Annotation(level, found["key"], value, platform)


def _true(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", ""):
        raise InvalidArgument(f"invalid boolean {text!r}")
    return text.lower() in ("true", "1")


__all__ = ["BuildLimits", "BuildRequest", "NamedContext", "Output", "outputs"]
