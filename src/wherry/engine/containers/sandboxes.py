"""Which namespaces a container gets: its own sandbox, the host's, or another container's."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from msgspec import UnsetType, structs

from wherry.engine.containers import etcfiles
from wherry.engine.containers.joined import Joined
from wherry.engine.containers.links import Links
from wherry.engine.containers.names import is_id
from wherry.engine.ground import Ground
from wherry.errors import Conflict, InvalidArgument, NotFound, WherryError
from wherry.model.container import EndpointRequest, HostConfig, PortBinding
from wherry.model.ports import check_port, decimal
from wherry.model.views import EndpointView, PortView
from wherry.network import endpoints as places
from wherry.network import ipam
from wherry.network.room import NetworkRoom
from wherry.network.types import HOST, Endpoint, Network, Owner, PortMapping, Proto, PublishedPort, Resolving
from wherry.network.types import Sandbox as Sandbox
from wherry.state.containers import ContainerRow


@dataclass(frozen=True)
class SandboxAddress:
    """The sandbox's addresses and the gateway it uses, empty for ``none``."""

    addresses: tuple[str, ...]
    gateway: str


class Sandboxes:
    def __init__(self, ground: Ground, *, network: NetworkRoom, links: Links) -> None:
        self._settings = ground.settings
        self._networks = network.networks
        self._made = network.sandboxes
        self._containers = ground.containers
        self._links = links
        self._live = ground.live

    def plan(self, row: ContainerRow) -> tuple[Joined, bool]:
        """The namespaces to join, and whether the container needs its own sandbox.

        :raises Conflict: the container to join does not run or does not share its namespace.
        """
        host = row.record.host_config
        own = row.record.config.hostname or row.id[:12]
        ipc, shm = self._ipc(host)
        pid = host.pid_mode
        if pid.startswith("container:"):
            pid = f"/proc/{self._joined_pid(pid, 'PID')}/ns/pid"
        mode = host.network_mode
        if mode == "host":
            name = row.record.config.hostname or socket.gethostname()
            return Joined("host", ipc, pid, name, shm), False
        if mode.startswith("container:"):
            donor = self.of_another(mode.partition(":")[2])
            return Joined(donor.network, ipc, pid, donor.hostname, shm), False
        path = str(self._settings.run / "netns" / row.id)
        return Joined(path, ipc, pid, own, shm, self._links.peers(row), self._has_names(row)), True

    def of_another(self, wanted: str) -> Joined:
        """The network namespace and host name of another container, and whether names are resolved there.

        :raises NotFound: there is no such container. :raises Conflict: it does not run.
        """
        donor = self._other(wanted)
        path = self._network_path(donor)
        name = donor.record.config.hostname or donor.id[:12]
        if path == "host":
            name = socket.gethostname()
        while donor.record.host_config.network_mode.startswith("container:"):
            donor = self._other(donor.record.host_config.network_mode.partition(":")[2])
        return Joined(path, hostname=name, names=path != "host" and self._has_names(donor))

    def _has_names(self, row: ContainerRow) -> bool:
        """Whether one of its networks resolves names. A network that does not exist causes an error later."""
        for name in row.record.networks:
            try:
                if self._networks.get(name).has_names:
                    return True
            except (NotFound, InvalidArgument):
                continue
        return False

    def _network_path(self, donor: ContainerRow) -> str:
        pid = self._pid_of(donor, "network")
        pinned = self._settings.run / "netns" / donor.id
        if pinned.exists():
            return str(pinned)
        if donor.record.host_config.network_mode == "host":
            return "host"
        return f"/proc/{pid}/ns/net"

    def _ipc(self, host: HostConfig) -> tuple[str, str | None]:
        mode = host.ipc_mode
        if mode == "host":
            return "host", "/dev/shm"
        if mode == "shareable":
            return "", ""
        if mode.startswith("container:"):
            donor = self._donor(mode)
            pid = self._pid_of(donor, "IPC")
            if donor.record.host_config.ipc_mode == "host":
                return "host", "/dev/shm"
            shm = self._settings.task_directory(donor.id) / "shm"
            if not shm.is_dir():
                raise Conflict(
                    f"failed to join IPC namespace: container {donor.id}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            return f"/proc/{pid}/ns/ipc", str(shm)
        return "", None

    def _donor(self, mode: str) -> ContainerRow:
        return self._other(mode.partition(":")[2])

    def _other(self, wanted: str) -> ContainerRow:
        """Find a container by the id that a record stores; old records store a name."""
        return self._containers.by_id(wanted) if is_id(wanted) else self._containers.find(wanted)

    def _joined_pid(self, mode: str, what: str) -> int:
        return self._pid_of(self._donor(mode), what)

    def _pid_of(self, donor: ContainerRow, what: str) -> int:
        task = self._live.get(donor.id).task
        if task is None:
            if what == "network":
                raise Conflict(
                    f"cannot join network namespace of a non running container: container {donor.name} is "
                    f"{donor.state.status}"
                )
            raise Conflict(f"failed to join {what} namespace: container {donor.id} is not running")
        return task.pid

    def check_endpoints(self, endpoints: Mapping[str, EndpointRequest], mac_address: str) -> None:
        """Check what a new container asks of its networks. One that does not exist yet is left to the start.

        :raises InvalidArgument: a request that its network cannot fulfil, with Docker's message.
        """
        for name, request in endpoints.items():
            try:
                if mac_address:
                    ipam.check_mac(mac_address)
                places.check(self._networks.get(name), request)
            except NotFound:
                continue
            except InvalidArgument as e:
                raise InvalidArgument(f"invalid config for network {name}: {e.message}") from e

    def create(self, row: ContainerRow, undo: ExitStack, *, standby: bool = False) -> SandboxAddress:
        """Make the container's sandbox (blocking). ``undo`` releases it.

        :param standby: without its ports, aliases and host name, until :meth:`take_over`.
        """
        host, asked, owner = row.record.host_config, row.record.networks, self._owner(row)
        ports = port_mappings(host, list(row.record.config.exposed_ports or {}))
        if standby:
            asked = {name: structs.replace(request, aliases=None) for name, request in asked.items()}
            owner, ports = structs.replace(owner, hostname=""), []
        undo.callback(self._made.delete, row.id)
        with _said_of_networking():
            sandbox = self._made.create(
                row.id,
                name=row.name,
                network_mode=host.network_mode,
                endpoints=asked,
                ports=ports,
                mac_address=row.record.config.mac_address,
                owner=owner,
            )
        for endpoint in sandbox.endpoints:
            if endpoint.network_name == "bridge":
                self._links.moved(row, endpoint.ip)
        return SandboxAddress(
            tuple(ip for e in sandbox.endpoints for ip in e.addresses),
            self._settings.host_gateway_ip or self._made.gateway(sandbox.endpoints),
        )

    def _owner(self, row: ContainerRow) -> Owner:
        servers, inside = etcfiles.servers_of(row.record, self._settings)
        return Owner(
            name=row.name,
            hostname=row.record.config.hostname,
            resolving=Resolving(servers=servers, inside=inside),
        )

    def connect(self, row: ContainerRow, network: str, request: EndpointRequest) -> Endpoint:
        """Connect a running container to one more network (blocking)."""
        endpoint = self._made.connect(
            row.id,
            network,
            request,
            name=row.name,
            ports=port_mappings(row.record.host_config, list(row.record.config.exposed_ports or {})),
        )
        if endpoint.dns_names:
            etcfiles.answer_names(row.record, self._settings)
        etcfiles.change_addresses(row.record, self._settings, added=endpoint.addresses)
        return endpoint

    def disconnect(self, row: ContainerRow, network_id: str) -> None:
        """Disconnect a running container from a network (blocking); if it is not on it, nothing happens."""
        endpoint = self._made.disconnect(row.id, network_id)
        if endpoint is not None:
            etcfiles.change_addresses(row.record, self._settings, removed=endpoint.addresses)

    def rename(self, row: ContainerRow, name: str) -> None:
        """Use the new name of a container, which may be running (blocking)."""
        self._made.rename(row.id, name)

    def discards_ports(self, row: ContainerRow) -> bool:
        """Whether all of the container's networks are of a kind that publishes no ports."""
        found = self.networks(row)
        return bool(found) and not any(self._networks.publishes(network) for network in found)

    def networks(self, row: ContainerRow) -> list[Network]:
        """Those of the container's networks that exist."""
        found = []
        for name in row.record.networks:
            try:
                found.append(self._networks.get(name))
            except (NotFound, InvalidArgument):
                continue
        return found

    def delete(self, container_id: str) -> None:
        """Release the container's sandbox (blocking); if there is none, nothing happens."""
        self._made.delete(container_id)

    def publish(self, row: ContainerRow, mappings: Sequence[PortMapping]) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container (blocking)."""
        return self._made.publish(row.id, mappings, name=row.name)

    def unpublish(self, row: ContainerRow, ports: Sequence[PublishedPort]) -> None:
        """Stop publishing ports of a running container (blocking)."""
        self._made.unpublish(row.id, ports)

    def take_over(self, row: ContainerRow, giver: ContainerRow | None) -> tuple[PublishedPort, ...]:
        """Give a container that was started in standby its ports and names, and take them from ``giver``
        (blocking)."""
        return self._made.take_over(
            row.id,
            giver.id if giver is not None else "",
            owner=self._owner(row),
            requests=row.record.networks,
            ports=port_mappings(row.record.host_config, list(row.record.config.exposed_ports or {})),
        )

    def of(self, container_id: str) -> Sandbox | None:
        """The sandbox of a container that runs in its own sandbox."""
        return self._made.get(container_id)

    def all(self) -> dict[str, Sandbox]:
        """Every sandbox by container id, with as few queries as for a single one."""
        return self._made.all()

    def endpoints(self, row: ContainerRow, sandbox: Sandbox | None) -> tuple[EndpointView, ...]:
        """The container's endpoints on its networks; they have addresses only while it runs."""
        found = {e.network_name: e for e in (sandbox.endpoints if sandbox is not None else ())}
        views = []
        for name, request in row.record.networks.items():
            try:
                network = self._networks.get(name)
            except (NotFound, InvalidArgument):
                # As with Docker, a network need not exist before the start, nor after the end.
                views.append(EndpointView(name, "", request=request))
                continue
            endpoint = found.get(network.name)
            if endpoint is None:
                identifier = host_endpoint_id(row, network)
                views.append(EndpointView(network.name, network.id, identifier, request=request))
                continue
            views.append(
                EndpointView(
                    network_name=network.name,
                    network_id=network.id,
                    endpoint_id=endpoint.id,
                    gateway=endpoint.gateway,
                    ip_address=endpoint.ip,
                    prefix_length=endpoint.prefix_len,
                    gateway6=endpoint.gateway6,
                    ip6_address=endpoint.ip6,
                    prefix_length6=endpoint.prefix_len6,
                    mac_address=endpoint.mac,
                    dns_names=endpoint.dns_names,
                    request=request,
                )
            )
        return tuple(views)

    def ports(self, row: ContainerRow, sandbox: Sandbox | None) -> tuple[PortView, ...]:
        """Published and exposed ports of a running container. None if its networks cannot publish any."""
        if sandbox is None or self.discards_ports(row):
            return ()
        published = [PortView(p.container_port, p.proto, p.host_ip, p.host_port) for p in sandbox.ports]
        known = {(p.container_port, p.protocol) for p in published}
        exposed = []
        for text in row.record.config.exposed_ports or {}:
            low, high, protocol = check_port(text)
            exposed += [
                PortView(port, protocol) for port in range(low, high + 1) if (port, protocol) not in known
            ]
        return (*published, *exposed)


def host_endpoint_id(row: ContainerRow, network: Network) -> str:
    """The id of a running container's endpoint on ``host``, where no sandbox has one.

    As with Docker, it stays the same during one run. Empty: the container has none there.
    """
    runs = row.state.status in ("running", "paused")
    if not runs or network.name != HOST or network.name not in row.record.networks:
        return ""
    return hashlib.sha256(f"{row.id} {row.state.started_at} {network.id}".encode()).hexdigest()


@contextmanager
def _said_of_networking() -> Iterator[None]:
    """Say of an error that it is the network's, as Docker does; it stays of its kind."""
    try:
        yield
    except WherryError as e:
        e.args = (f"failed to set up container networking: {e.message}", *e.args[1:])
        raise


def port_mappings(host: HostConfig, exposed: Sequence[str]) -> list[PortMapping]:
    """``PortBindings`` and ``PublishAllPorts`` as the network's values.

    :raises InvalidArgument: malformed or out of range.
    """
    mappings: list[PortMapping] = []
    bound: set[tuple[int, str]] = set()
    for text, bindings in (host.port_bindings or {}).items():
        port, last, protocol = check_port(text)
        if last != port:
            raise InvalidArgument(f'invalid port specification: "{text.partition("/")[0]}"')
        bound.add((port, protocol))
        mappings += [_mapping(port, _proto(protocol), b) for b in bindings or [PortBinding()]]
    if host.publish_all_ports:
        for text in exposed:
            low, high, protocol = check_port(text)
            mappings += [
                PortMapping(container_port=port, proto=_proto(protocol))
                for port in range(low, high + 1)
                if (port, protocol) not in bound
            ]
    return mappings


def _proto(text: str) -> Proto:
    if text == "udp":
        return "udp"
    return "sctp" if text == "sctp" else "tcp"


def _mapping(port: int, protocol: Proto, binding: PortBinding) -> PortMapping:
    first, dash, last = binding.host_port.partition("-")
    try:
        low = decimal(first) if first or dash else 0
        high = decimal(last) if dash else low
    except ValueError as e:
        raise InvalidArgument(f'invalid port specification: "{binding.host_port}"') from e
    if not 0 <= low <= high <= 65535:
        raise InvalidArgument(f'invalid port specification: "{binding.host_port}"')
    return PortMapping(
        container_port=port,
        proto=protocol,
        host_ip=binding.host_ip,
        host_port=low or None,
        host_port_end=high if high > low else None,
        sources=() if isinstance(binding.sources, UnsetType) else tuple(binding.sources),
    )
