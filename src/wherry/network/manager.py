"""Networks, and the sandboxes of containers on them: the face of this room.

Order of things. A sandbox's row comes first and goes last (``state.networks`` says why); in between a
failure unwinds what was done, and what a killed daemon left is found by its row, by the alias of its
interface or by its file below ``<run>/netns``, and removed by :meth:`NetworkManager.restore`.

Locking. Choosing addresses and ports is serial (the database's lock, the ports' lock), the kernel's work is
not. One lock is held while nftables changes: the table is rebuilt from rows, and must not bring back the
ports of a container that is just going away.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.linux import conntrack, netns, sysctl
from wherry.linux.netlink import NetlinkSocket
from wherry.linux.nft import Nft, NftError, TableWatch, table_exists
from wherry.linux.rtnetlink import delete_link, links
from wherry.model.container import EndpointRequest
from wherry.network import ipam, requests, sandbox
from wherry.network.defaults import default_networks
from wherry.network.drivers import Driver
from wherry.network.drivers.bridge import BridgeDriver, used_subnets
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.firewall import Bridged, Firewall
from wherry.network.ports import HostPorts
from wherry.network.sandbox import Attachment
from wherry.network.types import (
    Endpoint,
    Instance,
    Network,
    NetworkConfig,
    PortMapping,
    PublishedPort,
    Sandbox,
)
from wherry.state.database import Database
from wherry.state.networks import EndpointRow, NetworkRow, Networks, PublishedRow

_log = logging.getLogger(__name__)
_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")

Lines = list[str]
Attachments = list[Attachment]
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
        self._nft = Nft()
        self._firewall = Firewall(self._instance, self._nft)
        self._firewall_lock = threading.RLock()
        self._leaving: set[str] = set()
        self._ports = HostPorts(self._config.host_ip)
        self._reaper = sandbox.Reaper()
        self._watch: TableWatch | None = None
        self._drivers: dict[str, Driver] = {
            d.name: d for d in (BridgeDriver(self._instance), HostDriver(), NoneDriver())
        }
        self._networks: dict[str, Network] = {}

    # -- life of the manager ---------------------------------------------------------------------------

    def start(self) -> Lines:
        """Make the default networks real: rows, bridge, nft table, kernel parameters. Idempotent.

        :returns: lines that say what was changed on the host.
        :raises Internal: the host refuses, with the reason.
        """
        try:
            netns.prepare_directory(self._netns)
        except OSError as e:
            raise Internal(f"cannot prepare {self._netns}: {e.strerror or e}") from e
        lines = self._load_networks()
        for network in self._networks.values():
            self._drivers[network.driver].start(network)
        lines += self._enable_forwarding()
        self._rebuild()
        lines += [
            f"chain {chain} of the host drops forwarded packets: containers reach other hosts, and other "
            f"hosts their ports, only as far as it lets interface {self._instance.bridge} through"
            for chain in self._firewall.drops_of_others()
        ]
        if self._watch is None:
            self._watch = TableWatch(self._instance.table, self._table_deleted)
        for line in lines:
            _log.info("%s", line)
        return lines

    def restore(self, live: Mapping[str, int]) -> Lines:
        """After a restart: keep the sandboxes of containers that run, release everything else that is ours.

        :param live: container id -> pid of its first process (0 if not known).
        :returns: lines that say what was found.
        """
        lines: Lines = []
        known = self._rows.sandboxes()
        for container_id in known:
            if container_id in live:
                lines += self._adopt(container_id, live[container_id])
            else:
                self.delete_sandbox(container_id)
                lines.append(f"released the network of container {container_id[:12]}, which does not run")
        lines += self._sweep(set(known))
        self._rebuild()
        return lines

    def shutdown(self) -> None:
        """Close what this process holds; running containers keep their networks and published ports."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._reaper.run()
        self._ports.close()
        self._nft.close()

    def teardown_all(self) -> None:
        """Remove everything of this instance from the host: sandboxes, bridges, table, pins."""
        for container_id in self._rows.sandboxes():
            self.delete_sandbox(container_id)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._reaper.run()
        for network in self._networks.values():
            self._drivers[network.driver].stop(network)
        with self._firewall_lock:
            self._firewall.remove()
        netns.remove_directory(self._netns)
        self._ports.close()
        self._nft.close()

    def settle(self) -> None:
        """Wait until interfaces of deleted sandboxes are gone, removing those that would stay."""
        self._reaper.run()

    # -- networks --------------------------------------------------------------------------------------

    def list(self) -> list[Network]:
        """Every network, oldest first."""
        return list(self._networks.values())

    def get(self, wanted: str) -> Network:
        """A network by its id, name (``default`` is ``bridge``), or unambiguous id prefix.

        :raises NotFound: none matches.
        :raises InvalidArgument: several ids start with it.
        """
        name = "bridge" if wanted == "default" else wanted
        for network in self._networks.values():
            if name in (network.id, network.name):
                return network
        found = [n for n in self._networks.values() if name and n.id.startswith(name)]
        if len(found) > 1:
            raise InvalidArgument(
                f"network {wanted} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {wanted} not found")
        return found[0]

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
    ) -> Sandbox:
        """Make a container's network: namespace, interfaces, addresses, routes, published ports. All or none.

        :param name: the container's name, for the words of errors. :param network_mode: a network's name
            or id, or ``default``. :param endpoints: what was asked of each network, by network.
        :param ports: published where the container has an address; without one (``none``) there is
            nothing to lead them to and they are left out, as Docker does.
        :param mac_address: of the first interface, unless its endpoint asks for one.
        :raises Conflict: the container has a sandbox; an address is taken.
        :raises InvalidArgument: a request that cannot be carried out as written.
        :raises Internal: a port is taken, or the host refuses.
        """
        path = self._pin(container_id)
        asked = requests.plan(network_mode, endpoints or {}, self.get)
        ids = [secrets.token_hex(32) for _ in asked]
        with ExitStack() as undo:
            # ports first: they fail most often, and nothing else has to be undone then
            wanted = ports if any(network.subnets for network, _ in asked) else ()
            published = self._hold(container_id, wanted, f"{name or container_id[:12]} ({ids[0]})")
            undo.callback(self._ports.release, container_id)
            attachments = self._record(container_id, asked, ids, published, mac_address)
            undo.callback(self._rows.delete_sandbox, container_id)
            undo.callback(self._let_go, path, attachments)
            sandbox.build(path, attachments)
            rows = self._rows.published(container_id=container_id) if published else []
            undo.callback(self._unpublish, rows)
            self._publish(rows)
            undo.pop_all()
        return Sandbox(container_id, path, tuple(a.endpoint for a in attachments), published)

    def delete_sandbox(self, container_id: str) -> None:
        """Release everything of a container's network. Idempotent; half-made ones are fine."""
        path = self._pin(container_id)
        if not self._rows.has_sandbox(container_id):
            netns.unpin(path)
            return
        with self._firewall_lock:
            self._leaving.add(container_id)
            self._firewall.unpublish(self._rows.published(container_id=container_id))
        try:
            self._let_go(path, self._attachments(container_id))
            self._rows.delete_sandbox(container_id)
            self._ports.release(container_id)
        finally:
            with self._firewall_lock:
                self._leaving.discard(container_id)

    def publish(
        self, container_id: str, wanted: Sequence[PortMapping], *, name: str = ""
    ) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container; all or none.

        :returns: what was published now.
        :raises InvalidArgument: it has no address of its own (``host``, ``none``), or a bad mapping.
        :raises Internal: a port is taken, or the host refuses.
        """
        endpoint = next((e for e in self.endpoints_of(container_id) if e.ip), None)
        if endpoint is None:
            raise InvalidArgument(f"cannot publish ports of container {name}: it has no address of its own")
        with ExitStack() as undo:
            held = self._reserve(container_id, wanted, f"{name} ({endpoint.id})")
            undo.callback(self._ports.release, container_id, held)
            rows = [_row(p, container_id, endpoint.ip) for p in held]
            self._rows.insert_published(rows)
            undo.callback(self._rows.delete_published, rows)
            undo.callback(self._unpublish, rows)
            self._publish(rows)
            undo.pop_all()
        return held

    def unpublish(self, container_id: str, ports: Sequence[PublishedPort]) -> None:
        """Take published ports back while the container runs; those that are not there are fine.

        Connections that stand are left alone.
        """
        rows = [r for r in self._rows.published(container_id=container_id) if _port(r) in ports]
        self._unpublish(rows)
        self._rows.delete_published(rows)
        self._ports.release(container_id, ports)

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The network of a container that runs (or starts), None for one that has none."""
        return self.sandboxes(container_id).get(container_id)

    def sandboxes(self, container_id: str | None = None) -> dict[str, Sandbox]:
        """All sandboxes (or the one of a container) by container id."""
        ids = self._rows.sandboxes() if container_id is None else [container_id]
        found: dict[str, tuple[list[Endpoint], list[PublishedPort]]] = {i: ([], []) for i in ids}
        if container_id is not None and not self._rows.has_sandbox(container_id):
            return {}
        for row in self._rows.endpoints(container_id=container_id):
            if row.container_id in found:
                found[row.container_id][0].append(_endpoint(row))
        for port in self._rows.published(container_id=container_id):
            if port.container_id in found:
                found[port.container_id][1].append(_port(port))
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
        return tuple(_endpoint(r) for r in self._rows.endpoints() if r.network_id == network_id)

    # -- parts of the above ----------------------------------------------------------------------------

    def _pin(self, container_id: str) -> Path:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise Internal(f"cannot find the network of container {container_id[:64]!r}: not an id")
        return self._netns / container_id

    def _load_networks(self) -> Lines:
        stored = {r.name: msgspec.json.decode(r.record, type=Network) for r in self._rows.networks()}
        with NetlinkSocket() as sock:
            present = {link.alias for link in links(sock)}
        in_use = {
            r.network_id for r in self._rows.endpoints() if self._instance.alias(r.container_id) in present
        }
        networks, lines = default_networks(
            self._instance, self._config, stored, in_use=in_use, used_subnets=used_subnets
        )
        with self._db.transaction():
            for network in networks:
                if network != stored.get(network.name):
                    record = msgspec.json.encode(network)
                    self._rows.put_network(
                        NetworkRow(network.id, network.name, network.driver, network.created, record)
                    )
        self._networks = {n.id: n for n in networks}
        return lines

    def _enable_forwarding(self) -> Lines:
        key = ("net", "ipv4", "ip_forward")
        try:
            before = sysctl.read(*key)
            if before != "0":
                return []
            if not self._config.ip_forward:
                return ["IPv4 forwarding is disabled: containers reach this host only"]
            sysctl.write("1", *key)
        except OSError as e:
            raise Internal(f"cannot enable IPv4 forwarding: {e.strerror or e}") from e
        return [f"set net.ipv4.ip_forward to 1 (it was {before}): this host forwards between its networks"]

    def _hold(
        self, container_id: str, wanted: Sequence[PortMapping], endpoint: str
    ) -> tuple[PublishedPort, ...]:
        if self._rows.has_sandbox(container_id):
            raise Conflict(f"cannot set up the network of container {container_id[:12]}: it has one")
        return self._reserve(container_id, wanted, endpoint)

    def _reserve(
        self, container_id: str, wanted: Sequence[PortMapping], endpoint: str
    ) -> tuple[PublishedPort, ...]:
        try:
            return self._ports.reserve(container_id, wanted)
        except Internal as e:
            raise Internal(
                f"driver failed programming external connectivity on endpoint {endpoint}: {e.message}"
            ) from e

    def _record(
        self,
        container_id: str,
        asked: Asked,
        ids: Sequence[str],
        published: Sequence[PublishedPort],
        mac_address: str,
    ) -> Attachments:
        """Choose the addresses and write the rows."""
        attachments: Attachments = []
        with self._db.transaction():
            if not self._rows.insert_sandbox(container_id, time.time_ns()):
                raise Conflict(f"cannot set up the network of container {container_id[:12]}: it has one")
            for position, (network, request) in enumerate(asked):
                mac = request.mac_address or (mac_address if position == 0 else "")
                endpoint = self._allocate(container_id, ids[position], network, request, mac, position)
                attachments.append(Attachment(network, self._drivers[network.driver], endpoint))
                record = msgspec.json.encode(endpoint)
                self._rows.insert_endpoint(
                    EndpointRow(endpoint.id, network.id, container_id, endpoint.ip or None, record)
                )
            if published:
                ip = next(a.endpoint.ip for a in attachments if a.endpoint.ip)
                self._rows.insert_published(_row(p, container_id, ip) for p in published)
        return attachments

    def _allocate(
        self,
        container_id: str,
        endpoint_id: str,
        network: Network,
        request: EndpointRequest,
        mac: str,
        position: int,
    ) -> Endpoint:
        common = Endpoint(
            id=endpoint_id, network_id=network.id, network_name=network.name, container_id=container_id
        )
        if not network.subnets:
            return common
        wanted = request.ipam_config.ipv4_address if request.ipam_config else ""
        ip = ipam.allocate(self._rows, network, wanted)
        return msgspec.structs.replace(
            common,
            ip=ip,
            prefix_len=int(network.subnets[0].cidr.rpartition("/")[2]),
            gateway=network.subnets[0].gateway,
            mac=ipam.check_mac(mac) if mac else ipam.mac_for(ip),
            ifname=f"eth{position}",
            host_ifname=f"veth{endpoint_id[:7]}",
            aliases=tuple(request.aliases or ()),
        )

    def _attachments(self, container_id: str) -> Attachments:
        found: Attachments = []
        for row in self._rows.endpoints(container_id=container_id):
            network = self._networks.get(row.network_id)
            if network is not None:
                found.append(Attachment(network, self._drivers[network.driver], _endpoint(row)))
        return found

    def _let_go(self, path: Path, attachments: Sequence[Attachment]) -> None:
        netns.unpin(path)
        for a in attachments:
            if a.endpoint.host_ifname:
                self._reaper.later(partial(a.driver.detach, a.network, a.endpoint))

    def _publish(self, rows: Sequence[PublishedRow]) -> None:
        if not rows:
            return
        with self._firewall_lock:
            try:
                self._firewall.publish(rows)
            except NftError:
                # the table is gone, or holds what no row knows: made anew it has these rows too
                self._rebuild()
        conntrack.forget_udp({r.host_port for r in rows if r.proto == "udp"})

    def _unpublish(self, rows: Sequence[PublishedRow]) -> None:
        with self._firewall_lock:
            self._firewall.unpublish(rows)

    def _rebuild(self) -> None:
        bridged = [
            Bridged(n.bridge_name, n.subnets[0].cidr, self._config.ip_masq)
            for n in self._networks.values()
            if n.bridge_name
        ]
        with self._firewall_lock:
            rows = [r for r in self._rows.published() if r.container_id not in self._leaving]
            self._firewall.rebuild(bridged, rows)

    def _table_deleted(self) -> None:
        """Runs on the watch's thread."""
        try:
            with self._firewall_lock:
                if table_exists(self._instance.table):
                    return
                self._rebuild()
        except (WherryError, OSError) as e:
            _log.error("the nft table %s was deleted and cannot be made anew: %s", self._instance.table, e)
        else:
            _log.warning("the nft table %s was deleted: made it anew", self._instance.table)

    def _adopt(self, container_id: str, pid: int) -> Lines:
        lines: Lines = []
        if not sandbox.repin(self._netns / container_id, pid):
            lines.append("its network namespace is not to be found")
        for a in self._attachments(container_id):
            if not a.driver.adopt(a.network, a.endpoint):
                lines.append(f"its interface on {a.network.name} is gone")
        lines += self._ports.adopt(
            container_id, [_port(r) for r in self._rows.published(container_id=container_id)]
        )
        return [f"container {container_id[:12]} runs, but {line}" for line in lines]

    def _sweep(self, known: set[str]) -> Lines:
        """Remove interfaces and pins of ours that belong to none of the containers ``known``."""
        lines: Lines = []
        for entry in sorted(self._netns.iterdir()):
            if entry.name not in known:
                netns.unpin(entry)
                lines.append(f"removed a network namespace without a container: {entry.name[:12]}")
        prefix = self._instance.alias_prefix
        try:
            with NetlinkSocket() as sock:
                for link in links(sock):
                    owner = link.alias.removeprefix(prefix)
                    if link.kind == "veth" and link.alias.startswith(prefix) and owner not in known:
                        sock.transact(delete_link(link.index))
                        lines.append(f"removed an interface without a container: {link.name}")
        except OSError as e:
            raise Internal(f"cannot remove leftover interfaces: {e.strerror or e}") from e
        return lines


def _endpoint(row: EndpointRow) -> Endpoint:
    return msgspec.json.decode(row.record, type=Endpoint)


def _row(port: PublishedPort, container_id: str, ip: str) -> PublishedRow:
    return PublishedRow(port.proto, port.host_ip, port.host_port, container_id, ip, port.container_port)


def _port(row: PublishedRow) -> PublishedPort:
    record = {
        "container_port": row.container_port,
        "proto": row.proto,
        "host_ip": row.host_ip,
        "host_port": row.host_port,
    }
    return msgspec.convert(record, PublishedPort)
