"""What a client asks of a build, decoded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.build.plan import NamedContext
from wherry.engine.builds.layers import Form, form_of
from wherry.engine.builds.runner import Limits
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model.credentials import Credentials
from wherry.model.oci import Platform
from wherry.model.reference import Reference

IMAGE, LOCAL, TAR, OCI, DOCKER, CACHE_ONLY = "image", "local", "tar", "oci", "docker", "cacheonly"
_KINDS = (IMAGE, LOCAL, TAR, OCI, DOCKER, CACHE_ONLY)
_ATTRIBUTES = frozenset(
    "name push store unpack compression compression-level force-compression rewrite-timestamp oci-mediatypes "
    "name-canonical dest tar platform-split".split()
)

_FIXED = {
    "store": True,
    "unpack": True,
    "force-compression": False,
    "name-canonical": False,
    "platform-split": True,
    "oci-mediatypes": True,
}
"""Attributes that may be said, and have one value here."""


@dataclass(frozen=True)
class Output:
    """Where the result goes. ``names`` are an image's besides the request's tags."""

    kind: str = IMAGE
    names: tuple[str, ...] = ()
    push: bool = False
    form: Form = field(default_factory=Form)
    rewrite: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built. ``dockerfile`` is its path in the context, ``text`` itself where it is none of it.

    ``remote`` is a context to be fetched. ``cache_from`` and ``cache_to`` have a ``type`` each.
    ``attestations`` are attributes by kind (``provenance``, ``sbom``). ``name`` is for who wants to end it.
    """

    dockerfile: str = "Dockerfile"
    text: bytes | None = None
    remote: str = ""
    tags: Sequence[Reference] = ()
    target: str = ""
    platforms: Sequence[Platform] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    pull: bool = False
    network: str = "default"
    entitlements: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    outputs: Sequence[Output] = (Output(),)
    annotations: Mapping[str, str] = field(default_factory=dict)
    squash: bool = False
    cache_from: Sequence[Mapping[str, str]] = ()
    cache_to: Sequence[Mapping[str, str]] = ()
    attestations: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    debug: bool = False
    credentials: Sequence[Credentials] = ()


def outputs(asked: Sequence[Mapping[str, Any]]) -> Sequence[Output]:
    """``[{"Type": "moby", "Attrs": {"type": "image", …}}]``, as the API has it; none means an image.

    :raises InvalidArgument: an unknown type or attribute. :raises NotImplemented_: one that is not there.
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
    annotations: dict[str, str] = {}
    for key in list(attributes):
        if key.startswith(("annotation.", "annotation-manifest.")):
            annotations[key.partition(".")[2]] = attributes.pop(key)
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
        annotations,
    )


def _true(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", ""):
        raise InvalidArgument(f"invalid boolean {text!r}")
    return text.lower() in ("true", "1")


__all__ = ["BuildRequest", "Limits", "NamedContext", "Output", "outputs"]
