"""Networks, and the sandboxes of containers on them: the face of this room.

Order of things. A sandbox's row comes first and goes last (``state.networks`` says why); in between a
failure unwinds what was done, and what a killed daemon left is found by its row, by the alias of its
interface or by its file below ``<run>/netns``, and removed by :meth:`NetworkManager.restore`.

Locking. Choosing addresses and ports is serial (the database's lock, the ports' lock), the kernel's work is
not. Calls for one container come one after another: whoever calls sees to that.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from wherry.errors import Conflict, Forbidden, Internal, NotFound
from wherry.linux import netns
from wherry.model.container import EndpointRequest
from wherry.network import create, endpoints, hostsetup, ipam, requests, sandbox
from wherry.network.catalog import Catalog
from wherry.network.create import NetworkRequest, Surroundings
from wherry.network.defaults import default_networks
from wherry.network.dns.server import DnsServer
from wherry.network.drivers import Driver
from wherry.network.drivers.bridge import BridgeDriver, used_subnets
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.endpoints import Endpoints, endpoint_of
from wherry.network.publishing import Publishing, port_of
from wherry.network.sandbox import Attachment
from wherry.network.types import (
    Endpoint,
    Instance,
    Network,
    NetworkConfig,
    Owner,
    PortMapping,
    PublishedPort,
    Sandbox,
)
from wherry.state.database import Database
from wherry.state.meta import Meta
from wherry.state.networks import Networks, PublishedRow

_log = logging.getLogger(__name__)
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")

Lines = list[str]
Attachments = list[Attachment]
Published = list[PublishedRow]
Asked = list[tuple[Network, EndpointRequest]]


class NetworkManager:
    """Safe to use from any thread, all of which must be in the host's network and mount namespace."""

    def __init__(
        self, *, db: Database, run: Path, instance: str = "default", config: NetworkConfig | None = None
    ) -> None:
        """:param run: namespaces are pinned in ``<run>/netns``. :param instance: as in ``types.Instance``."""
        self._db = db
        self._rows = Networks(db)
        self._netns = run / "netns"
        self._instance = Instance(instance)
        self._config = config or NetworkConfig()
        self._catalog = Catalog(self._rows)
        self._endpoints = Endpoints(self._rows)
        self._reaper = sandbox.Reaper()
        self._drivers: dict[str, Driver] = {
            d.name: d for d in (BridgeDriver(self._instance, self._config.mtu), HostDriver(), NoneDriver())
        }
        publishes = [name for name, driver in self._drivers.items() if driver.publishes]
        self._publishing = Publishing(self._rows, self._instance, self._config, self._catalog.all, publishes)
        self._dns = DnsServer(self._catalog.all)
        self._host = hostsetup.HostSetup(self._instance, self._config, self._catalog)

    # -- life of the manager ---------------------------------------------------------------------------

    def start(self) -> Lines:
        """Make the networks real: rows, bridges, nft table, kernel parameters. Idempotent.

        :returns: lines that say what was changed on the host, and which networks could not be made.
        :raises Internal: the host refuses, with the reason.
        """
        try:
            netns.prepare_directory(self._netns)
        except OSError as e:
            raise Internal(f"cannot prepare {self._netns}: {e.strerror or e}") from e
        lines = self._load_networks()
        for network in self._catalog.all().values():
            lines += self._start_network(network)
        lines += self._host.enable_forwarding(ipv6=any(n.enable_ipv6 for n in self._catalog.all().values()))
        self._publishing.rebuild()
        lines += self._host.remove_strange_bridges()
        lines += [
            f"chain {chain} of the host drops forwarded packets: containers reach other hosts, and other "
            f"hosts their ports, only as far as it lets interface {self._instance.bridge} through"
            for chain in self._publishing.drops_of_others()
        ]
        self._dns.start()
        self._publishing.watch()
        self._host.watch_routes()
        for line in lines:
            _log.info("%s", line)
        return lines

    def _start_network(self, network: Network) -> Lines:
        if network.config_only:
            return []
        driver = self._drivers.get(network.driver)
        try:
            if driver is None:
                raise Internal(f"cannot set up network {network.name}: there is no driver {network.driver}")
            driver.start(network)
        except Internal as e:
            if network.predefined:
                raise
            return [e.message]
        return []

    def restore(self, live: Mapping[str, int]) -> Lines:
        """After a restart: keep the sandboxes of containers that run, release everything else that is ours.

        :param live: container id -> pid of its first process (0 if not known).
        :returns: lines that say what was found.
        """
        lines: Lines = []
        known = [row.container_id for row in self._rows.sandboxes()]
        for container_id in known:
            if container_id in live:
                lines += self._adopt(container_id, live[container_id])
            else:
                self.delete_sandbox(container_id)
                lines.append(f"released the network of container {container_id[:12]}, which does not run")
        lines += self._host.sweep(self._netns, set(known))
        self._publishing.rebuild()
        return lines

    def shutdown(self) -> None:
        """Close what this process holds; running containers keep their networks and published ports."""
        self._host.close()
        self._dns.close()
        self._publishing.unwatch()
        self._reaper.run()
        self._publishing.close()

    def teardown_all(self) -> None:
        """Remove everything of this instance from the host: sandboxes, bridges, table, pins."""
        for row in self._rows.sandboxes():
            self.delete_sandbox(row.container_id)
        self._host.close()
        self._dns.close()
        self._publishing.unwatch()
        self._reaper.run()
        for network in self._catalog.all().values():
            if network.driver in self._drivers:
                self._drivers[network.driver].stop(network)
        self._publishing.remove_table()
        netns.remove_directory(self._netns)
        self._publishing.close()

    def settle(self) -> None:
        """Wait until interfaces of deleted sandboxes are gone, removing those that would stay."""
        self._reaper.run()

    # -- networks --------------------------------------------------------------------------------------

    def list(self) -> list[Network]:
        """Every network, oldest first."""
        return list(self._catalog.all().values())

    def get(self, wanted: str) -> Network:
        """A network by its id, name (``default`` is ``bridge``), or unambiguous id prefix.

        :raises NotFound: none matches.
        :raises InvalidArgument: several ids start with it.
        """
        return self._catalog.get(wanted)

    def drivers(self) -> Lines:
        """The names of the drivers there are."""
        return sorted(self._drivers)

    def create(self, request: NetworkRequest) -> tuple[Network, Lines]:
        """Make a network. :returns: it, and warnings.

        :raises InvalidArgument, Forbidden, NotFound, Conflict, Unavailable: it cannot be as asked.
        """
        driver = None if request.config_only else self._driver(request.driver or "bridge")
        with self._db.transaction():
            # within one transaction, so that two at once do not choose the same subnet
            network, warnings = create.make(request, self._surroundings())
            if driver is not None:
                network = driver.check(network, self.list())
            self._catalog.put(network)
        if driver is None:
            return network, warnings
        with ExitStack() as undo:
            undo.callback(self._catalog.remove, network)
            undo.callback(driver.stop, network)
            driver.start(network)
            if network.bridge_name:
                undo.callback(self._publishing.remove_network, network)
                self._publishing.add_network(network)
            if network.enable_ipv6:
                for line in self._host.enable_forwarding(ipv6=True):
                    _log.info("%s", line)
            undo.pop_all()
        return network, warnings

    def remove(self, wanted: str) -> Network:
        """Remove a network that no container is on.

        :raises NotFound: there is none. :raises Forbidden: it is predefined, or in use.
        """
        network = self._catalog.get(wanted)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        users = self._rows.endpoints(network_id=network.id)
        if users:
            names = " ".join(f'(name:"{self._name_of(u.container_id)}" id:"{u.id[:12]}")' for u in users[:8])
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints {names}"
            )
        self._catalog.remove(network)
        if not network.config_only and network.driver in self._drivers:
            if network.bridge_name:
                self._publishing.remove_network(network)
            self._drivers[network.driver].stop(network)
        return network

    def status(self, network: Network) -> dict[str, tuple[int, int]]:
        """By subnet: addresses in use or reserved, addresses of its range that are free."""
        return {s.cidr: ipam.status(self._rows, network, s) for s in network.subnets}

    def _driver(self, name: str) -> Driver:
        driver = self._drivers.get(name)
        if driver is None:
            raise NotFound(
                f'could not find plugin {name[:64]} in v1 plugin registry: plugin "{name[:64]}" not found'
            )
        return driver

    def _surroundings(self) -> Surroundings:
        seed = Meta(self._db).set_default("ipv6_prefix", secrets.token_hex(5))
        return Surroundings(
            self._catalog.all(),
            self._config,
            self._catalog.taken(),
            used_subnets,
            ipam.local_prefix(bytes.fromhex(seed)),
        )

    def _name_of(self, container_id: str) -> str:
        return self._owner(container_id).name or container_id[:12]

    def _owner(self, container_id: str) -> Owner:
        rows = self._rows.sandboxes(container_id=container_id)
        return msgspec.json.decode(rows[0].record, type=Owner) if rows else Owner()

    # -- sandboxes -------------------------------------------------------------------------------------

    def create_sandbox(
        self,
        container_id: str,
        *,
        name: str = "",
        network_mode: str = "default",
        endpoints: Mapping[str, EndpointRequest | None] | None = None,
        ports: Sequence[PortMapping] = (),
        mac_address: str = "",
        owner: Owner | None = None,
    ) -> Sandbox:
        """Make a container's network: namespace, interfaces, addresses, routes, published ports. All or none.

        :param name: the container's name, for the words of errors. :param network_mode: a network's name
            or id, or ``default``, where ``endpoints`` is None. :param endpoints: what was asked of each
            network, by network.
        :param ports: published where the container has an address; without one (``none``) there is
            nothing to lead them to and they are left out, as Docker does.
        :param mac_address: of the first interface, unless its endpoint asks for one.
        :raises Conflict: the container has a sandbox; an address is taken.
        :raises InvalidArgument: a request that cannot be carried out as written.
        :raises Internal: a port is taken, or the host refuses.
        """
        path = self._pin(container_id)
        owner = owner or Owner(name=name)
        asked = requests.plan(network_mode, endpoints, self._catalog.usable)
        with ExitStack() as undo:
            undo.callback(self._publishing.release, container_id)
            attachments, published = self._record(container_id, asked, ports, mac_address, owner)
            undo.callback(self._rows.delete_sandbox, container_id)
            undo.callback(self._let_go, path, attachments)
            sandbox.build(path, attachments)
            undo.callback(self._publishing.shut, container_id, published)
            self._publishing.open(published)
            undo.callback(self._dns.leave, container_id)
            self._dns.join(container_id, path, owner, [a.endpoint for a in attachments])
            undo.pop_all()
        return Sandbox(
            container_id,
            path,
            tuple(a.endpoint for a in attachments),
            tuple(port_of(r) for r in published),
        )

    def delete_sandbox(self, container_id: str) -> None:
        """Release everything of a container's network. Idempotent; half-made ones are fine."""
        path = self._pin(container_id)
        self._dns.leave(container_id)
        if not self._rows.has_sandbox(container_id):
            netns.unpin(path)
            return
        with self._publishing.leaving(container_id):
            self._let_go(path, self._attachments(container_id))
            self._rows.delete_sandbox(container_id)
            self._publishing.release(container_id)

    def connect(
        self,
        container_id: str,
        wanted: str,
        request: EndpointRequest,
        *,
        name: str = "",
        ports: Sequence[PortMapping] = (),
    ) -> Endpoint:
        """Put a running container on one more network.

        :param ports: published now if nothing of it could be reached before, and something can now.
        :raises Forbidden: it is on that network already. :raises InvalidArgument, Conflict, Internal: as
            :meth:`create_sandbox`.
        """
        network = self._catalog.usable(wanted)
        owner = self._owner(container_id)
        with ExitStack() as undo:
            with self._db.transaction():
                before = self.endpoints_of(container_id)
                if any(e.network_id == network.id for e in before):
                    raise Forbidden(
                        f"endpoint with name {name or owner.name} already exists in network {network.name}"
                    )
                endpoint = self._endpoints.make(
                    container_id, network, request, owner=owner, taken=[e.ifname for e in before]
                )
            attachment = Attachment(network, self._drivers[network.driver], endpoint)
            undo.callback(self._rows.delete_endpoint, endpoint.id)
            undo.callback(self._detach_later, attachment)
            now = [*before, endpoint]
            path = self._pin(container_id)
            sandbox.connect(path, attachment, now)
            undo.callback(sandbox.disconnect, path, endpoint, before)
            self._publishing.lead(container_id, now)
            undo.callback(self._publishing.lead, container_id, before)
            if ports and not self._rows.published(container_id=container_id) and self._reachable(now):
                self._publishing.publish(container_id, ports, now, name or owner.name)
            self._dns.join(container_id, path, owner, now)
            undo.pop_all()
        return endpoint

    def _reachable(self, now: Sequence[Endpoint]) -> bool:
        target = self._publishing.target(now)
        return bool(target.ip4 or target.ip6)

    def disconnect(self, container_id: str, network_id: str) -> Endpoint | None:
        """Take a running container off a network. :returns: the endpoint it had, None if none."""
        present = self.endpoints_of(container_id)
        endpoint = next((e for e in present if e.network_id == network_id), None)
        if endpoint is None:
            return None
        left = [e for e in present if e.id != endpoint.id]
        path = self._pin(container_id)
        self._dns.join(container_id, path, self._owner(container_id), left)
        self._publishing.lead(container_id, left)
        sandbox.disconnect(path, endpoint, left)
        network = self._catalog.all().get(network_id)
        if network is not None:
            driver = self._drivers[network.driver]
            driver.detach(network, endpoint)
        self._rows.delete_endpoint(endpoint.id)
        return endpoint

    @staticmethod
    def gateway(present: Sequence[Endpoint]) -> str:
        """The address of the host that a container with these endpoints reaches everybody by."""
        by4, by6 = endpoints.gateway_of(present, 4), endpoints.gateway_of(present, 6)
        return by4.gateway if by4 is not None else by6.gateway6 if by6 is not None else ""

    def rename(self, container_id: str, name: str) -> None:
        """A running container is called otherwise from now on."""
        owner = self._owner(container_id)
        if not self._rows.has_sandbox(container_id):
            return
        owner = msgspec.structs.replace(owner, name=name)
        renamed = [
            msgspec.structs.replace(e, dns_names=endpoints.dns_names(owner, e) if e.dns_names else ())
            for e in self.endpoints_of(container_id)
        ]
        with self._db.transaction():
            self._rows.set_sandbox_record(container_id, msgspec.json.encode(owner))
            for endpoint in renamed:
                self._rows.update_endpoint(endpoints.row_of(endpoint))
        self._dns.join(container_id, self._pin(container_id), owner, renamed)

    def publish(
        self, container_id: str, wanted: Sequence[PortMapping], *, name: str = ""
    ) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container; all or none.

        :returns: what was published now.
        :raises InvalidArgument: it has no address of its own (``host``, ``none``), or a bad mapping.
        :raises Internal: a port is taken, or the host refuses.
        """
        return self._publishing.publish(container_id, wanted, self.endpoints_of(container_id), name)

    def unpublish(self, container_id: str, ports: Sequence[PublishedPort]) -> None:
        """Take published ports back while the container runs; those that are not there are fine.

        Connections that stand are left alone.
        """
        self._publishing.unpublish(container_id, ports)

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The network of a container that runs (or starts), None for one that has none."""
        return self.sandboxes(container_id).get(container_id)

    def sandboxes(self, container_id: str | None = None) -> dict[str, Sandbox]:
        """All sandboxes (or the one of a container) by container id."""
        ids = [r.container_id for r in self._rows.sandboxes(container_id=container_id)]
        found: dict[str, tuple[list[Endpoint], list[PublishedPort]]] = {i: ([], []) for i in ids}
        if not found:
            return {}
        for row in self._rows.endpoints(container_id=container_id):
            if row.container_id in found:
                found[row.container_id][0].append(endpoint_of(row))
        for port in self._rows.published(container_id=container_id):
            if port.container_id in found:
                found[port.container_id][1].append(port_of(port))
        return {
            i: Sandbox(i, self._netns / i, tuple(sorted(e, key=lambda x: x.ifname)), tuple(p))
            for i, (e, p) in found.items()
        }

    def endpoints_of(self, container_id: str) -> tuple[Endpoint, ...]:
        """A container's endpoints, ``()`` when it has no sandbox."""
        found = self.sandbox(container_id)
        return found.endpoints if found is not None else ()

    def endpoints_on(self, network_id: str) -> tuple[Endpoint, ...]:
        """Every endpoint of a network."""
        return tuple(endpoint_of(r) for r in self._rows.endpoints(network_id=network_id))

    # -- parts of the above ----------------------------------------------------------------------------

    def _pin(self, container_id: str) -> Path:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise Internal(f"cannot find the network of container {container_id[:64]!r}: not an id")
        return self._netns / container_id

    def _load_networks(self) -> Lines:
        stored = {n.name: n for n in self._catalog.stored()}
        self._catalog.load()
        networks, lines = default_networks(
            self._instance,
            self._config,
            stored,
            in_use=self._host.networks_in_use(self._rows.endpoints()),
            used_subnets=lambda: {*used_subnets(), *self._catalog.taken()},
        )
        for network in networks:
            if network != stored.get(network.name):
                self._catalog.put(network)
        return lines

    def _record(
        self,
        container_id: str,
        asked: Asked,
        ports: Sequence[PortMapping],
        mac_address: str,
        owner: Owner,
    ) -> tuple[Attachments, Published]:
        """Choose addresses and ports and write the rows."""
        attachments: Attachments = []
        with self._db.transaction():
            if not self._rows.insert_sandbox(container_id, time.time_ns(), msgspec.json.encode(owner)):
                raise Conflict(f"cannot set up the network of container {container_id[:12]}: it has one")
            for position, (network, request) in enumerate(asked):
                endpoint = self._endpoints.make(
                    container_id,
                    network,
                    request,
                    owner=owner,
                    taken=[a.endpoint.ifname for a in attachments],
                    mac_address=mac_address if position == 0 else "",
                )
                attachments.append(Attachment(network, self._drivers[network.driver], endpoint))
            target = self._publishing.target([a.endpoint for a in attachments])
            where = attachments[0].endpoint.id if attachments else ""
            rows = self._publishing.hold(
                container_id, ports, target, f"{owner.name or container_id[:12]} ({where})"
            )
            self._rows.insert_published(rows)
        return attachments, rows

    def _attachments(self, container_id: str) -> Attachments:
        found: Attachments = []
        for row in self._rows.endpoints(container_id=container_id):
            network = self._catalog.all().get(row.network_id)
            if network is not None and network.driver in self._drivers:
                found.append(Attachment(network, self._drivers[network.driver], endpoint_of(row)))
        return found

    def _let_go(self, path: Path, attachments: Sequence[Attachment]) -> None:
        netns.unpin(path)
        for a in attachments:
            self._detach_later(a)

    def _detach_later(self, a: Attachment) -> None:
        if a.endpoint.host_ifname:
            self._reaper.later(partial(a.driver.detach, a.network, a.endpoint))

    def _adopt(self, container_id: str, pid: int) -> Lines:
        lines: Lines = []
        path = self._netns / container_id
        if not sandbox.repin(path, pid):
            lines.append("its network namespace is not to be found")
        attachments = self._attachments(container_id)
        for a in attachments:
            if not a.driver.adopt(a.network, a.endpoint):
                lines.append(f"its interface on {a.network.name} is gone")
        lines += self._publishing.adopt(container_id)
        lines += self._dns.adopt(
            container_id, path, self._owner(container_id), [a.endpoint for a in attachments]
        )
        return [f"container {container_id[:12]} runs, but {line}" for line in lines]
