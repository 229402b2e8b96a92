"""The noun of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""The label of a volume that nobody named; its value is empty."""


@dataclass(frozen=True)
class Volume:
    """``id`` never changes, ``name`` may. ``created`` in nanoseconds since the epoch; ``mountpoint`` is the
    directory with its data, ``""`` while a driver that mounts it elsewhere has not."""

    id: str
    name: str
    driver: str
    created: int
    options: Mapping[str, str]
    labels: Mapping[str, str]
    mountpoint: Path | None
    scope: str = "local"

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels
