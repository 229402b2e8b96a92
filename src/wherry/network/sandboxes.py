"""Sandboxes of containers: create, change while the container runs, release, adopt after a restart.

A sandbox's row is written first and deleted last (``state.networks`` says why); a failure in between undoes
what was done. Choosing addresses and ports is serialised (the database's lock, the ports' lock); the kernel's
work is not. The caller must not make two calls for one container at the same time.
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
from wherry.model import typed
from wherry.model.container import EndpointRequest
from wherry.network import endpoints, requests, sandbox
from wherry.network.dhcp.leases import DhcpLeases
from wherry.network.endpoints import Endpoints, endpoint_of, named, without
from wherry.network.parts import NetworkParts
from wherry.network.publishing import port_of
from wherry.network.sandbox import SandboxEndpoint
from wherry.network.types import (
    DHCP,
    Endpoint,
    Network,
    Owner,
    PortMapping,
    PublishedPort,
    Sandbox,
)
from wherry.state.networks import PublishedRow

_log = logging.getLogger(__name__)
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")

Lines = list[str]
Attachments = list[SandboxEndpoint]
Published = list[PublishedRow]
Asked = list[tuple[Network, EndpointRequest]]


class SandboxManager:
    """Safe to use from any thread that is in the host's network and mount namespaces."""

    def __init__(self, parts: NetworkParts) -> None:
        self._parts = parts
        self._rows = parts.rows
        self._db = parts.rows.db
        self._netns = parts.pins
        self._catalog = parts.catalog
        self._drivers = parts.drivers
        self._publishing = parts.publishing
        self._dns = parts.dns
        self._endpoints = Endpoints(parts.rows)
        self._leases = DhcpLeases(self._moved)

    def close(self) -> None:
        """Stop renewing leases."""
        self._leases.close()

    def create(
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

        :param name: the container's name, for error messages. :param network_mode: a network's name or id, or
            ``default``; used if ``endpoints`` is None. :param endpoints: the request for each network.
        :param ports: published if the container has an address. Without one (``none``) they are ignored, as
            in Docker.
        :param mac_address: for the first interface, unless its endpoint request has one.
        :raises Conflict: the container has a sandbox already; an address is taken.
        :raises InvalidArgument: the request is not possible.
        :raises Internal: a port is taken, or the host refuses.
        """
        path = self._pin(container_id)
        owner = owner or Owner(name=name)
        find = self._catalog.usable if endpoints is not None else self._catalog.usable_by_mode
        asked = requests.plan(network_mode, endpoints, find, self._drivers.traits)
        with ExitStack() as undo:
            asked = [(network, self._claim(network, request, undo)) for network, request in asked]
            attachments = self._record(container_id, asked, mac_address, owner)
            undo.callback(self._publishing.release, container_id)
            undo.callback(self._rows.delete_sandbox, container_id)
            published = self._hold(container_id, ports, attachments, owner)
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

    def delete(self, container_id: str) -> None:
        """Release everything of a container's network. Idempotent; also for incomplete sandboxes."""
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
        """Connect a running container to one more network.

        :param ports: published now, if the container had no address to publish on before, and has one now.
        :raises Forbidden: it is on that network already. :raises InvalidArgument, Conflict, Internal: as
            :meth:`create`.
        """
        network = self._catalog.usable(wanted)
        driver = self._drivers.of(network)
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
                    container_id,
                    network,
                    request,
                    driver,
                    owner=owner,
                    taken=[e.ifname for e in before],
                )
            attachment = SandboxEndpoint(network, driver, endpoint)
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
            undo.callback(self._withdraw, [SandboxEndpoint(network, attachment.driver, endpoint)])
            self._announce([SandboxEndpoint(network, attachment.driver, endpoint)])
            self._dns.join(container_id, path, owner, now)
            undo.pop_all()
        return endpoint

    def _reachable(self, now: Sequence[Endpoint]) -> bool:
        target = self._publishing.target(now)
        return bool(target.ip4 or target.ip6)

    def disconnect(self, container_id: str, network_id: str) -> Endpoint | None:
        """Disconnect a running container from a network. :returns: the endpoint it had, None if none."""
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
            self._give_back([SandboxEndpoint(network, self._drivers.of(network), endpoint)])
        sandbox.disconnect(path, endpoint, left)
        if network is not None:
            self._drivers.of(network).detach(network, endpoint)
        self._rows.delete_endpoint(endpoint.id)
        if network is not None:
            self._withdraw([SandboxEndpoint(network, self._drivers.of(network), endpoint)])
        return endpoint

    @staticmethod
    def gateway(present: Sequence[Endpoint]) -> str:
        """The gateway of a container with these endpoints, that is,
        the host's address on its default network."""
        by4, by6 = endpoints.gateway_of(present, 4), endpoints.gateway_of(present, 6)
        return by4.gateway if by4 is not None else by6.gateway6 if by6 is not None else ""

    def rename(self, container_id: str, name: str) -> None:
        """Use a running container's new name."""
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
            _log.warning(
                "the new name of container %s is not yet published to other hosts: %s",
                container_id[:12],
                e.message,
            )

    def publish(
        self, container_id: str, wanted: Sequence[PortMapping], *, name: str = ""
    ) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container; all or none.

        :returns: what was published now.
        :raises InvalidArgument: it has no address of its own (``host``, ``none``), or an invalid mapping.
        :raises Internal: a port is taken, or the host refuses.
        """
        return self._publishing.publish(container_id, wanted, self.endpoints_of(container_id), name)

    def unpublish(self, container_id: str, ports: Sequence[PublishedPort]) -> None:
        """Stop publishing ports of a running container; missing ones are no error.

        Established connections are not cut.
        """
        self._publishing.unpublish(container_id, ports)

    def take_over(
        self,
        container_id: str,
        giver: str,
        *,
        owner: Owner,
        requests: Mapping[str, EndpointRequest],
        ports: Sequence[PortMapping] = (),
    ) -> tuple[PublishedPort, ...]:
        """Let a running container that was started without its ports, aliases and host name have them now.

        :param giver: a running container that has them until then, and loses them; empty: nobody does.
        :param requests: of the container's networks, by their names. :returns: its published ports.
        :raises Internal: a port is taken by a third one, or the host refuses; nothing has changed.
        """
        mine, of_giver = self.endpoints_of(container_id), self.endpoints_of(giver) if giver else ()
        published = self._publishing.take_over(container_id, ports, mine, owner.name, giver)
        now = [named(e, owner, requests) for e in mine]
        lost = {e.network_id: set(e.dns_names) for e in now}
        left = [without(e, lost.get(e.network_id, set())) for e in of_giver]
        with self._db.transaction():
            self._rows.set_sandbox_record(container_id, msgspec.json.encode(owner))
            for endpoint in (*now, *left):
                self._rows.update_endpoint(endpoints.row_of(endpoint))
        self._dns.join(container_id, self._pin(container_id), owner, now)
        if giver:
            self._dns.join(giver, self._pin(giver), self._owner(giver), left)
        for one in filter(None, (container_id, giver)):
            try:
                self._announce(self._attachments(one))
            except Unavailable as e:
                _log.warning(
                    "the names of container %s are not yet published to other hosts: %s", one[:12], e.message
                )
        return published

    def get(self, container_id: str) -> Sandbox | None:
        """The sandbox of a running (or starting) container; None if it has none."""
        return self.all(container_id).get(container_id)

    def all(self, container_id: str | None = None) -> dict[str, Sandbox]:
        """All sandboxes (or only that of one container) by container id."""
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
        """A container's endpoints; ``()`` if it has no sandbox."""
        found = (endpoint_of(r) for r in self._rows.endpoints(container_id=container_id))
        return tuple(sorted(found, key=lambda e: e.ifname))

    def endpoints_on(self, network_id: str) -> tuple[Endpoint, ...]:
        """Every endpoint of a network."""
        return tuple(endpoint_of(r) for r in self._rows.endpoints(network_id=network_id))

    # -- helpers ---------------------------------------------------------------------------------------

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
        mac_address: str,
        owner: Owner,
    ) -> Attachments:
        """Choose addresses and write the rows."""
        drivers = {network.id: self._drivers.of(network) for network, _ in asked}
        attachments: Attachments = []
        with self._db.transaction():
            if not self._rows.insert_sandbox(container_id, time.time_ns(), msgspec.json.encode(owner)):
                raise Conflict(f"cannot set up the network of container {container_id[:12]}: it has one")
            for position, (network, request) in enumerate(asked):
                endpoint = self._endpoints.make(
                    container_id,
                    network,
                    request,
                    drivers[network.id],
                    owner=owner,
                    taken=[a.endpoint.ifname for a in attachments],
                    mac_address=mac_address if position == 0 else "",
                )
                attachments.append(SandboxEndpoint(network, drivers[network.id], endpoint))
        return attachments

    def _hold(
        self, container_id: str, ports: Sequence[PortMapping], attachments: Attachments, owner: Owner
    ) -> Published:
        """Choose host ports, hold them and write their rows."""
        target = self._publishing.target([a.endpoint for a in attachments])
        where = attachments[0].endpoint.id if attachments else ""
        words = f"{owner.name or container_id[:12]} ({where})"
        rows = self._publishing.hold(container_id, ports, target, words)
        if rows:
            self._rows.insert_published(rows)
        return rows

    def _attachments(self, container_id: str) -> Attachments:
        found: Attachments = []
        for row in self._rows.endpoints(container_id=container_id):
            network = self._catalog.all().get(row.network_id)
            if network is not None and self._drivers.has(network):
                found.append(SandboxEndpoint(network, self._drivers.of(network), endpoint_of(row)))
        return found

    def _claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """Claim addresses that this host cannot choose alone: of a network that several hosts share, or with
        an IPAM plugin."""
        if network.pools:
            return self._parts.ipam(network.ipam_driver).claim(network, request, undo)
        return self._drivers.of(network).sharing.claim(network, request, undo)

    def _announce(self, attachments: Sequence[SandboxEndpoint]) -> None:
        for a in attachments:
            a.driver.sharing.announce(a.endpoint)

    def _withdraw(self, attachments: Sequence[SandboxEndpoint]) -> None:
        for a in attachments:
            a.driver.sharing.withdraw(a.endpoint)
            if a.network.pools:
                try:
                    self._parts.ipam(a.network.ipam_driver).release(a.network, a.endpoint)
                except WherryError as e:
                    _log.warning("cannot release an address of network %s: %s", a.network.name, e.message)

    def _lend(self, path: Path, endpoint: Endpoint) -> Endpoint:
        owner = self._owner(endpoint.container_id)
        return self._leases.obtain(path, endpoint, owner.hostname or owner.name, endpoint.ip)

    def _lent(self, attachments: Sequence[SandboxEndpoint], lent: Sequence[Endpoint]) -> Attachments:
        """Store the addresses that endpoints obtained by DHCP."""
        found: Attachments = []
        for a, endpoint in zip(attachments, lent, strict=True):
            if endpoint != a.endpoint:
                self._rows.update_endpoint(endpoints.row_of(endpoint))
                a.driver.adopt(a.network, endpoint)
            found.append(SandboxEndpoint(a.network, a.driver, endpoint))
        return found

    def _give_back(self, attachments: Sequence[SandboxEndpoint]) -> None:
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

    def _let_go(self, path: Path, attachments: Sequence[SandboxEndpoint]) -> None:
        # a veth pair is removed by the reaper if necessary; interfaces of these drivers are not
        sandbox.strip(path, [e.ifname for a in attachments if (e := a.endpoint).ifname and not e.host_ifname])
        netns.unpin(path)
        for a in attachments:
            self._detach_later(a)

    def _detach_later(self, a: SandboxEndpoint) -> None:
        if a.endpoint.ifname:
            self._parts.reaper.later(partial(a.driver.detach, a.network, a.endpoint))

    def adopt(self, container_id: str, pid: int) -> Lines:
        """Take over the sandbox of a running container: its namespace, addresses, ports and names.

        What takes a millisecond and concerns it alone is left to :meth:`resume`.
        :returns: lines that say what is wrong with it.
        """
        lines: Lines = []
        path = self._pin(container_id)
        if not sandbox.repin(path, pid):
            lines.append("its network namespace is not to be found")
        attachments = self._attachments(container_id)
        for a in attachments:
            if a.network.ipam_driver == DHCP and a.endpoint.ip:
                self._leases.adopt(path, a.endpoint, self._owner(container_id).hostname)
        lines += self._publishing.adopt(container_id)
        self._dns.know(container_id, [a.endpoint for a in attachments])
        return _but(container_id, lines)

    def resume(self, container_id: str) -> Lines:
        """After :meth:`adopt`: look after its interfaces, and answer its DNS queries, for which its namespace
        is entered.

        :returns: lines that say what is wrong with it.
        """
        lines: Lines = []
        attachments = self._attachments(container_id)
        for a in attachments:
            if not a.driver.adopt(a.network, a.endpoint):
                lines.append(f"its interface on {a.network.name} is gone")
        endpoints = [a.endpoint for a in attachments]
        lines += self._dns.adopt(container_id, self._pin(container_id), self._owner(container_id), endpoints)
        return _but(container_id, lines)


def _but(container_id: str, wrong: Lines) -> Lines:
    return [f"container {container_id[:12]} runs, but {line}" for line in wrong]
