"""Keys: one digest for everything that a vertex's result depends on.

A vertex has two. The *definition key* is known before anything runs: the operation, and its inputs' keys,
with a context's files by their checksum. The *content key* uses the actual inputs: the identity of the
parent's result, and a checksum of exactly those files that are read of each source. So if a source is built
again with the same files, everything built on it is still valid; and a source that is no longer in the cache
need not be built again if all that uses it is cached. Neither key contains times of files, comments, labels,
secrets or the user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from wherry.solver.graph import (
    CopyOp,
    FetchOp,
    ImageOp,
    LocalOp,
    MakeDirectoryOp,
    Operation,
    RunOp,
    ScratchOp,
    Vertex,
)

_VERSION = "2"


class Known(Protocol):
    """What is known about sources before anything runs."""

    def local(self, name: str, op: CopyOp, part: int) -> str:
        """Checksum of what ``op.parts[part]`` selects in a context. :raises NotFound: a source is missing."""

    def local_at(self, name: str, path: str) -> str:
        """Checksum of everything at one path of a context."""

    def fetched(self, op: FetchOp) -> str:
        """Digest of something that was fetched."""


class Keys:
    """The definition keys of one build's graph."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._keys: dict[Vertex, str] = {}
        self._sources: dict[Vertex, Mapping[int, str]] = {}

    def definition(self, vertex: Vertex) -> str:
        """The keys of its inputs must have been computed before (:func:`wherry.solver.graph.walk` has that
        order)."""
        if vertex not in self._keys:
            self._keys[vertex] = self._definition(vertex)
        return self._keys[vertex]

    def _definition(self, vertex: Vertex) -> str:
        op = vertex.op
        if isinstance(op, ImageOp):
            # Only the base's files count: two names for the same layers give the same key.
            return _digest(
                "image", op.image.snapshot or "none", vertex.platform if not op.image.snapshot else ""
            )
        if isinstance(op, ScratchOp):
            return _digest("scratch")
        if isinstance(op, LocalOp):
            return _digest("local", op.name)
        if isinstance(op, FetchOp):
            return _digest("fetch", self._known.fetched(op))
        parent = self.definition(vertex.parent) if vertex.parent is not None else ""
        return self.step(vertex, parent, self.sources(vertex))

    def sources(self, vertex: Vertex) -> Mapping[int, str]:
        """For each part of a copy or mount of a run: what is known of its source before anything runs.

        It is found out once: the checksum of a context's many files takes long.
        """
        if vertex not in self._sources:
            self._sources[vertex] = self._sources_of(vertex)
        return self._sources[vertex]

    def _sources_of(self, vertex: Vertex) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for number, index, path in uses(vertex.op):
            source = vertex.sources[index]
            if isinstance(source.op, LocalOp) and isinstance(vertex.op, CopyOp):
                found[number] = self._known.local(source.op.name, vertex.op, number)
            elif isinstance(source.op, LocalOp):
                found[number] = self._known.local_at(source.op.name, path)
            else:
                found[number] = self.definition(source)
        return found

    @staticmethod
    def step(vertex: Vertex, parent: str, sources: Mapping[int, str]) -> str:
        """The key of a step from its parent's key and what is known of its sources."""
        return _digest("step", _fields(vertex.op), vertex.platform, parent, sorted(sources.items()))


def uses(op: Operation) -> list[tuple[int, int, str]]:
    """What a step reads of its sources: (number of the part or mount, index of the source, path in it)."""
    if isinstance(op, CopyOp):
        return [(number, part.source, "") for number, part in enumerate(op.parts)]
    if isinstance(op, RunOp):
        return [(n, m.source, m.path) for n, m in enumerate(op.mounts) if m.source >= 0]
    return []


def _fields(op: Operation) -> Any:
    """The parts of an operation that can change its result."""
    fields = msgspec.to_builtins(op)
    if isinstance(op, RunOp):
        del fields["secret_env"]
        for mount in fields["mounts"]:
            del mount["required"]
    if isinstance(op, MakeDirectoryOp):
        return ["workdir", fields]
    return [type(op).__name__, fields]


def _digest(*parts: Any) -> str:
    # File names may contain bytes that are not UTF-8; this encoder escapes them.
    return hashlib.sha256(json.dumps([_VERSION, *parts]).encode()).hexdigest()
