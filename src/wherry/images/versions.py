"""The versions of a name: what it has pointed at, newest first, and the way back.

Every move of a name is a row (``state.images``), so ``app:latest@{1}`` is what the name meant before it moved
last. A target that lost its name stays as long as it is among the newest versions of one and left it not too
long ago: a prune spares it, so that a rollback has something to go back to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.errors import InvalidArgument, NotFound
from wherry.images.store import ImageStore
from wherry.model.digest import Digest
from wherry.model.images import NameVersion
from wherry.model.reference import Reference, parse
from wherry.state.images import NameMove

KEEP_DAYS, KEEP_VERSIONS = 30, 10
_DAY = 24 * 3600 * 10**9


@dataclass(frozen=True)
class Keep:
    """What a prune spares. :ivar days: 0 for nothing but what has a name."""

    days: int = KEEP_DAYS
    versions: int = KEEP_VERSIONS


def of_name(store: ImageStore, name: Reference) -> list[NameVersion]:
    """Every version of a name, newest first.

    :raises NotFound: the store has never seen the name.
    """
    full = name.with_default_tag()
    moves = store.moves(full)
    if not moves:
        raise NotFound(f"No such image: {full.familiar()}")
    return [
        NameVersion(
            number, target, move.time, until, move.actor, move.why, store.rows.get(target) is not None
        )
        for number, (target, move, until) in enumerate(_newest_first(moves))
    ]


def _newest_first(moves: Sequence[NameMove]) -> list[tuple[Digest, NameMove, int]]:
    """Target, the move that brought it, and when it left; a removal ends a version and is none itself."""
    found: list[tuple[Digest, NameMove, int]] = []
    until = 0
    for move in reversed(moves):
        if move.new and not (found and found[-1][0] == move.new):
            found.append((Digest(move.new), move, until))
        elif move.new:  # removed and put back: one version, from its first coming on
            found[-1] = (Digest(move.new), move, found[-1][2])
        until = move.time
    return found


def rollback(
    store: ImageStore, name: Reference, wanted: str, *, by: str = ""
) -> tuple[NameVersion, NameVersion]:
    """Point a name at an earlier version; return it, and the one the name had.

    :param wanted: how many versions back (``1``), or the digest of one, or its beginning.
    :raises NotFound: there is no such version, or its image is gone.
    """
    if name.digest is not None:
        raise InvalidArgument("cannot roll back a digest: it is an image, not a name")
    found = of_name(store, name)
    version = _choose(found, wanted, name)
    if not version.present:
        raise NotFound(
            f"cannot roll {name.with_default_tag().familiar()} back to version {version.number}: "
            f"image {version.target} was removed"
        )
    store.tag(name, version.target, why="rollback", by=by)
    return version, found[0]


def _choose(found: Sequence[NameVersion], wanted: str, name: Reference) -> NameVersion:
    shown = name.with_default_tag().familiar()
    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 4:
        number = int(wanted)
        if number == 0:
            raise InvalidArgument(f"cannot roll {shown} back to version 0: that is where it is")
        if number >= len(found):
            raise NotFound(f"cannot roll {shown} back: it has {len(found) - 1} earlier versions")
        return found[number]
    prefix = wanted.removeprefix("sha256:")
    matches = {
        v.target: v for v in reversed(found[1:]) if v.target.removeprefix("sha256:").startswith(prefix)
    }
    if len(prefix) < 4 or not matches:
        raise NotFound(f"cannot roll {shown} back: {wanted[:80]!r} is none of its earlier versions")
    if len(matches) > 1:
        raise InvalidArgument(f"cannot roll {shown} back: several versions begin with {wanted[:80]!r}")
    return next(iter(matches.values()))


def protected(store: ImageStore, keep: Keep, now: int | None = None) -> set[Digest]:
    """Targets that a prune spares although no name points at them any more."""
    if not keep.days or not keep.versions:
        return set()
    oldest = (time.time_ns() if now is None else now) - keep.days * _DAY
    spared: set[Digest] = set()
    for name in store.rows.names_moved_since(oldest):
        for version in of_name(store, parse(name))[: keep.versions + 1]:
            if version.present and version.until >= oldest:
                spared.add(version.target)
    return spared
