"""Volumes as the Engine API shows them, from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.wire.times import rfc3339


def volume(
    *,
    name: str,
    driver: str,
    mountpoint: str,
    created: int,
    labels: Mapping[str, str],
    options: Mapping[str, str],
    scope: str,
) -> dict[str, Any]:
    """``Volume``; ``created`` in nanoseconds since the epoch."""
    return {
        "CreatedAt": rfc3339(created),
        "Driver": driver,
        "Labels": dict(labels) or None,
        "Mountpoint": mountpoint,
        "Name": name,
        "Options": dict(options) or None,
        "Scope": scope,
    }
