"""Encode the build cache and builds for the Engine API and its additions."""

from __future__ import annotations

from typing import Any

from wherry.wire.times import rfc3339


def cache_record(
    *,
    identifier: str,
    parent: str,
    kind: str,
    description: str,
    in_use: bool,
    shared: bool,
    size: int,
    created: int,
    used: int,
    uses: int,
) -> dict[str, Any]:
    """``BuildCache``. Times in nanoseconds since the epoch."""
    return {
        "ID": identifier,
        "Parents": [parent] if parent else None,
        "Type": kind,
        "Description": description,
        "InUse": in_use,
        "Shared": shared,
        "Size": size,
        "CreatedAt": rfc3339(created),
        "LastUsedAt": rfc3339(used) if used else None,
        "UsageCount": uses,
    }


def history(
    *, identifier: str, started: int, finished: int, status: str, document: dict[str, Any]
) -> dict[str, Any]:
    """A build that has ended, or runs."""
    return {
        "ID": identifier,
        "Status": status,
        "StartedAt": rfc3339(started),
        "FinishedAt": rfc3339(finished) if finished else None,
        "Duration": finished - started if finished else 0,
        **document,
    }
