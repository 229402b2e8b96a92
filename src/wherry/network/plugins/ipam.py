"""Addresses from a plugin: Docker's remote IPAM protocol (github.com/moby/libnetwork, ``docs/ipam.md``).

A pool is requested once, when the network is made, and released when it is removed; an address is requested
for every endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from wherry.errors import Internal, WherryError
from wherry.linux.plugins import Plugin
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network.create import NetworkRequest
from wherry.network.types import Endpoint, Family, Network, Subnet

_GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
_FAMILIES: tuple[Family, Family] = (4, 6)


class RemoteIpam:
    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def pools(self, request: NetworkRequest, undo: ExitStack) -> tuple[NetworkRequest, dict[str, str]]:
        """The request with the plugin's subnets and gateways, and the plugin's pool ids by subnet.

        :raises Internal, Unavailable: the plugin refuses, or does not answer.
        """
        wanted: list[Subnet] = [s for s in request.subnets if s.cidr]
        for family in _FAMILIES:
            asked = request.ipv4 is not False if family == 4 else bool(request.ipv6)
            if asked and not any(s.family == family for s in wanted):
                wanted.append(Subnet(cidr="::/0" if family == 6 else ""))
        space = self._call("GetDefaultAddressSpaces", {}).get("LocalDefaultAddressSpace", "")
        subnets, ids = [], {}
        for subnet in wanted:
            body = {
                "AddressSpace": space,
                "Pool": "" if subnet.cidr in ("", "::/0") else subnet.cidr,
                "SubPool": subnet.ip_range,
                "Options": request.ipam_options or {},
                "V6": subnet.family == 6,
            }
            answer = self._call("RequestPool", body)
            pool = str(answer.get("PoolID", ""))
            undo.callback(self._quietly, "ReleasePool", {"PoolID": pool})
            cidr = _pool(self._plugin.name, str(answer.get("Pool", "")))
            gateway = subnet.gateway or self._gateway(pool, answer)
            subnets.append(msgspec.structs.replace(subnet, cidr=cidr, gateway=gateway))
            ids[cidr] = pool
        return replace(request, subnets=tuple(subnets)), ids

    def _gateway(self, pool: str, answer: dict[str, Any]) -> str:
        said = (answer.get("Data") or {}).get("com.docker.network.gateway")
        if not said:
            body = {"PoolID": pool, "Address": "", "Options": _GATEWAY}
            said = self._call("RequestAddress", body).get("Address", "")
        return _address(self._plugin.name, str(said)) if said else ""

    def release_pools(self, network: Network) -> None:
        for pool in network.pools.values():
            self._quietly("ReleasePool", {"PoolID": pool})

    def claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """The request with addresses from the plugin. Raises what :meth:`pools` raises."""
        config = request.ipam_config or EndpointIpamConfig()
        addresses = {}
        for family in _FAMILIES:
            subnets: Sequence[Subnet] = network.subnets_of(family)
            if not subnets:
                continue
            wanted = config.ipv4_address if family == 4 else config.ipv6_address
            pool = network.pools.get(subnets[0].cidr, "")
            body = {"PoolID": pool, "Address": wanted, "Options": {}}
            address = _address(self._plugin.name, str(self._call("RequestAddress", body).get("Address", "")))
            undo.callback(self._quietly, "ReleaseAddress", {"PoolID": pool, "Address": address})
            addresses[f"ipv{family}_address"] = address
        return msgspec.structs.replace(request, ipam_config=msgspec.structs.replace(config, **addresses))

    def release(self, network: Network, endpoint: Endpoint) -> None:
        for family in _FAMILIES:
            subnets = network.subnets_of(family)
            ip = endpoint.ip_of(family)
            if ip and subnets:
                pool = network.pools.get(subnets[0].cidr, "")
                self._quietly("ReleaseAddress", {"PoolID": pool, "Address": ip})

    def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._plugin.call(f"IpamDriver.{method}", body)

    def _quietly(self, method: str, body: dict[str, Any]) -> None:
        """Release it; errors are ignored: a plugin that is not running must find out by itself."""
        with suppress(WherryError):
            self._call(method, body)


def _pool(name: str, text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError as e:
        raise Internal(f"plugin {name} gives no subnet but {text[:64]!r}") from e


def _address(name: str, text: str) -> str:
    try:
        return str(ip_interface(text).ip)
    except ValueError as e:
        raise Internal(f"plugin {name} gives no address but {text[:64]!r}") from e
