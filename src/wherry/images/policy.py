"""Which images are removed automatically: configured rules, which the daemon applies regularly.

Only images that no container uses are ever chosen. Their age counts from the last move of a name to or from
them. The rules about space (``max_size``, ``low_water``) choose the oldest first, and images without a name
before those with one. Versions kept for a rollback are exempt from all rules except ``low_water``, because a
full disk is worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from wherry.model.digest import Digest
from wherry.model.reference import Reference

_DAY = 24 * 3600 * 10**9


@dataclass(frozen=True)
class ImageUpkeepPolicy:
    """0 means "no such rule".

    :ivar every: seconds between two rounds. :ivar age_days: the age from which unused images are removed.
    :ivar keep: number of tags per repository that are kept, newest first.
    :ivar max_size: bytes of all images together. :ivar low_water: bytes that must stay free on the disk.
    """

    every: int = 3600
    age_days: int = 0
    keep: int = 0
    max_size: int = 0
    low_water: int = 0

    def __bool__(self) -> bool:
        return bool(self.age_days or self.keep or self.max_size or self.low_water)


@dataclass(frozen=True)
class Candidate:
    """An image; ``updated`` in nanoseconds since the epoch."""

    target: Digest
    names: Sequence[Reference]
    updated: int


def by_age_and_number(
    images: Iterable[Candidate], policy: ImageUpkeepPolicy, spared: Set[Digest], now: int
) -> list[Digest]:
    """The images that ``age_days`` and ``keep`` select."""
    found = [image for image in images if image.target not in spared]
    chosen = set()
    if policy.age_days:
        chosen |= {i.target for i in found if i.updated < now - policy.age_days * _DAY}
    if policy.keep:
        chosen |= _beyond(found, policy.keep)
    return [image.target for image in found if image.target in chosen]


def _beyond(images: Sequence[Candidate], keep: int) -> set[Digest]:
    """Images with no name among the newest of its repository."""
    repositories: dict[str, list[Candidate]] = {}
    for image in images:
        for name in {name.name for name in image.names}:
            repositories.setdefault(name, []).append(image)
    kept = {
        image.target
        for members in repositories.values()
        for image in sorted(members, key=lambda i: -i.updated)[:keep]
    }
    return {image.target for image in images if image.names} - kept


def by_space(images: Iterable[Candidate], spared: Set[Digest]) -> list[Digest]:
    """The order in which to remove images until there is enough room."""
    return [
        image.target
        for image in sorted(
            (image for image in images if image.target not in spared),
            key=lambda image: (bool(image.names), image.updated),
        )
    ]
