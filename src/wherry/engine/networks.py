"""The use cases of networks: create, list, inspect, remove, connect and disconnect containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from wherry import threads
from wherry.engine.containers import descriptions
from wherry.engine.containers.sandboxes import Sandboxes, host_endpoint_id
from wherry.engine.ground import Ground
from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.model import patterns
from wherry.model.container import EndpointRequest
from wherry.network import endpoints as places
from wherry.network.create import NetworkRequest as NetworkRequest
from wherry.network.room import NetworkRoom
from wherry.network.types import HOST, PREDEFINED
from wherry.network.types import Endpoint as Endpoint
from wherry.network.types import Network as Network
from wherry.network.types import Subnet as Subnet
from wherry.state.containers import ContainerRow

LabelTest = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class NetworkView:
    """A network with the containers on it: their names and endpoints. ``status``: for each subnet, how many
    addresses are taken and how many are free. ``remote``: the containers on other hosts. ``peers``: names and
    addresses of those hosts."""

    network: Network
    endpoints: tuple[tuple[str, Endpoint], ...] = ()
    status: Mapping[str, tuple[int, int]] | None = None
    remote: tuple[Endpoint, ...] = ()
    peers: tuple[tuple[str, str], ...] = ()


class NetworkService:
    def __init__(self, ground: Ground, *, network: NetworkRoom, sandboxes: Sandboxes) -> None:
        self._settings = ground.settings
        self._network = network.networks
        self._endpoints = network.sandboxes
        self._containers = ground.containers
        self._sandboxes = sandboxes
        self._events = ground.events
        self._live = ground.live

    # ---- networks --------------------------------------------------------------------------------------

    def select(self, filters: Mapping[str, Sequence[str]]) -> list[Network]:
        named = patterns.Anywhere(filters.get("name", ()))
        return [n for n in self._network.list() if named(n.name) and self._matches(n, filters)]

    def drivers(self) -> list[str]:
        """The names of all network drivers."""
        return self._network.drivers()

    def get(self, wanted: str) -> Network:
        return self._network.get(wanted)

    def inspect(self, wanted: str, *, scope: str = "") -> NetworkView:
        """:raises NotFound: no such network, or it has another scope."""
        network = self._network.get(wanted)
        if scope and network.scope != scope:
            raise NotFound(f"network {wanted} not found")
        rows = self._containers.all()
        names = {row.id: row.name for row in rows}
        found = [(names.get(e.container_id, ""), e) for e in self._endpoints.endpoints_on(network.id)]
        for row in rows if network.name == HOST else ():
            if identifier := host_endpoint_id(row, network):
                plain = Endpoint(
                    id=identifier, network_id=network.id, network_name=network.name, container_id=row.id
                )
                found.append((row.name, plain))
        elsewhere = self._network.elsewhere(network)
        return NetworkView(
            network, tuple(found), self._network.status(network), elsewhere.endpoints, elsewhere.peers
        )

    async def create(self, request: NetworkRequest) -> tuple[Network, list[str]]:
        """:returns: the network, and warnings."""
        network, warnings = await threads.runtime(self._network.create, request)
        self._tell("create", network)
        return network, warnings

    async def remove(self, wanted: str) -> None:
        """:raises NotFound: no such network. :raises Forbidden: it is predefined or in use."""
        network = await threads.runtime(self._network.remove, wanted)
        self._tell("destroy", network)

    async def prune(self, *, until: int | None, labels: LabelTest) -> list[str]:
        """Remove networks that no container is configured to use, running or not. Returns their names.

        :param until: ns since the epoch; only networks made before this time.
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
                continue  # removed, or taken into use, in this moment
            removed.append(network.name)
        return removed

    def _used(self) -> set[str]:
        """Ids of networks that a container uses now or will use at its next start."""
        used = set()
        for row in self._containers.all():
            used |= {network.id for network in self._sandboxes.networks(row)}
        return used

    def _tell(self, action: str, network: Network, **more: str) -> None:
        attributes = {"name": network.name, "type": network.driver, **more}
        self._events.publish("network", action, network.id, attributes)

    # ---- containers on them ----------------------------------------------------------------------------

    async def connect(self, wanted: str, container: str, request: EndpointRequest) -> None:
        """Connect a container to a network: now if it runs, and at every later start.

        :raises NotFound: no such network or container. :raises Forbidden: it is connected already, or the
        network or the container does not allow it.
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
            if live.task is not None:
                await threads.runtime(self._sandboxes.connect, row, network.id, request)
            try:
                self._rewrite(row, {**row.record.networks, network.name: request})
            except BaseException:
                if live.task is not None:
                    await threads.runtime(self._sandboxes.disconnect, row, network.id)
                raise
        if live.task is not None:
            self._tell("connect", network, container=row.id)

    def _check_connect(self, row: ContainerRow, network: Network) -> None:
        mode = row.record.host_config.network_mode
        traits = self._network.traits(network)
        if mode.startswith("container:") or (mode == "host" and traits.namespace):
            raise InvalidArgument(
                "container sharing network namespace with another container or host cannot be connected to "
                "any other network"
            )
        if not traits.namespace and mode != "host":
            raise InvalidArgument(
                "cannot connect container to host network - container must be created in host network mode"
            )
        if mode == "host":
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        if (mode == "none" and "none" in row.record.networks) or not traits.shared:
            raise InvalidArgument(
                "container cannot be connected to multiple networks with one of the networks in private "
                "(none) mode"
            )
        if network.config_only:
            raise Forbidden(f'configuration network "{network.name}" cannot be used by containers')
        if self._key(row, network) is not None:
            raise Forbidden(f"endpoint with name {row.name} already exists in network {network.name}")

    def _key(self, row: ContainerRow, network: Network) -> str | None:
        """The name under which the container's record lists the network."""
        for key in row.record.networks:
            try:
                if key == network.id or self._network.get(key).id == network.id:
                    return key
            except (NotFound, InvalidArgument):
                continue
        return None

    async def disconnect(self, wanted: str, container: str, *, force: bool) -> None:
        """Disconnect a container from a network, now and for every later start.

        :param force: accept a container that no longer exists but still has an endpoint.
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
            if not self._network.traits(network).namespace or row.record.host_config.network_mode == "host":
                raise InvalidArgument(
                    "cannot disconnect container from host network - container was created in host network "
                    "mode"
                )
            key = self._key(row, network)
            if key is None:
                raise Forbidden(f"container {row.id} is not connected to network {network.name}")
            if live.task is not None:
                await threads.runtime(self._sandboxes.disconnect, row, network.id)
            left = {k: v for k, v in row.record.networks.items() if k != key}
            self._rewrite(row, left)
        if live.task is not None:
            self._tell("disconnect", network, container=row.id)

    def _rewrite(self, row: ContainerRow, networks: dict[str, EndpointRequest]) -> None:
        record = replace(row.record, networks=networks)
        self._containers.set_record(record)
        descriptions.write(self._settings, row.name, record)

    async def _free(self, network: Network, container: str) -> None:
        """Free the endpoint of a container that no longer exists."""
        for endpoint in self._endpoints.endpoints_on(network.id):
            if container and endpoint.container_id.startswith(container):
                await threads.runtime(self._endpoints.disconnect, endpoint.container_id, network.id)
                return
        raise NotFound(f"No such container: {container}")

    # ---- filters ---------------------------------------------------------------------------------------

    def _matches(self, network: Network, filters: Mapping[str, Sequence[str]]) -> bool:
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
            dangling = not network.predefined and not self._endpoints.endpoints_on(network.id)
            if dangling != (filters["dangling"][0].lower() in ("1", "true", "t")):
                return False
        for wanted in filters.get("label", ()):
            key, equals, value = wanted.partition("=")
            if key not in network.labels or (equals and network.labels[key] != value):
                return False
        return True
