"""Published ports and the isolation of networks: keeps rows, held host ports and the nft table consistent.

One lock is held while the table changes: a rebuild from rows must not bring back the ports of a container
that is just being removed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.linux import conntrack, xfrm
from wherry.linux.nft import Nft, NftError, TableWatch, table_exists
from wherry.model import typed
from wherry.network import ruleset, takeover
from wherry.network.cluster import ipsec
from wherry.network.drivers.builtin import Drivers
from wherry.network.endpoints import gateway_of
from wherry.network.firewall import Bridged, Firewall
from wherry.network.ports import HostPorts, PortTarget, check_mapping
from wherry.network.relay import Relay
from wherry.network.types import (
    LOOPBACK6,
    Endpoint,
    Instance,
    Network,
    NetworkConfig,
    PortMapping,
    PublishedPort,
)
from wherry.state.networks import Networks, PublishedRow

_log = logging.getLogger(__name__)


class Publishing:
    """Safe to use from any thread.

    :param networks: the existing networks, by id.
    """

    def __init__(
        self,
        rows: Networks,
        instance: Instance,
        config: NetworkConfig,
        networks: Callable[[], Mapping[str, Network]],
        drivers: Drivers,
    ) -> None:
        self._rows = rows
        self._table = instance.table
        self._default_ip = config.host_ip
        self._networks = networks
        self._drivers = drivers
        self._nft = Nft()
        self._firewall = Firewall(instance, self._nft, obey_host=config.obey_host_firewall)
        self._lock = threading.RLock()
        self._leaving: set[str] = set()
        self._relay = Relay(self._lead_to)
        self._ports = HostPorts()
        self._sealed = 0
        self._relayed = False
        """Whether the table redirects connections to the relay."""
        self._watch: TableWatch | None = None

    # -- the table -------------------------------------------------------------------------------------

    def watch(self) -> None:
        """From now on, restore the table whenever another program changes it."""
        if self._watch is None:
            self._watch = TableWatch(self._table, self._table_changed)

    def drops_of_others(self) -> list[str]:
        return self._firewall.drops_of_others()

    def rebuild(self, *, missing: bool = False, without: str = "") -> None:
        """Rebuild the table from rows. :param without: the id of a network that is being removed.

        :raises Internal: the kernel refused, with nft's message.
        """
        networks = [b for n in self._networks().values() if n.id != without and (b := self._bridged(n))]
        with self._lock:
            by_container: dict[str, list[PublishedRow]] = {}
            for row in self._rows.published():
                if row.container_id not in self._leaving:
                    by_container.setdefault(row.container_id, []).append(row)
            sealed = self._sealed_port(networks)
            relay = self._relay_port(chain.from_iterable(by_container.values()))
            self._firewall.rebuild(
                networks, by_container.values(), sealed=sealed, relay=relay, missing=missing
            )
            self._sealed, self._relayed = sealed, bool(relay)

    def add_network(self, network: Network) -> None:
        """Isolate a new network from the others. :raises Internal: the kernel refused."""
        found = self._bridged(network)
        if found is None:
            return
        with self._lock:
            if found.sealed and not self._sealed:
                self.rebuild()
            else:
                self._change({}, ruleset.of_network(found))

    def remove_network(self, network: Network) -> None:
        found = self._bridged(network)
        if found is None:
            return
        with self._lock:
            self._firewall.remove_elements(ruleset.of_network(found))
            if found.sealed:
                self.rebuild(without=network.id)

    def _bridged(self, network: Network) -> Bridged | None:
        driver = self._drivers.own(network)
        return driver.bridged(network) if driver is not None else None

    @staticmethod
    def _sealed_port(networks: Iterable[Bridged]) -> int:
        """The port of encrypted overlay networks, if there is such a network. A kernel without IPsec has
        none, and would reject a table that mentions it."""
        return ipsec.PORT if any(b.sealed for b in networks) and xfrm.available() else 0

    def _relay_port(self, rows: Iterable[PublishedRow]) -> int:
        """The port of the relay for ``::1``. It starts with the first published port that needs it."""
        if self._relay.port or not any(r.proto == "tcp" and r.host_ip in ruleset.RELAYED for r in rows):
            return self._relay.port
        try:
            return self._relay.listen()
        except OSError as e:
            _log.warning("published ports are not reachable by %s: %s", LOOPBACK6, e.strerror or e)
            return 0

    def _change(self, before: ruleset.Elements, after: ruleset.Elements) -> None:
        if "relayed" in after and not self._relayed:
            self.rebuild()
            return
        try:
            self._firewall.change(before, after)
        except NftError:
            # the table is gone, or has unknown elements: a rebuild includes these rows too
            self.rebuild()

    def _table_changed(self, generation: int | None) -> None:
        """Runs on the watch's thread. The lock is held during every transaction of our own."""
        try:
            with self._lock:
                if generation is not None and self._nft.made(generation):
                    return
                gone = not table_exists(self._table)
                if generation is None and not gone:
                    return
                self.rebuild(missing=gone)
        except (WherryError, OSError) as e:
            _log.error("the nft table %s was changed and cannot be made anew: %s", self._table, e)
        else:
            what = "deleted" if gone else "changed"
            _log.warning("the nft table %s was %s by another program: made it anew", self._table, what)

    def close(self) -> None:
        self.unwatch()
        self._ports.close()
        self._relay.close()
        self._nft.close()

    def unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def remove_table(self) -> None:
        with self._lock:
            self._firewall.remove()

    # -- ports -----------------------------------------------------------------------------------------

    def target(self, endpoints: Sequence[Endpoint]) -> PortTarget:
        """Where ports of a container with these endpoints lead: to the endpoints with its default routes."""
        able = [e for e in endpoints if self._can_publish(e)]
        by4, by6 = gateway_of(able, 4), gateway_of(able, 6)
        if by4 is None and by6 is None:
            return PortTarget()
        of4, of6 = self._behind(by4), self._behind(by6)
        return PortTarget(
            ip4=by4.ip if by4 is not None else "",
            ip6=by6.ip6 if by6 is not None else "",
            binding=(of4.binding if of4 is not None else "") or self._default_ip,
            routed4=of4 is not None and of4.routed(4),
            routed6=of6 is not None and of6.routed(6),
        )

    def _can_publish(self, endpoint: Endpoint) -> bool:
        network = self._networks().get(endpoint.network_id)
        able = network is not None and self._drivers.traits(network.driver).publishes
        return able and network is not None and not network.internal

    def _behind(self, endpoint: Endpoint | None) -> Bridged | None:
        network = self._networks().get(endpoint.network_id) if endpoint is not None else None
        return self._bridged(network) if network is not None else None

    def _lead_to(self, host_port: int) -> tuple[str, int] | None:
        """Where a connection from this host to ``[::1]:<host_port>`` goes. Runs on the relay's thread."""
        row = self._rows.published_at("tcp", (LOOPBACK6, ruleset.ANY6), host_port)
        return (row.ip, row.container_port) if row is not None else None

    def hold(
        self, container_id: str, wanted: Sequence[PortMapping], target: PortTarget, endpoint: str
    ) -> list[PublishedRow]:
        """Hold host ports for a container. The caller then writes the rows, or calls :meth:`release`.

        :param endpoint: for error messages. :raises Internal: a port is taken.
        :raises InvalidArgument: an invalid mapping, or not possible for this container.
        """
        if not (target.ip4 or target.ip6):
            return []
        try:
            held = self._ports.reserve(container_id, wanted, target)
        except Internal as e:
            e.args = (f"driver failed programming external connectivity on endpoint {endpoint}: {e.message}",)
            raise
        return [row_of(p, container_id, target.to(p.host_ip)) for p in held]

    def release(self, container_id: str, rows: Sequence[PublishedRow] | None = None) -> None:
        """Release held ports; without ``rows`` all of the container's."""
        self._ports.release(container_id, None if rows is None else [port_of(r) for r in rows])

    def adopt(self, container_id: str) -> list[str]:
        """Hold a running container's ports again. :returns: lines that say what failed."""
        rows = self._rows.published(container_id=container_id)
        own = [r.ip for r in rows]
        return self._ports.adopt(container_id, [port_of(r) for r in rows], own)

    def open(self, rows: Sequence[PublishedRow]) -> None:
        """Forward packets to ports that have rows."""
        if not rows:
            return
        with self._lock:
            self._change({}, ruleset.of_ports(rows))
        conntrack.forget_udp({r.host_port for r in rows if r.proto == "udp"})

    def shut(self, container_id: str, rows: Sequence[PublishedRow]) -> None:
        """Stop forwarding packets to them; their rows may still exist."""
        if rows:
            with self._lock:
                self._firewall.remove_elements(ruleset.of_ports(rows))

    @contextmanager
    def leaving(self, container_id: str) -> Iterator[None]:
        """The container is being removed: from now on its ports are not forwarded, whatever the rows say."""
        with self._lock:
            self._leaving.add(container_id)
            self.shut(container_id, self._rows.published(container_id=container_id))
        try:
            yield
        finally:
            with self._lock:
                self._leaving.discard(container_id)

    def publish(
        self, container_id: str, wanted: Sequence[PortMapping], endpoints: Sequence[Endpoint], name: str
    ) -> tuple[PublishedPort, ...]:
        """Publish more ports of a running container; all or none.

        :raises InvalidArgument: none of them can be published. :raises Internal: a port is taken.
        """
        target = self.target(endpoints)
        if not (target.ip4 or target.ip6):
            raise InvalidArgument(f"cannot publish ports of container {name}: it has no address of its own")
        with ExitStack() as undo:
            rows = self.hold(container_id, wanted, target, f"{name} ({endpoints[0].id})")
            undo.callback(self.release, container_id, rows)
            self._replace([container_id], [], rows)
            undo.pop_all()
        return tuple(port_of(r) for r in rows)

    def unpublish(self, container_id: str, ports: Sequence[PublishedPort]) -> None:
        """Stop publishing ports of a running container; missing ones are no error.

        Established connections are not cut.
        """
        gone = [r for r in self._rows.published(container_id=container_id) if port_of(r) in ports]
        if gone:
            self._replace([container_id], gone, [])
            self.release(container_id, gone)

    def lead(self, container_id: str, endpoints: Sequence[Endpoint]) -> None:
        """Forward a running container's ports to its present addresses; close those without an address."""
        target = self.target(endpoints)
        before = self._rows.published(container_id=container_id)
        gone, moved = [], []
        for row in before:
            ip = target.to(row.host_ip)
            if not ip or (row.host_ip == row.ip and row.ip != ip):
                gone.append(row)  # it opened a port of an address that is gone
            elif ip != row.ip:
                moved.append(row)
        if not gone and not moved:
            return
        after = [
            PublishedRow(
                r.proto, r.host_ip, r.host_port, r.container_id, target.to(r.host_ip), r.container_port,
                r.sources,
            )
            for r in moved
        ]  # fmt: skip
        self._replace([container_id], [*gone, *moved], after)
        self.release(container_id, gone)
        conntrack.forget_udp({r.host_port for r in after if r.proto == "udp"})

    def take_over(
        self, taker: str, wanted: Sequence[PortMapping], endpoints: Sequence[Endpoint], name: str, giver: str
    ) -> tuple[PublishedPort, ...]:
        """Publish a running container's ports; those that another one holds now come from it.

        A packet finds the one or the other, never neither. Established connections stay where they are.
        :param giver: empty: nobody gives any. Ports that are not asked for stay with it.
        :raises InvalidArgument: an invalid mapping. :raises Internal: a further port is taken; nothing has
            changed.
        """
        for mapping in wanted:
            check_mapping(mapping)
        target = self.target(endpoints)
        if not wanted or not (target.ip4 or target.ip6):
            return ()
        with ExitStack() as undo, self._lock:
            # a port that is opened in mode ``routed`` is at the giver's own address: nobody can take it
            rows = [r for r in self._rows.published(container_id=giver) if r.host_ip != r.ip] if giver else []
            moves = takeover.plan([port_of(r) for r in rows], wanted, target)
            gone = [r for r in rows if port_of(r) in moves.given]
            new = [row_of(p, taker, target.to(p.host_ip)) for p in moves.taken]
            undo.callback(self._hold_for, taker, moves.taken, giver, moves.given)
            self._hold_for(giver, moves.given, taker, moves.taken)
            undo.callback(self._replace, (giver, taker), new, gone)
            self._replace((giver, taker), gone, new)
            added = self.publish(taker, moves.rest, endpoints, name) if moves.rest else ()
            undo.pop_all()
        return (*moves.taken, *added)

    def _hold_for(
        self, giver: str, given: Sequence[PublishedPort], taker: str, taken: Sequence[PublishedPort]
    ) -> None:
        for line in self._ports.hand_over(giver, given, taker, taken):
            _log.warning("container %s: %s", taker[:12], line)

    def _replace(
        self, containers: Sequence[str], gone: Sequence[PublishedRow], new: Sequence[PublishedRow]
    ) -> None:
        """Replace rows and elements of these containers in one step. Consecutive ports that are not
        renumbered form one element, so a change of one row affects its neighbours. Every other port is an
        element of its own."""
        kept = any(r.host_port == r.container_port for r in (*gone, *new))
        with self._lock:
            with self._rows.db.transaction():
                before = self._kept_of(containers) if kept else []
                self._exchange(gone, new)
                after = self._kept_of(containers) if kept else []
            before += [r for r in gone if r.host_port != r.container_port]
            after += [r for r in new if r.host_port != r.container_port]
            try:
                self._change(ruleset.of_ports(before), ruleset.of_ports(after))
            except BaseException:
                with self._rows.db.transaction():
                    self._exchange(new, gone)
                raise
        conntrack.forget_udp({r.host_port for r in new if r.proto == "udp"})

    def _kept_of(self, containers: Sequence[str]) -> list[PublishedRow]:
        return [row for one in containers for row in self._rows.published(container_id=one, kept=True)]

    def _exchange(self, gone: Sequence[PublishedRow], new: Sequence[PublishedRow]) -> None:
        self._rows.delete_published(gone)
        self._rows.insert_published(new)


def row_of(port: PublishedPort, container_id: str, ip: str) -> PublishedRow:
    return PublishedRow(
        port.proto,
        port.host_ip,
        port.host_port,
        container_id,
        ip,
        port.container_port,
        ",".join(port.sources),
    )


def port_of(row: PublishedRow) -> PublishedPort:
    record = {
        "container_port": row.container_port,
        "proto": row.proto,
        "host_ip": row.host_ip,
        "host_port": row.host_port,
        "sources": tuple(filter(None, row.sources.split(","))),
    }
    return typed.from_builtins(record, PublishedPort)
