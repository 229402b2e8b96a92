"""Which namespaces a container gets: its own sandbox, the host's, or another container's."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec import UnsetType

from wherry.engine import etcfiles
from wherry.engine.bundle import Joined
from wherry.engine.links import Links
from wherry.engine.live import LiveSet
from wherry.engine.normalise import check_port, decimal
from wherry.engine.settings import Settings
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.model.container import EndpointRequest, HostConfig, PortBinding
from wherry.model.views import EndpointView, PortView
from wherry.network.manager import NetworkManager
from wherry.network.types import Endpoint, Network, Owner, PortMapping, Proto, PublishedPort, Resolving
from wherry.network.types import Sandbox as Sandbox
from wherry.state.containers import ContainerRow, Containers


@dataclass(frozen=True)
class Address:
    """The sandbox's addresses and the gateway it uses, empty for ``none``."""

    addresses: tuple[str, ...]
    gateway: str


class Sandboxes:
    def __init__(
        self,
        *,
        settings: Settings,
        network: NetworkManager,
        containers: Containers,
        links: Links,
        live: LiveSet,
    ) -> None:
        self._settings = settings
        self._network = network
        self._containers = containers
        self._links = links
        self._live = live

    def plan(self, row: ContainerRow) -> tuple[Joined, bool]:
        """The namespaces to join, and whether a sandbox of its own must be made first.

        :raises Conflict: a container to be joined does not run or does not share.
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
            donor = self._containers.find(mode.partition(":")[2])
            path = self._network_path(donor)
            name = donor.record.config.hostname or donor.id[:12]
            if path == "host":
                name = socket.gethostname()
            return Joined(path, ipc, pid, name, shm), False
        path = str(self._settings.run / "netns" / row.id)
        return Joined(path, ipc, pid, own, shm, self._links.peers(row), self._has_names(row)), True

    def _has_names(self, row: ContainerRow) -> bool:
        """Whether a container is on a network where others have names. One that is not there fails later."""
        for name in row.record.networks:
            try:
                if self._network.get(name).has_names:
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
            donor = self._containers.find(mode.partition(":")[2])
            pid = self._pid_of(donor, "IPC")
            if donor.record.host_config.ipc_mode == "host":
                return "host", "/dev/shm"
            shm = self._settings.task_directory(donor.id) / "shm"
            if not shm.is_dir():
                raise Conflict(
                    f"cannot join IPC of container {donor.id[:12]}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            return f"/proc/{pid}/ns/ipc", str(shm)
        return "", None

    def _joined_pid(self, mode: str, what: str) -> int:
        return self._pid_of(self._containers.find(mode.partition(":")[2]), what)

    def _pid_of(self, donor: ContainerRow, what: str) -> int:
        task = self._live.get(donor.id).task
        if task is None:
            raise Conflict(f"cannot join {what} namespace of a non running container: {donor.id}")
        return task.pid

    def create(self, row: ContainerRow, undo: ExitStack) -> Address:
        """Make the container's sandbox (blocking). ``undo`` releases it."""
        host = row.record.host_config
        undo.callback(self._network.delete_sandbox, row.id)
        sandbox = self._network.create_sandbox(
            row.id,
            name=row.name,
            network_mode=host.network_mode,
            endpoints=row.record.networks,
            ports=port_mappings(host, list(row.record.config.exposed_ports or {})),
            mac_address=row.record.config.mac_address,
            owner=self._owner(row),
        )
        for endpoint in sandbox.endpoints:
            if endpoint.network_name == "bridge":
                self._links.moved(row, endpoint.ip)
        return Address(
            tuple(ip for e in sandbox.endpoints for ip in e.addresses),
            self._settings.host_gateway_ip or self._network.gateway(sandbox.endpoints),
        )

    def _owner(self, row: ContainerRow) -> Owner:
        servers, inside = etcfiles.servers_of(row.record, self._settings)
        return Owner(
            name=row.name,
            hostname=row.record.config.hostname,
            resolving=Resolving(servers=servers, inside=inside),
        )

    def connect(self, row: ContainerRow, network: str, request: EndpointRequest) -> Endpoint:
        """Put a running container on one more network (blocking)."""
        endpoint = self._network.connect(
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
        """Take a running container off a network (blocking); that it is not on it is fine."""
        endpoint = self._network.disconnect(row.id, network_id)
        if endpoint is not None:
            etcfiles.change_addresses(row.record, self._settings, removed=endpoint.addresses)

    def rename(self, row: ContainerRow, name: str) -> None:
        """A container that may run is called otherwise from now on (blocking)."""
        self._network.rename(row.id, name)

    def discards_ports(self, row: ContainerRow) -> bool:
        """Whether the container is only on networks where no ports are published."""
        found = self.networks(row)
        return bool(found) and not any(self._network.publishes(network) for network in found)

    def networks(self, row: ContainerRow) -> list[Network]:
        """Those of the container's networks that are there."""
        found = []
        for name in row.record.networks:
            try:
                found.append(self._network.get(name))
            except (NotFound, InvalidArgument):
                continue
        return found

    def delete(self, container_id: str) -> None:
        """Release the container's sandbox (blocking); one that is not there is fine."""
        self._network.delete_sandbox(container_id)

    def publish(self, row: ContainerRow, mappings: Sequence[PortMapping]) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container (blocking)."""
        return self._network.publish(row.id, mappings, name=row.name)

    def unpublish(self, row: ContainerRow, ports: Sequence[PublishedPort]) -> None:
        """Take ports back from a running container (blocking)."""
        self._network.unpublish(row.id, ports)

    def of(self, container_id: str) -> Sandbox | None:
        """The sandbox of a container that runs in one of its own."""
        return self._network.sandbox(container_id)

    def all(self) -> dict[str, Sandbox]:
        """Every sandbox by container id, in as few queries as one takes."""
        return self._network.sandboxes()

    def endpoints(self, row: ContainerRow, sandbox: Sandbox | None) -> tuple[EndpointView, ...]:
        """The container's places on its networks; addresses only while it runs."""
        found = {e.network_name: e for e in (sandbox.endpoints if sandbox is not None else ())}
        views = []
        for name, request in row.record.networks.items():
            try:
                network = self._network.get(name)
            except (NotFound, InvalidArgument):
                # As with Docker a network need not be there before the start, nor stay there after the end.
                views.append(EndpointView(name, "", request=request))
                continue
            endpoint = found.get(network.name)
            if endpoint is None:
                views.append(EndpointView(network.name, network.id, request=request))
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
        """Published ports of a running container, and those merely exposed."""
        published = [
            PortView(p.container_port, p.proto, p.host_ip, p.host_port)
            for p in (sandbox.ports if sandbox is not None else ())
        ]
        known = {(p.container_port, p.protocol) for p in published}
        exposed = []
        for text in row.record.config.exposed_ports or {}:
            low, high, protocol = check_port(text)
            exposed += [
                PortView(port, protocol) for port in range(low, high + 1) if (port, protocol) not in known
            ]
        return (*published, *exposed)


def port_mappings(host: HostConfig, exposed: Sequence[str]) -> list[PortMapping]:
    """``PortBindings`` and ``PublishAllPorts`` as the network's values.

    :raises InvalidArgument: malformed or out of range.
    """
    mappings: list[PortMapping] = []
    bound: set[tuple[int, str]] = set()
    for text, bindings in (host.port_bindings or {}).items():
        low, high, protocol = check_port(text)
        for port in range(low, high + 1):
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
