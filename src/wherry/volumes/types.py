"""The type of a volume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
NAME_MAX = 255
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""The label of an anonymous volume; its value is empty."""


@dataclass(frozen=True)
class Volume:
    """``id`` never changes, ``name`` may. ``created`` in nanoseconds since the epoch; ``mountpoint`` is the
    directory with its data, ``""`` while a driver has not mounted it."""

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
