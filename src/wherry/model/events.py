"""One thing that happened to one object."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """``time`` in nanoseconds since the epoch; ``type`` container, image, volume, network, daemon …"""

    type: str
    action: str
    actor: str
    time: int
    attributes: dict[str, str] = field(default_factory=dict)
    scope: str = "local"
