"""The predefined networks: bridge, host and none, which every host has, and the network of builds."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping

import msgspec

from wherry.network import defaultbridge, ipam
from wherry.network.defaultbridge import HostBridge, Surrounding
from wherry.network.options import (
    DEFAULT_BRIDGE_OPTION,
    HOST_BINDING_OPTION,
    ICC_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    NAME_OPTION,
)
from wherry.network.types import BUILD_POOLS, BUILDS, NO_BRIDGE, Instance, IPNetwork, Network, NetworkConfig


def default_networks(
    instance: Instance,
    config: NetworkConfig,
    stored: Mapping[str, Network],
    *,
    host: HostBridge | None,
    around: Surrounding,
) -> tuple[list[Network], list[str]]:
    """The predefined networks as they should be now. Ids do not change. Nor do the bridge's subnets, unless
    another program of the host uses them now.

    :param stored: the stored networks, by name. :param host: the host's own bridge, if it is to be the
    default bridge.
    :returns: the networks (without ``bridge`` if there is to be none), and lines that say what could not be
    done.
    :raises InvalidArgument, Unavailable: the configuration is not possible.
    """
    networks: list[Network] = []
    lines: list[str] = []
    before = stored.get("bridge")
    if config.bridge != NO_BRIDGE or (before is not None and around.in_use):
        bridge, lines = _bridge(before or _new("bridge", "bridge"), instance, config, host, around)
        networks.append(bridge)
    networks.append(stored.get("host") or _new("host", "host"))
    networks.append(stored.get("none") or _new("none", "null"))
    # networks from older rows do not resolve names either
    return [msgspec.structs.replace(n, has_names=False) for n in networks], lines


def _bridge(
    bridge: Network,
    instance: Instance,
    config: NetworkConfig,
    host: HostBridge | None,
    around: Surrounding,
) -> tuple[Network, list[str]]:
    name = host.name if host is not None else instance.bridge
    if around.in_use and bridge.bridge_name not in ("", name):
        return bridge, [f"network bridge keeps interface {bridge.bridge_name}: containers use it"]
    if config.bridge == NO_BRIDGE:
        return bridge, ["network bridge stays until its containers have ended: bridge none waits"]
    found, lines = defaultbridge.subnets(bridge, config, host, around)
    bridge = msgspec.structs.replace(
        bridge,
        subnets=tuple(found),
        enable_ipv6=any(subnet.family == 6 for subnet in found),
        bridge_name=name,
        options=_options(name, config),
    )
    return bridge, lines


def _new(name: str, driver: str) -> Network:
    return Network(
        id=secrets.token_hex(32), name=name, driver=driver, created=time.time_ns(), has_names=False
    )


def builds_network(instance: Instance, config: NetworkConfig, used_subnets: Collection[IPNetwork]) -> Network:
    """The network of builds, with its own subnet. Builds cannot reach each other.

    :raises Forbidden: no free subnet.
    """
    options = {
        ICC_OPTION: "false",
        MASQUERADE_OPTION: str(config.ip_masq).lower(),
        NAME_OPTION: instance.builds_bridge,
        MTU_OPTION: str(config.mtu),
    }
    return msgspec.structs.replace(
        _new(BUILDS, "bridge"),
        subnets=(ipam.pick_subnet(config.default_address_pools or BUILD_POOLS, used_subnets),),
        bridge_name=instance.builds_bridge,
        options=options,
    )


def _options(name: str, config: NetworkConfig) -> dict[str, str]:
    """The option names that Docker's clients show and look for."""
    return {
        DEFAULT_BRIDGE_OPTION: "true",
        ICC_OPTION: str(config.icc).lower(),
        MASQUERADE_OPTION: str(config.ip_masq).lower(),
        HOST_BINDING_OPTION: config.host_ip,
        NAME_OPTION: name,
        MTU_OPTION: str(config.mtu),
    }
