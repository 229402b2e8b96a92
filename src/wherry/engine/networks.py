"""Networks for people: made, listed, inspected, removed, and containers put on them and taken off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from wherry.engine import normalise
from wherry.engine.events import EventBus
from wherry.engine.live import LiveSet
from wherry.engine.sandboxes import Sandboxes
from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.model.container import EndpointRequest
from wherry.network import endpoints as places
from wherry.network.create import NetworkRequest as NetworkRequest
from wherry.network.manager import NetworkManager
from wherry.network.types import PREDEFINED
from wherry.network.types import Endpoint as Endpoint
from wherry.network.types import Network as Network
from wherry.network.types import Subnet as Subnet
from wherry.state.containers import ContainerRow, Containers

LabelTest = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class NetworkView:
    """A network with who is on it: container names and endpoints. ``status`` are, by subnet, how many
    addresses are taken and how many are free; ``remote`` who is on it on other hosts, ``peers`` the names and
    addresses of those."""

    network: Network
    endpoints: tuple[tuple[str, Endpoint], ...] = ()
    status: Mapping[str, tuple[int, int]] | None = None
    remote: tuple[Endpoint, ...] = ()
    peers: tuple[tuple[str, str], ...] = ()


class NetworkService:
    def __init__(
        self,
        *,
        network: NetworkManager,
        containers: Containers,
        sandboxes: Sandboxes,
        events: EventBus,
        live: LiveSet,
    ) -> None:
        self._network = network
        self._containers = containers
        self._sandboxes = sandboxes
        self._events = events
        self._live = live

    # ---- networks --------------------------------------------------------------------------------------

    def select(self, filters: Mapping[str, Sequence[str]]) -> list[Network]:
        return [n for n in self._network.list() if self._matches(n, filters)]

    def drivers(self) -> list[str]:
        """The names of the drivers there are."""
        return self._network.drivers()

    def get(self, wanted: str) -> Network:
        return self._network.get(wanted)

    def inspect(self, wanted: str, *, scope: str = "") -> NetworkView:
        """:raises NotFound: no such network, or not of this scope."""
        network = self._network.get(wanted)
        if scope and network.scope != scope:
            raise NotFound(f"network {wanted} not found")
        names = {row.id: row.name for row in self._containers.all()}
        found = [(names.get(e.container_id, ""), e) for e in self._network.endpoints_on(network.id)]
        return NetworkView(
            network,
            tuple(found),
            self._network.status(network),
            tuple(self._network.remote(network)),
            tuple(self._network.peers(network)),
        )

    async def create(self, request: NetworkRequest) -> tuple[Network, list[str]]:
        """:returns: the network, and warnings."""
        network, warnings = await asyncio.to_thread(self._network.create, request)
        self._tell("create", network)
        return network, warnings

    async def remove(self, wanted: str) -> None:
        """:raises NotFound: no such network. :raises Forbidden: it is predefined, or in use."""
        network = await asyncio.to_thread(self._network.remove, wanted)
        self._tell("destroy", network)

    async def prune(self, *, until: int | None, labels: LabelTest) -> list[str]:
        """Remove networks that no container is meant to be on, running or not; their names.

        :param until: ns since the epoch; only those made before.
        """
        used = self._used()
        removed = []
        for network in self._network.list():
            if network.predefined or network.config_only or network.id in used:
                continue
            if (until is not None and network.created >= until) or not labels(network.labels):
                continue
            try:
                await self.remove(network.id)
            except (NotFound, Forbidden):
                continue  # gone, or taken, in this very moment
            removed.append(network.name)
        return removed

    def _used(self) -> set[str]:
        """Ids of networks that some container is on, or will be at its next start."""
        used = set()
        for row in self._containers.all():
            used |= {network.id for network in self._sandboxes.networks(row)}
        return used

    def _tell(self, action: str, network: Network, **more: str) -> None:
        attributes = {"name": network.name, "type": network.driver, **more}
        self._events.publish("network", action, network.id, attributes)

    # ---- containers on them ----------------------------------------------------------------------------

    async def connect(self, wanted: str, container: str, request: EndpointRequest) -> None:
        """Put a container on a network, now if it runs and at every later start.

        :raises NotFound: no such network or container. :raises Forbidden: it is on it already, or one of the
            two does not go with others.
        """
        network = self._network.get(wanted)
        row = self._containers.find(container)
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            if live.removing or row.state.status in ("removing", "dead"):
                raise Conflict(
                    f"container {row.id} is marked for removal and cannot be connected or disconnected"
                )
            self._check_connect(row, network)
            places.check(network, request)
            if network.name == "bridge":
                normalise.check_default_bridge(request)
            if live.task is not None:
                await asyncio.to_thread(self._sandboxes.connect, row, network.id, request)
            try:
                self._containers.set_record(
                    replace(row.record, networks={**row.record.networks, network.name: request})
                )
            except BaseException:
                if live.task is not None:
                    await asyncio.to_thread(self._sandboxes.disconnect, row, network.id)
                raise
        if live.task is not None:
            self._tell("connect", network, container=row.id)

    def _check_connect(self, row: ContainerRow, network: Network) -> None:
        mode = row.record.host_config.network_mode
        if mode.startswith("container:"):
            raise Forbidden(
                "container sharing network namespace with another container or host cannot be connected to "
                "any other network"
            )
        if mode == "host" or network.driver == "host":
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        if (mode == "none" and "none" in row.record.networks) or network.driver == "null":
            raise Forbidden(
                "container cannot be connected to multiple networks with one of the networks in private "
                "(none) mode"
            )
        if network.config_only:
            raise Forbidden(f'configuration network "{network.name}" cannot be used by containers')
        if self._key(row, network) is not None:
            raise Forbidden(f"endpoint with name {row.name} already exists in network {network.name}")

    def _key(self, row: ContainerRow, network: Network) -> str | None:
        """Under which name the container's record has the network."""
        for key in row.record.networks:
            try:
                if key == network.id or self._network.get(key).id == network.id:
                    return key
            except (NotFound, InvalidArgument):
                continue
        return None

    async def disconnect(self, wanted: str, container: str, *, force: bool) -> None:
        """Take a container off a network, now and at every later start.

        :param force: a container that is gone, but has left its place, is fine.
        :raises NotFound: no such network or container. :raises Forbidden: host networking.
        """
        network = self._network.get(wanted)
        try:
            row = self._containers.find(container)
        except NotFound:
            if not force:
                raise
            await self._free(network, container)
            return
        live = self._live.get(row.id)
        async with live.lock:
            row = self._containers.find(row.id)
            if network.driver == "host" or row.record.host_config.network_mode == "host":
                raise Forbidden(
                    "container cannot be disconnected from host network or connected to host network"
                )
            key = self._key(row, network)
            if key is None:
                raise Forbidden(f"container {row.id} is not connected to network {network.name}")
            if live.task is not None:
                await asyncio.to_thread(self._sandboxes.disconnect, row, network.id)
            left = {k: v for k, v in row.record.networks.items() if k != key}
            self._containers.set_record(replace(row.record, networks=left))
        if live.task is not None:
            self._tell("disconnect", network, container=row.id)

    async def _free(self, network: Network, container: str) -> None:
        """A place whose container is not known any more."""
        for endpoint in self._network.endpoints_on(network.id):
            if container and endpoint.container_id.startswith(container):
                await asyncio.to_thread(self._network.disconnect, endpoint.container_id, network.id)
                return
        raise NotFound(f"No such container: {container}")

    # ---- filters ---------------------------------------------------------------------------------------

    def _matches(self, network: Network, filters: Mapping[str, Sequence[str]]) -> bool:
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
            if (kind == "builtin") != (network.name in PREDEFINED):
                return False
        if "dangling" in filters:
            dangling = not network.predefined and not self._network.endpoints_on(network.id)
            if dangling != (filters["dangling"][0].lower() in ("1", "true", "t")):
                return False
        for wanted in filters.get("label", ()):
            key, equals, value = wanted.partition("=")
            if key not in network.labels or (equals and network.labels[key] != value):
                return False
        return True
