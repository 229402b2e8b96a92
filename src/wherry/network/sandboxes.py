"""The sandboxes of containers: made, changed while the container runs, released, taken over after a restart.

A sandbox's row comes first and goes last (``state.networks`` says why); in between a failure unwinds what was
done. Choosing addresses and ports is serial (the database's lock, the ports' lock), the kernel's work is not.
Calls for one container come one after another: whoever calls sees to that.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from wherry.errors import Conflict, Forbidden, Internal, Unavailable, WherryError
from wherry.linux import netns
from wherry.linux.plugins import Plugins
from wherry.model import typed
from wherry.model.container import EndpointRequest
from wherry.network import endpoints, requests, sandbox
from wherry.network import plugins as remote
from wherry.network.catalog import Catalog
from wherry.network.dhcp.leases import Leases
from wherry.network.dns.server import DnsServer
from wherry.network.drivers import Driver
from wherry.network.drivers.remote import RemoteDriver
from wherry.network.endpoints import Endpoints, endpoint_of
from wherry.network.overlays import Overlays
from wherry.network.plugins.ipam import RemoteIpam
from wherry.network.publishing import Publishing, port_of
from wherry.network.sandbox import Attachment
from wherry.network.types import (
    DHCP,
    Endpoint,
    Network,
    Owner,
    PortMapping,
    PublishedPort,
    Sandbox,
)
from wherry.state.networks import Networks, PublishedRow

_log = logging.getLogger(__name__)
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")

Lines = list[str]
Attachments = list[Attachment]
Published = list[PublishedRow]
Asked = list[tuple[Network, EndpointRequest]]


class Sandboxes:
    """The half of the manager that deals with containers; the manager makes what it works on."""

    def __init__(
        self,
        rows: Networks,
        directory: Path,
        catalog: Catalog,
        drivers: dict[str, Driver],
        publishing: Publishing,
        dns: DnsServer,
        plugins: Plugins,
    ) -> None:
        """:param directory: where namespaces are pinned."""
        self._rows = rows
        self._db = rows.db
        self._netns = directory
        self._catalog = catalog
        self._drivers = drivers
        self._publishing = publishing
        self._dns = dns
        self._endpoints = Endpoints(rows)
        self._reaper = sandbox.Reaper()
        self._leases = Leases(self._moved)
        self._plugins = plugins
        self._overlays: Overlays | None = None
        """Set by the manager of a daemon that is part of a cluster."""

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
            asked = [(network, self._claim(network, request, undo)) for network, request in asked]
            undo.callback(self._publishing.release, container_id)
            attachments, published = self._record(container_id, asked, ports, mac_address, owner)
            undo.callback(self._rows.delete_sandbox, container_id)
            undo.callback(self._let_go, path, attachments)
            undo.callback(self._give_back, attachments)
            attachments = self._lent(attachments, sandbox.build(path, attachments, self._lend))
            undo.callback(self._publishing.shut, container_id, published)
            self._publishing.open(published)
            undo.callback(self._withdraw, attachments)
            self._announce(attachments)
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
            attachments = self._attachments(container_id)
            self._give_back(attachments)
            self._let_go(path, attachments)
            self._rows.delete_sandbox(container_id)
            self._publishing.release(container_id)
        self._withdraw(attachments)

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
            if not any(e.network_id == network.id for e in self.endpoints_of(container_id)):
                request = self._claim(network, request, undo)
            with self._db.transaction():
                before = self.endpoints_of(container_id)
                if any(e.network_id == network.id for e in before):
                    raise Forbidden(
                        f"endpoint with name {name or owner.name} already exists in network {network.name}"
                    )
                endpoint = self._endpoints.make(
                    container_id, network, request, owner=owner, taken=[e.ifname for e in before]
                )
            attachment = Attachment(network, self._driver(network.driver), endpoint)
            undo.callback(self._rows.delete_endpoint, endpoint.id)
            undo.callback(self._detach_later, attachment)
            path = self._pin(container_id)
            undo.callback(self._give_back, [attachment])
            lent = sandbox.connect(path, attachment, before, self._lend)
            undo.callback(sandbox.disconnect, path, endpoint, before)
            self._lent([attachment], [lent])
            endpoint, now = lent, [*before, lent]
            self._publishing.lead(container_id, now)
            undo.callback(self._publishing.lead, container_id, before)
            if ports and not self._rows.published(container_id=container_id) and self._reachable(now):
                self._publishing.publish(container_id, ports, now, name or owner.name)
            undo.callback(self._withdraw, [Attachment(network, attachment.driver, endpoint)])
            self._announce([Attachment(network, attachment.driver, endpoint)])
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
        network = self._catalog.all().get(network_id)
        if network is not None:
            self._give_back([Attachment(network, self._driver(network.driver), endpoint)])
        sandbox.disconnect(path, endpoint, left)
        if network is not None:
            self._driver(network.driver).detach(network, endpoint)
        self._rows.delete_endpoint(endpoint.id)
        if network is not None:
            self._withdraw([Attachment(network, self._driver(network.driver), endpoint)])
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
        try:
            self._announce(self._attachments(container_id))
        except Unavailable as e:
            _log.warning("the new name of container %s is not told yet: %s", container_id[:12], e.message)

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
        found = (endpoint_of(r) for r in self._rows.endpoints(container_id=container_id))
        return tuple(sorted(found, key=lambda e: e.ifname))

    def endpoints_on(self, network_id: str) -> tuple[Endpoint, ...]:
        """Every endpoint of a network."""
        return tuple(endpoint_of(r) for r in self._rows.endpoints(network_id=network_id))

    # -- parts of the above ----------------------------------------------------------------------------

    def _driver(self, name: str) -> Driver:
        """:raises NotFound: there is none of this name, and no plugin."""
        driver = self._drivers.get(name)
        if driver is None:
            driver = RemoteDriver(remote.find(self._plugins, name, "NetworkDriver"))
            self._drivers[name] = driver
        return driver

    def _has_driver(self, network: Network) -> bool:
        try:
            self._driver(network.driver)
        except WherryError:
            return False
        return True

    def _ipam(self, network: Network) -> RemoteIpam:
        return RemoteIpam(remote.find(self._plugins, network.ipam_driver, "IpamDriver"))

    def _pin(self, container_id: str) -> Path:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise Internal(f"cannot find the network of container {container_id[:64]!r}: not an id")
        return self._netns / container_id

    def _owner(self, container_id: str) -> Owner:
        rows = self._rows.sandboxes(container_id=container_id)
        return typed.from_json(rows[0].record, Owner) if rows else Owner()

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
                attachments.append(Attachment(network, self._driver(network.driver), endpoint))
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
            if network is not None and self._has_driver(network):
                found.append(Attachment(network, self._driver(network.driver), endpoint_of(row)))
        return found

    def _claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """Addresses that are not this host's alone to choose: of a network that several hosts share, or with
        an IPAM plugin."""
        if network.pools:
            return self._ipam(network).claim(network, request, undo)
        if network.driver != "overlay" or self._overlays is None:
            return request
        return self._overlays.claim(network, request, undo)

    def _announce(self, attachments: Sequence[Attachment]) -> None:
        for a in attachments:
            if a.network.driver == "overlay" and self._overlays is not None:
                self._overlays.member.announce(a.endpoint)

    def _withdraw(self, attachments: Sequence[Attachment]) -> None:
        for a in attachments:
            if a.network.driver == "overlay" and self._overlays is not None:
                self._overlays.member.withdraw(a.endpoint)
            elif a.network.pools:
                try:
                    self._ipam(a.network).release(a.network, a.endpoint)
                except WherryError as e:
                    _log.warning("cannot give an address of network %s back: %s", a.network.name, e.message)

    def _lend(self, path: Path, endpoint: Endpoint) -> Endpoint:
        owner = self._owner(endpoint.container_id)
        return self._leases.obtain(path, endpoint, owner.hostname or owner.name, endpoint.ip)

    def _lent(self, attachments: Sequence[Attachment], lent: Sequence[Endpoint]) -> Attachments:
        """Write down the addresses that endpoints were lent."""
        found: Attachments = []
        for a, endpoint in zip(attachments, lent, strict=True):
            if endpoint != a.endpoint:
                self._rows.update_endpoint(endpoints.row_of(endpoint))
                a.driver.adopt(a.network, endpoint)
            found.append(Attachment(a.network, a.driver, endpoint))
        return found

    def _give_back(self, attachments: Sequence[Attachment]) -> None:
        for a in attachments:
            if a.network.ipam_driver == DHCP:
                self._leases.release(a.endpoint)

    def _moved(self, before: Endpoint, after: Endpoint) -> None:
        """A DHCP server has given a running container another address. Runs on the leases' thread."""
        container_id = after.container_id
        now = [after if e.id == after.id else e for e in self.endpoints_of(container_id)]
        path = self._pin(container_id)
        sandbox.readdress(path, before, after, now)
        self._rows.update_endpoint(endpoints.row_of(after))
        self._dns.join(container_id, path, self._owner(container_id), now)

    def _let_go(self, path: Path, attachments: Sequence[Attachment]) -> None:
        # a pair's other end is removed by the reaper if it must be; these have none
        sandbox.strip(path, [e.ifname for a in attachments if (e := a.endpoint).ifname and not e.host_ifname])
        netns.unpin(path)
        for a in attachments:
            self._detach_later(a)

    def _detach_later(self, a: Attachment) -> None:
        if a.endpoint.ifname:
            self._reaper.later(partial(a.driver.detach, a.network, a.endpoint))

    def _adopt(self, container_id: str, pid: int) -> Lines:
        lines: Lines = []
        path = self._netns / container_id
        if not sandbox.repin(path, pid):
            lines.append("its network namespace is not to be found")
        attachments = self._attachments(container_id)
        for a in attachments:
            if a.network.ipam_driver == DHCP and a.endpoint.ip:
                self._leases.adopt(path, a.endpoint, self._owner(container_id).hostname)
            if not a.driver.adopt(a.network, a.endpoint):
                lines.append(f"its interface on {a.network.name} is gone")
        lines += self._publishing.adopt(container_id)
        lines += self._dns.adopt(
            container_id, path, self._owner(container_id), [a.endpoint for a in attachments]
        )
        return [f"container {container_id[:12]} runs, but {line}" for line in lines]
