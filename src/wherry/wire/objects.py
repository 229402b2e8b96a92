"""Volumes and networks as the Engine API shows them, from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def network(
    *,
    name: str,
    network_id: str,
    driver: str,
    created: int,
    scope: str,
    subnets: Sequence[Mapping[str, Any]],
    options: Mapping[str, str],
    labels: Mapping[str, str],
    internal: bool,
    attachable: bool,
    ipv4: bool,
    ipv6: bool,
    containers: Mapping[str, Mapping[str, str]] | None,
) -> dict[str, Any]:
    """``Network``; with ``containers`` as inspect shows it, without as the list does."""
    out: dict[str, Any] = {
        "Name": name,
        "Id": network_id,
        "Created": rfc3339(created),
        "Scope": scope,
        "Driver": driver,
        "EnableIPv4": ipv4,
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Options": None, "Config": list(subnets) or None},
        "Internal": internal,
        "Attachable": attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Options": dict(options),
        "Labels": dict(labels),
    }
    out["Containers"] = dict(containers) if containers is not None else {}
    return out
