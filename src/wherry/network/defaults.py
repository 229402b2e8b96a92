"""The three networks every host has: bridge, host and none."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network

import msgspec

from wherry.network import ipam
from wherry.network.drivers.bridge import ICC_OPTION, MTU_OPTION
from wherry.network.types import Instance, Network, NetworkConfig, Subnet


def default_networks(
    instance: Instance,
    config: NetworkConfig,
    stored: Mapping[str, Network],
    *,
    in_use: Collection[str],
    used_subnets: Callable[[], Collection[IPv4Network]],
) -> tuple[list[Network], list[str]]:
    """The networks as they should be now: ids and the bridge's subnet stay what they were.

    :param stored: what was kept, by name. :param in_use: ids of networks with endpoints, whose subnet is
        not changed even if the configuration asks for another.
    :returns: the networks, and lines that say what could not be done.
    """
    lines: list[str] = []
    bridge = stored.get("bridge") or _new("bridge", "bridge")
    subnet, line = _bridge_subnet(bridge, config, bridge.id in in_use, used_subnets)
    lines += line
    bridge = msgspec.structs.replace(
        bridge, subnets=(subnet,), bridge_name=instance.bridge, options=_options(instance, config)
    )
    return [
        bridge,
        stored.get("host") or _new("host", "host"),
        stored.get("none") or _new("none", "null"),
    ], lines


def _new(name: str, driver: str) -> Network:
    return Network(id=secrets.token_hex(32), name=name, driver=driver, created=time.time_ns())


def _bridge_subnet(
    bridge: Network,
    config: NetworkConfig,
    in_use: bool,
    used_subnets: Callable[[], Collection[IPv4Network]],
) -> tuple[Subnet, list[str]]:
    kept = bridge.subnets[0] if bridge.subnets else None
    if config.bip:
        wanted = ipam.parse_bip(config.bip, config.fixed_cidr)
        if kept is not None and kept != wanted and in_use:
            return kept, [f"network bridge keeps {kept.cidr}: containers use it; bip {config.bip} waits"]
        return wanted, []
    if kept is not None:
        return kept, []
    return ipam.pick_subnet(config.default_address_pools, used_subnets()), []


def _options(instance: Instance, config: NetworkConfig) -> dict[str, str]:
    """The option names are those that Docker's clients show and look for."""
    prefix = "com.docker.network.bridge."
    return {
        f"{prefix}default_bridge": "true",
        ICC_OPTION: str(config.icc).lower(),
        f"{prefix}enable_ip_masquerade": str(config.ip_masq).lower(),
        f"{prefix}host_binding_ipv4": config.host_ip,
        f"{prefix}name": instance.bridge,
        MTU_OPTION: str(config.mtu),
    }
