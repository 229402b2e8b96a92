"""Networks as the Engine API shows them, from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.wire.times import rfc3339


def network(
    *,
    name: str,
    network_id: str,
    driver: str,
    created: int,
    scope: str,
    ipam: Mapping[str, Any],
    options: Mapping[str, str],
    labels: Mapping[str, str],
    internal: bool,
    attachable: bool,
    ipv4: bool,
    ipv6: bool,
    config_only: bool,
    config_from: str,
) -> dict[str, Any]:
    """``Network``."""
    return {
        "Name": name,
        "Id": network_id,
        "Created": rfc3339(created),
        "Scope": scope,
        "Driver": driver,
        "EnableIPv4": ipv4,
        "EnableIPv6": ipv6,
        "IPAM": dict(ipam),
        "Internal": internal,
        "Attachable": attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": config_from},
        "ConfigOnly": config_only,
        "Options": dict(options),
        "Labels": dict(labels),
    }


def status(subnets: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """``NetworkStatus``: by subnet, addresses taken and addresses free."""
    return {
        "IPAM": {
            "Subnets": {
                cidr: {"IPsInUse": taken, "DynamicIPsAvailable": free}
                for cidr, (taken, free) in subnets.items()
            }
        }
    }
