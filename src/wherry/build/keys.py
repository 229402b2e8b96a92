"""Content keys: what a vertex's result depends on, as one digest.

A vertex has two. The *definition key* is known before anything runs: the operation, and its inputs' keys,
with a context's files by their checksum. The *content key* knows what the inputs became: the parent by the
identity of its result, sources by a checksum of exactly what is read of them. So a source that was made anew
and came out the same keeps what was built on it, and a source that nobody has any more need not be made
again. Times of files, comments, labels, secrets and who built are in neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from wherry.build.graph import (
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

_VERSION = "1"


class Known(Protocol):
    """What is known about sources before anything runs."""

    def local(self, name: str, op: CopyOp, part: int) -> str:
        """Checksum of what ``op.parts[part]`` selects in a context. :raises NotFound: a source is missing."""

    def local_at(self, name: str, path: str) -> str:
        """Checksum of everything at one path of a context."""

    def fetched(self, op: FetchOp) -> str:
        """Digest of what came from elsewhere."""


class Keys:
    """The definition keys of one build's graph."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._keys: dict[Vertex, str] = {}

    def definition(self, vertex: Vertex) -> str:
        """Inputs must have been asked for before (:func:`wherry.build.graph.walk` has that order)."""
        if vertex not in self._keys:
            self._keys[vertex] = self._definition(vertex)
        return self._keys[vertex]

    def _definition(self, vertex: Vertex) -> str:
        op = vertex.op
        if isinstance(op, ImageOp):
            # What is started from are files: two names of the same layers are the same.
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

    def sources(self, vertex: Vertex) -> dict[int, str]:
        """By part of a copy, or by mount of a run: what is known without running anything."""
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
        """The key of a step on a parent, with its sources by what is known of them."""
        return _digest("step", _fields(vertex.op), vertex.platform, parent, sorted(sources.items()))


def uses(op: Operation) -> list[tuple[int, int, str]]:
    """What a step reads of its sources: (number of the part or mount, index of the source, path in it)."""
    if isinstance(op, CopyOp):
        return [(number, part.source, "") for number, part in enumerate(op.parts)]
    if isinstance(op, RunOp):
        return [(n, m.source, m.path) for n, m in enumerate(op.mounts) if m.source >= 0]
    return []


def _fields(op: Operation) -> Any:
    """What of an operation makes a difference to its result."""
    fields = msgspec.to_builtins(op)
    if isinstance(op, RunOp):
        del fields["secret_env"]
        for mount in fields["mounts"]:
            del mount["required"]
    if isinstance(op, MakeDirectoryOp):
        return ["workdir", fields]
    return [type(op).__name__, fields]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode([_VERSION, *parts])).hexdigest()
