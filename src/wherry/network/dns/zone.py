"""The names on each network, and the answers for a container on some of them.

An answer comes from one network that the client itself is on. Names on other networks do not exist for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from wherry.network.endpoints import gateway_of
from wherry.network.types import Endpoint, Network

HOST_NAMES = ("host.docker.internal", "host.containers.internal")
"""Names for the host itself."""


@dataclass(frozen=True)
class ZoneView:
    """A container's endpoints; the one that leads outside comes first."""

    endpoints: tuple[Endpoint, ...]
    gateway4: str = ""
    gateway6: str = ""

    @property
    def has_way_out(self) -> bool:
        return bool(self.gateway4 or self.gateway6)


def view_of(endpoints: Sequence[Endpoint]) -> ZoneView:
    by4, by6 = gateway_of(endpoints, 4), gateway_of(endpoints, 6)
    ordered = sorted(endpoints, key=lambda e: (-e.gw_priority, e.network_name))
    return ZoneView(
        tuple(ordered),
        by4.gateway if by4 is not None else "",
        by6.gateway6 if by6 is not None else "",
    )


class Zone:
    """Used only on the DNS server's thread."""

    def __init__(self, networks: Callable[[], Mapping[str, Network]], host_gateway: str = "") -> None:
        self._networks = networks
        self._host_gateway = host_gateway
        self._names: dict[str, dict[str, dict[str, Endpoint]]] = {}
        """network id -> name in lower case -> endpoint id -> endpoint"""
        self._addresses: dict[tuple[str, str], Endpoint] = {}
        self._views: dict[str, ZoneView] = {}
        self._turn = 0

    def put(self, container_id: str, endpoints: Sequence[Endpoint]) -> ZoneView:
        """Set a container's names; they replace the former ones."""
        self.drop(container_id)
        view = view_of(endpoints)
        self._views[container_id] = view
        for endpoint in endpoints:
            self.add(endpoint)
        return view

    def drop(self, container_id: str) -> None:
        view = self._views.pop(container_id, None)
        for endpoint in view.endpoints if view is not None else ():
            self.remove(endpoint)

    def add(self, endpoint: Endpoint) -> None:
        """An endpoint that others can resolve. Of another host's container only this is known."""
        names = self._names.setdefault(endpoint.network_id, {})
        for name in endpoint.dns_names:
            names.setdefault(name.lower(), {})[endpoint.id] = endpoint
        for ip in endpoint.addresses:
            self._addresses[endpoint.network_id, ip] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        names = self._names.get(endpoint.network_id, {})
        for name in endpoint.dns_names:
            holders = names.get(name.lower(), {})
            holders.pop(endpoint.id, None)
            if not holders:
                names.pop(name.lower(), None)
        if not names:
            self._names.pop(endpoint.network_id, None)
        for ip in endpoint.addresses:
            if self._addresses.get((endpoint.network_id, ip), endpoint).id == endpoint.id:
                self._addresses.pop((endpoint.network_id, ip), None)

    def view(self, container_id: str) -> ZoneView | None:
        return self._views.get(container_id)

    def addresses(self, container_id: str, name: str, family: int) -> list[str] | None:
        """The addresses of a name, rotated at each call; ``[]`` if it has none of this family, and None if
        there is no such name."""
        view = self._views.get(container_id)
        if view is None:
            return None
        for endpoint in view.endpoints:
            found = self._on(endpoint, name)
            if found is not None:
                ips = [ip for e in found if (ip := e.ip6 if family == 6 else e.ip)]
                if len(ips) > 1:
                    self._turn += 1
                    start = self._turn % len(ips)
                    ips = ips[start:] + ips[:start]
                return ips
        if name in HOST_NAMES and view.has_way_out:
            return self._host(view, family)
        return None

    def _host(self, view: ZoneView, family: int) -> list[str]:
        if self._host_gateway:
            return [self._host_gateway] if ip_address(self._host_gateway).version == family else []
        return [g for g in (view.gateway6 if family == 6 else view.gateway4,) if g]

    def _on(self, place: Endpoint, name: str) -> list[Endpoint] | None:
        """The endpoints with this name on the network of one of the client's endpoints."""
        names = self._names.get(place.network_id)
        if names is None:
            return None
        for candidate in (name, name.removesuffix("." + place.network_name.lower())):
            target = next((t for alias, t in place.links.items() if alias.lower() == candidate), candidate)
            holders = names.get(target.lower())
            if holders:
                return list(holders.values())
        return None

    def name(self, container_id: str, address: str) -> str | None:
        """The name for an address, with its network's name; ``""`` if the address is on one of the client's
        networks but unused; None if it must be forwarded."""
        view = self._views.get(container_id)
        for endpoint in view.endpoints if view is not None else ():
            holder = self._addresses.get((endpoint.network_id, address))
            if holder is not None and holder.dns_names:
                return f"{holder.dns_names[0]}.{holder.network_name}"
            network = self._networks().get(endpoint.network_id)
            for subnet in network.subnets if network is not None else ():
                if ip_address(address) in subnet.network:
                    return ""
        return None
