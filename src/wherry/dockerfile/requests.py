"""The parameters of a build besides the Dockerfile: target, platform, arguments, named contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.model import oci
from wherry.model.oci import Platform


@dataclass(frozen=True)
class NamedContext:
    """``--build-context``: ``kind`` is image, local, http, git or target; ``value`` is its name or
    address.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class PlanRequest:
    """The client's request. ``fresh`` are the stages that do not use the cache, ``*`` means all.
    ``valueless_args`` were given without a value, so an ARG's default counts."""

    target: str = ""
    platform: Platform = field(default_factory=oci.host)
    build_args: Mapping[str, str] = field(default_factory=dict)
    valueless_args: frozenset[str] = frozenset()
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    network: str = "default"
    entitlements: frozenset[str] = frozenset()
    epoch: int | None = None
