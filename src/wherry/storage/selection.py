"""Which files a COPY selects, and their checksum: the checksum and the copy use the same walk.

A :class:`Tree` is either an index in memory (a context) or an open directory (a stage, in a confined child).
Both give the same answers, so that exactly the checksummed files are copied. The rules are those of BuildKit:

- a source that is a directory stands for its content, anything else for itself. If the destination must be
  made, it gets the metadata of the first item then, whose ``path`` is empty;
- a link at the end of a source is followed, links below it are not; nothing leads out of the tree;
- a pattern (``*``, ``?``, ``[…]``) may match nothing; a plain name must exist;
- with ``parents`` the path of a source is kept, or its part after ``/./``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from wherry.model.globs import path_pattern
from wherry.model.ignore import Patterns

FILE, DIRECTORY, LINK, OTHER = "f", "d", "l", "o"
_WILD = re.compile(r"[*?\[]")


class NotThere(Exception):
    """A source that is not in the tree; the text is its name as written."""


class Node(NamedTuple):
    """One entry; ``mtime`` in nanoseconds, ``target`` of a link, ``device`` of a device node.

    There are many thousands; a frozen dataclass takes five times as long to make.
    """

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    target: bytes = b""
    device: int = 0


class Tree(Protocol):
    """Paths are relative to the root, without a leading slash; ``b""`` is the root."""

    def find(self, path: bytes) -> bytes | None:
        """Where ``path`` leads if all links are followed within the root; ``None`` if it leads to nothing."""

    def node(self, path: bytes) -> Node | None:
        """The entry at a path that contains no links."""

    def names(self, path: bytes) -> list[bytes]:
        """Names in a directory, in order."""

    def digest(self, path: bytes) -> bytes:
        """The sha256 of a file's bytes."""


@dataclass(frozen=True)
class Wanted:
    """An instruction's selection.
    ``into``: the destination is written as a directory (with a trailing slash)."""

    sources: Sequence[str]
    into: bool
    parents: bool = False
    exclude: Sequence[str] = ()
    hidden: Sequence[str] = ()
    """Paths of the tree to ignore, as if they did not exist."""


class Item(NamedTuple):
    """One entry to copy: ``source`` in the tree, ``path`` below the destination (``b""``: the destination).

    ``top``: this is a source itself; if the destination is a directory, it may go into it under ``name``.
    """

    source: bytes
    path: bytes
    node: Node
    top: bool = False
    name: bytes = b""


def select(tree: Tree, wanted: Wanted) -> Iterator[Item]:
    """Everything an instruction copies, directories before their entries.

    :raises NotThere: a source without a pattern does not exist.
    """
    exclude = _Exclusion(wanted.exclude, wanted.hidden)
    for source in wanted.sources:
        pivot, rest = _pivot(source) if wanted.parents else ("", source)
        path = _clean(pivot + "/" + rest)
        if not _WILD.search(source):
            yield from _one(tree, path, source, _clean(rest), wanted, exclude)
            continue
        base = len(_clean(pivot).split("/")) if _clean(pivot) else 0
        for found in _matches(tree, path, double_star=wanted.parents):
            if found in exclude.hidden:
                continue
            kept = b"/".join(found.split(b"/")[base:])
            yield from _one(
                tree, found.decode("utf-8", "surrogateescape"), source, _text(kept), wanted, exclude
            )


def has_patterns(wanted: Wanted) -> bool:
    """Whether it contains a pattern."""
    return bool(wanted.exclude) or any(_WILD.search(source) for source in wanted.sources)


def _pivot(source: str) -> tuple[str, str]:
    before, dot, after = source.partition("/./")
    return (before, after) if dot else ("", source.removeprefix("./"))


def _one(
    tree: Tree, path: str, written: str, kept: str, wanted: Wanted, exclude: _Exclusion
) -> Iterator[Item]:
    encoded = path.encode("utf-8", "surrogateescape")
    real = tree.find(encoded)
    node = None if real is None else tree.node(real)
    if real is None or node is None or real in exclude.hidden:
        raise NotThere(written)
    name = encoded.rpartition(b"/")[2]
    prefix = b""
    if wanted.parents:
        prefix = kept.encode("utf-8", "surrogateescape")
        above = prefix.rpartition(b"/")[0]
        yield from _parents(tree, encoded[: len(encoded) - len(prefix)], above)
    if node.kind != DIRECTORY:
        if not exclude(prefix or name):
            yield Item(real, prefix, node, top=not wanted.parents, name=name)
        return
    if prefix and exclude(prefix):
        if not exclude.has_exceptions:
            return
    else:
        yield Item(real, prefix, node)
    yield from _below(tree, real, prefix, exclude)


def _parents(tree: Tree, base: bytes, above: bytes) -> Iterator[Item]:
    """The directories that ``parents`` makes, with the corresponding entries of the source."""
    made = b""
    for part in filter(None, above.split(b"/")):
        made = made + b"/" + part if made else part
        real = tree.find(base + made)
        node = None if real is None else tree.node(real)
        if real is not None and node is not None:
            yield Item(real, made, node)


def _below(tree: Tree, top: bytes, prefix: bytes, exclude: _Exclusion) -> Iterator[Item]:
    """The content of a directory. Exclusions compare the path below the source; ``prefix`` is a part of that
    path if the source's path is kept."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        here = _join(top, directory)
        inner = []
        for name in tree.names(here):
            relative, source = _join(directory, name), _join(here, name)
            node = tree.node(source)
            if node is None or source in exclude.hidden:
                continue
            if exclude(_join(prefix, relative)):
                if node.kind == DIRECTORY and exclude.has_exceptions:
                    inner.append(relative)
                continue
            yield Item(source, _join(prefix, relative), node)
            if node.kind == DIRECTORY:
                inner.append(relative)
        pending += reversed(inner)


def _matches(tree: Tree, pattern: str, *, double_star: bool) -> Iterator[bytes]:
    """The paths that match a pattern, part by part; ``**`` only if enabled."""
    if double_star and "**" in pattern:
        regex = path_pattern(pattern)
        pending = [b""]
        while pending:
            directory = pending.pop()
            for name in tree.names(directory):
                path = _join(directory, name)
                node = tree.node(path)
                if node is not None and regex.fullmatch(_text(path)):
                    yield path
                elif node is not None and node.kind == DIRECTORY:
                    pending.append(path)
        return
    found = [b""]
    for part in filter(None, pattern.split("/")):
        regex = path_pattern(part, double_star=False)
        literal = not _WILD.search(part)
        following: list[bytes] = []
        for directory in found:
            if literal:
                candidate = _join(directory, part.replace("\\", "").encode("utf-8", "surrogateescape"))
                if tree.find(candidate) is not None:
                    following.append(candidate)
                continue
            real = tree.find(directory)
            node = None if real is None else tree.node(real)
            if real is None or node is None or node.kind != DIRECTORY:
                continue
            following += [_join(directory, n) for n in tree.names(real) if regex.fullmatch(_text(n))]
        found = following
    yield from found


class _Exclusion:
    """``--exclude`` for one source: compared with the path below it, with ``parents`` below the pivot."""

    def __init__(self, patterns: Sequence[str], hidden: Sequence[str]) -> None:
        self._patterns = Patterns(patterns)
        self.hidden = frozenset(path.encode("utf-8", "surrogateescape") for path in hidden)
        self.has_exceptions = any(pattern.startswith("!") for pattern in patterns)

    def __call__(self, path: bytes) -> bool:
        return bool(self._patterns) and self._patterns.excluded(_text(path))


def checksum(tree: Tree, wanted: Wanted, *, owners: bool) -> str:
    """A digest of exactly what :func:`select` yields: names, kinds, modes, links and bytes, not times.

    :param owners: include the owners, if they are not replaced.
    :raises NotThere: see :func:`select`.
    """
    total = hashlib.sha256()
    for item in select(tree, wanted):
        node = item.node
        total.update(
            b"%d %s %s %o %d %d %d\0"
            % (
                item.top,
                item.path or item.name,
                node.kind.encode(),
                node.mode,
                node.uid if owners else 0,
                node.gid if owners else 0,
                node.device,
            )
        )
        if node.kind == FILE:
            total.update(tree.digest(item.source))
        elif node.kind == LINK:
            total.update(node.target)
        total.update(b"\0")
    return total.hexdigest()


def _clean(path: str) -> str:
    """Without empty parts and dots; ``..`` stops at the root, as within any root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _join(directory: bytes, name: bytes) -> bytes:
    if not directory:
        return name
    return directory + b"/" + name if name else directory


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
