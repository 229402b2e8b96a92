"""A network driver that is a plugin: Docker's remote driver protocol (github.com/moby/libnetwork,
``docs/remote.md``).

The plugin makes the interface on the host. Then it is moved into the container's namespace and gets its name
and addresses there, like any other. Ports of containers on such networks are not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec

from wherry.errors import Internal, WherryError
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.linux.plugins import Plugin
from wherry.network.drivers import Namespace, NotShared, SingleHostDriver, Traits
from wherry.network.types import Endpoint, Network, Subnet


class _Told(NotShared):
    """Tells the plugin about networks; the plugin remembers them itself."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def create(self, network: Network) -> Network:
        body = {
            "NetworkID": network.id,
            "Options": {
                "com.docker.network.generic": network.options,
                "com.docker.network.enable_ipv4": network.enable_ipv4,
                "com.docker.network.enable_ipv6": network.enable_ipv6,
                **({"com.docker.network.internal": True} if network.internal else {}),
            },
            "IPv4Data": [_data(s) for s in network.subnets_of(4)],
            "IPv6Data": [_data(s) for s in network.subnets_of(6)],
        }
        self._plugin.call("NetworkDriver.CreateNetwork", body)
        return network

    def remove(self, network: Network) -> None:
        """If the plugin is not running, it must find out by itself."""
        with suppress(WherryError):
            self._plugin.call("NetworkDriver.DeleteNetwork", {"NetworkID": network.id})


class RemoteDriver(SingleHostDriver):
    traits = Traits(scopes=("local", "global"))

    def __init__(self, plugin: Plugin) -> None:
        self.name = plugin.name
        self.sharing = _Told(plugin)
        self._plugin = plugin

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        return network

    def start(self, network: Network) -> None:
        """Nothing to do: the plugin remembers its networks itself."""

    def stop(self, network: Network) -> None:
        pass

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> Endpoint:
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        interface = {
            "Address": f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
            "AddressIPv6": f"{endpoint.ip6}/{endpoint.prefix_len6}" if endpoint.ip6 else "",
            "MacAddress": endpoint.mac,
        }
        made = self._call("CreateEndpoint", {**ids, "Interface": interface, "Options": {}})
        try:
            endpoint = _with_interface(endpoint, made.get("Interface") or {})
            joined = self._call("Join", {**ids, "SandboxKey": namespace.path, "Options": {}})
            return self._take(endpoint, joined, namespace)
        except (OSError, ValueError, WherryError) as e:
            self.detach(network, endpoint)
            if isinstance(e, WherryError):
                raise
            raise Internal(f"cannot attach to network {network.name}: {e}") from e

    def _take(self, endpoint: Endpoint, joined: dict[str, Any], namespace: Namespace) -> Endpoint:
        source = str((joined.get("InterfaceName") or {}).get("SrcName", ""))
        with NetlinkSocket() as sock:
            link = rt.link(sock, source) if source else None
            if link is None:
                raise Internal(f"plugin {self.name}: Join: there is no interface {source[:32]!r}")
            sock.transact(rt.set_link(link.index, up=False))
            sock.transact(rt.move_link(link.index, namespace.fd, endpoint.ifname))
        inside = rt.link(namespace.netlink, endpoint.ifname)
        if inside is None:
            raise Internal(f"plugin {self.name}: Join: interface {source} went away")
        if endpoint.mac and inside.mac != endpoint.mac:
            namespace.netlink.transact(rt.set_mac(inside.index, endpoint.mac))
        for route in joined.get("StaticRoutes") or ():
            if int(route.get("RouteType", 0)) == 1:
                namespace.netlink.transact(rt.set_link(inside.index, up=True))
                namespace.netlink.transact(rt.add_link_route(ip_network(route["Destination"]), inside.index))
        return msgspec.structs.replace(
            endpoint,
            gateway=_said(joined.get("Gateway")) or endpoint.gateway,
            gateway6=_said(joined.get("GatewayIPv6")) or endpoint.gateway6,
        )

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        for method in ("Leave", "DeleteEndpoint"):
            with suppress(WherryError):  # it may not be running, or may have lost the network
                self._call(method, ids)

    def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._plugin.call(f"NetworkDriver.{method}", body)


def _data(subnet: Subnet) -> dict[str, Any]:
    gateway = f"{subnet.gateway}/{subnet.prefix_len}" if subnet.gateway else ""
    return {"AddressSpace": "", "Pool": subnet.cidr, "Gateway": gateway, "AuxAddresses": subnet.aux}


def _with_interface(endpoint: Endpoint, said: dict[str, Any]) -> Endpoint:
    """Add what the plugin chose; it may choose only what was not set."""
    more: dict[str, Any] = {}
    for key, ip, prefix, present in (
        ("Address", "ip", "prefix_len", endpoint.ip),
        ("AddressIPv6", "ip6", "prefix_len6", endpoint.ip6),
    ):
        if said.get(key) and not present:
            address = ip_interface(str(said[key]))
            more |= {ip: str(address.ip), prefix: address.network.prefixlen}
    if said.get("MacAddress"):
        more["mac"] = str(said["MacAddress"]).lower()
    return msgspec.structs.replace(endpoint, **more)


def _said(text: object) -> str:
    """An address, with or without a prefix; ``""`` for none. :raises ValueError: malformed."""
    return str(ip_address(str(text).partition("/")[0])) if text else ""
