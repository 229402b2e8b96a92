"""The noun of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""The label of a volume that nobody named; its value is empty."""


@dataclass(frozen=True)
class Volume:
    """``created`` in nanoseconds since the epoch; ``mountpoint`` is the directory with its data."""

    name: str
    driver: str
    created: int
    options: Mapping[str, str]
    labels: Mapping[str, str]
    mountpoint: Path
    scope: str = "local"

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels
