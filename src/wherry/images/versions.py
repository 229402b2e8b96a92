"""The versions of a name: the targets it has had, newest first, and the rollback to one of them.

Every move of a name is a row (``state.images``), so ``app:latest@{1}`` is the target that the name had before
its last move. A target that lost its name is kept if it is among the newest versions of a name and lost it
not too long ago: a prune spares it, so that a rollback is possible.
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
NOTHING = Digest("")
"""The target of a name that was removed."""
_DAY = 24 * 3600 * 10**9


@dataclass(frozen=True)
class Keep:
    """What a prune spares. :ivar days: 0: only targets with a name."""

    days: int = KEEP_DAYS
    versions: int = KEEP_VERSIONS


def of_name(store: ImageStore, name: Reference) -> list[NameVersion]:
    """Every version of a name, newest first.

    :raises NotFound: the name was never used.
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
    """Target, the move that brought it, and when it left. A removal ends a version, but is not a version
    itself. Exception: if the last move was a removal, the name points to nothing,
    and the version before is one step back."""
    found: list[tuple[Digest, NameMove, int]] = []
    until = 0
    for number, move in enumerate(reversed(moves)):
        if not move.new and not number:
            found.append((NOTHING, move, 0))
        elif move.new and not (found and found[-1][0] == move.new):
            found.append((Digest(move.new), move, until))
        elif move.new:  # removed and set again: one version, which begins with the first move
            found[-1] = (Digest(move.new), move, found[-1][2])
        until = move.time
    return found


def rollback(
    store: ImageStore, name: Reference, wanted: str, *, by: str = ""
) -> tuple[NameVersion, NameVersion]:
    """Point a name to an earlier version; returns that version, and the one the name had.

    :param wanted: the number of versions back (``1``), or the digest of one, or the beginning of the digest.
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
        raise NotFound(f"cannot roll {shown} back: {wanted[:80]!r} is not one of its earlier versions")
    if len(matches) > 1:
        raise InvalidArgument(f"cannot roll {shown} back: several versions begin with {wanted[:80]!r}")
    return next(iter(matches.values()))


def protected(store: ImageStore, keep: Keep, now: int | None = None) -> set[Digest]:
    """Targets without a name that a prune spares."""
    if not keep.days or not keep.versions:
        return set()
    oldest = (time.time_ns() if now is None else now) - keep.days * _DAY
    spared: set[Digest] = set()
    for name in store.rows.names_moved_since(oldest):
        for version in of_name(store, parse(name))[: keep.versions + 1]:
            if version.present and version.until >= oldest:
                spared.add(version.target)
    return spared
