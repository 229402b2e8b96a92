"""The three networks every host has: bridge, host and none."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping

import msgspec

from wherry.network import ipam
from wherry.network.create import bridge_pools
from wherry.network.options import (
    DEFAULT_BRIDGE_OPTION,
    HOST_BINDING_OPTION,
    ICC_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    NAME_OPTION,
)
from wherry.network.types import Instance, IPNetwork, Network, NetworkConfig, Subnet


def default_networks(
    instance: Instance,
    config: NetworkConfig,
    stored: Mapping[str, Network],
    *,
    in_use: Collection[str],
    used_subnets: Callable[[], Collection[IPNetwork]],
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
    used_subnets: Callable[[], Collection[IPNetwork]],
) -> tuple[Subnet, list[str]]:
    kept = bridge.subnets[0] if bridge.subnets else None
    if config.bip:
        wanted = ipam.parse_bip(config.bip, config.fixed_cidr)
        if kept is not None and kept != wanted and in_use:
            return kept, [f"network bridge keeps {kept.cidr}: containers use it; bip {config.bip} waits"]
        return wanted, []
    if kept is not None:
        return kept, []
    return ipam.pick_subnet(bridge_pools(config), used_subnets()), []


def _options(instance: Instance, config: NetworkConfig) -> dict[str, str]:
    """The option names are those that Docker's clients show and look for."""
    return {
        DEFAULT_BRIDGE_OPTION: "true",
        ICC_OPTION: str(config.icc).lower(),
        MASQUERADE_OPTION: str(config.ip_masq).lower(),
        HOST_BINDING_OPTION: config.host_ip,
        NAME_OPTION: instance.bridge,
        MTU_OPTION: str(config.mtu),
    }
