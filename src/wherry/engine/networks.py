"""Networks for people: list and inspect, with the containers on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wherry.errors import InvalidArgument
from wherry.network.manager import NetworkManager
from wherry.network.types import Endpoint as Endpoint
from wherry.network.types import Network as Network
from wherry.state.containers import Containers

_PREDEFINED = ("bridge", "host", "none")


class NetworkService:
    def __init__(self, *, network: NetworkManager, containers: Containers) -> None:
        self._network = network
        self._containers = containers

    def select(self, filters: Mapping[str, Sequence[str]]) -> list[Network]:
        return [n for n in self._network.list() if _matches(n, filters)]

    def get(self, wanted: str) -> Network:
        return self._network.get(wanted)

    def endpoints(self, network: Network) -> list[tuple[str, Endpoint]]:
        """Container name and endpoint of every container that runs on it."""
        names = {row.id: row.name for row in self._containers.all()}
        return [
            (names.get(endpoint.container_id, ""), endpoint)
            for endpoint in self._network.endpoints_on(network.id)
        ]


def _matches(network: Network, filters: Mapping[str, Sequence[str]]) -> bool:
    if "name" in filters and not any(n in network.name for n in filters["name"]):
        return False
    if "id" in filters and not any(network.id.startswith(i) for i in filters["id"]):
        return False
    if "driver" in filters and network.driver not in filters["driver"]:
        return False
    if "scope" in filters and network.scope not in filters["scope"]:
        return False
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        if (kind == "builtin") != (network.name in _PREDEFINED):
            return False
    if "dangling" in filters and filters["dangling"][0].lower() in ("1", "true"):
        return network.name not in _PREDEFINED
    for wanted in filters.get("label", ()):
        key, equals, value = wanted.partition("=")
        if key not in network.labels or (equals and network.labels[key] != value):
            return False
    return True
