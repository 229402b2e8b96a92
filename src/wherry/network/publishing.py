"""Published ports and what keeps networks apart: rows, held host ports and the nft table, in step.

One lock is held while nftables changes: the table is rebuilt from rows, and must not bring back the ports
of a container that is just going away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.linux import conntrack, xfrm
from wherry.linux.nft import Nft, NftError, TableWatch, table_exists
from wherry.model import typed
from wherry.network import options, ruleset
from wherry.network.cluster import ipsec
from wherry.network.endpoints import gateway_of
from wherry.network.firewall import Bridged, FamilyRules, Firewall
from wherry.network.ports import HostPorts, Target
from wherry.network.relay import LOOPBACK6, Relay
from wherry.network.types import Endpoint, Instance, Network, NetworkConfig, PortMapping, PublishedPort
from wherry.state.networks import Networks, PublishedRow

_log = logging.getLogger(__name__)


def bridged(network: Network) -> Bridged:
    """A network with a bridge, as the firewall sees it."""
    opts = options.bridge(network.options) if network.driver == "bridge" else options.BridgeOptions()
    return Bridged(
        network.bridge_name,
        tuple(
            FamilyRules(
                s.cidr,
                opts.mode(s.family),
                opts.masquerade,
                opts.snat4 if s.family == 4 else opts.snat6,
            )
            for s in network.subnets
        ),
        internal=network.internal,
        icc=opts.icc,
        trusted=opts.trusted,
    )


class Publishing:
    """Safe to use from any thread.

    :param networks: those there are, by id. :param publishes: names of drivers whose containers can be
        published.
    """

    def __init__(
        self,
        rows: Networks,
        instance: Instance,
        config: NetworkConfig,
        networks: Callable[[], Mapping[str, Network]],
        publishes: Iterable[str],
    ) -> None:
        self._rows = rows
        self._table = instance.table
        self._default_ip = config.host_ip
        self._networks = networks
        self._publishes = frozenset(publishes)
        self._nft = Nft()
        self._firewall = Firewall(instance, self._nft, obey_host=config.obey_host_firewall)
        self._lock = threading.RLock()
        self._leaving: set[str] = set()
        self._relay = Relay(self._lead_to)
        self._ports = HostPorts(self._relay)
        self._sealed = 0
        self._watch: TableWatch | None = None

    # -- the table -------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Restore the table from now on whenever something changes it."""
        if self._watch is None:
            self._watch = TableWatch(self._table, self._table_changed)

    def drops_of_others(self) -> list[str]:
        return self._firewall.drops_of_others()

    def rebuild(self, *, missing: bool = False, without: str = "") -> None:
        """Make the table anew from rows. :param without: the id of a network that goes.

        :raises Internal: the kernel refused, with nft's words.
        """
        networks = [bridged(n) for n in self._networks().values() if n.bridge_name and n.id != without]
        with self._lock:
            by_container: dict[str, list[PublishedRow]] = {}
            for row in self._rows.published():
                if row.container_id not in self._leaving:
                    by_container.setdefault(row.container_id, []).append(row)
            sealed = self._sealed_port(without)
            self._firewall.rebuild(networks, by_container.values(), sealed=sealed, missing=missing)
            self._sealed = sealed

    def add_network(self, network: Network) -> None:
        """Keep a new network apart from the others. :raises Internal: the kernel refused."""
        with self._lock:
            if self._sealed_port() != self._sealed:
                self.rebuild()
            else:
                self._change({}, ruleset.of_network(bridged(network)))

    def remove_network(self, network: Network) -> None:
        with self._lock:
            self._firewall.remove_elements(ruleset.of_network(bridged(network)))
            if self._sealed_port(network.id) != self._sealed:
                self.rebuild(without=network.id)

    def _sealed_port(self, without: str = "") -> int:
        """The port of encrypted overlay networks, while there is one. A kernel without IPsec has none, and
        would refuse a table that speaks of it."""
        some = any(ipsec.wanted(n) for n in self._networks().values() if n.id != without)
        return ipsec.PORT if some and xfrm.available() else 0

    def _change(self, before: ruleset.Elements, after: ruleset.Elements) -> None:
        try:
            self._firewall.change(before, after)
        except NftError:
            # the table is gone, or holds what no row knows: made anew it has these rows too
            self.rebuild()

    def _table_changed(self, generation: int | None) -> None:
        """Runs on the watch's thread. Every transaction of ours is made with the lock held."""
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

    def target(self, endpoints: Sequence[Endpoint]) -> Target:
        """Where ports of a container with these endpoints lead: the endpoints it reaches everybody by."""
        able = [e for e in endpoints if self._can_publish(e)]
        by4, by6 = gateway_of(able, 4), gateway_of(able, 6)
        if by4 is None and by6 is None:
            return Target()
        opts4, opts6 = self._options(by4), self._options(by6)
        return Target(
            ip4=by4.ip if by4 is not None else "",
            ip6=by6.ip6 if by6 is not None else "",
            binding=opts4.host_binding or self._default_ip,
            routed4=opts4.mode4 == "routed",
            routed6=opts6.mode6 == "routed",
        )

    def _can_publish(self, endpoint: Endpoint) -> bool:
        network = self._networks().get(endpoint.network_id)
        return network is not None and network.driver in self._publishes and not network.internal

    def _options(self, endpoint: Endpoint | None) -> options.BridgeOptions:
        network = self._networks().get(endpoint.network_id) if endpoint is not None else None
        if network is None or network.driver != "bridge":
            return options.BridgeOptions()
        return options.bridge(network.options)

    def _lead_to(self, host_port: int) -> tuple[str, int] | None:
        """Where a connection of this host's to ``[::1]:<host_port>`` goes. Runs on the relay's thread."""
        row = self._rows.published_at("tcp", (LOOPBACK6, ruleset.ANY6), host_port)
        return (row.ip, row.container_port) if row is not None else None

    def hold(
        self, container_id: str, wanted: Sequence[PortMapping], target: Target, endpoint: str
    ) -> list[PublishedRow]:
        """Hold host ports for a container; the caller writes the rows, or :meth:`release`s them.

        :param endpoint: for the words of an error. :raises Internal: a port is taken.
        :raises InvalidArgument: a mapping that makes no sense, or not for this container.
        """
        if not (target.ip4 or target.ip6):
            return []
        try:
            held = self._ports.reserve(container_id, wanted, target)
        except Internal as e:
            raise Internal(
                f"driver failed programming external connectivity on endpoint {endpoint}: {e.message}"
            ) from e
        return [row_of(p, container_id, target.to(p.host_ip)) for p in held]

    def release(self, container_id: str, rows: Sequence[PublishedRow] | None = None) -> None:
        """Let go of held ports, all of a container's without ``rows``."""
        self._ports.release(container_id, None if rows is None else [port_of(r) for r in rows])

    def adopt(self, container_id: str) -> list[str]:
        """Hold a running container's ports again. :returns: what could not be, in words."""
        rows = self._rows.published(container_id=container_id)
        own = [r.ip for r in rows]
        return self._ports.adopt(container_id, [port_of(r) for r in rows], own)

    def open(self, rows: Sequence[PublishedRow]) -> None:
        """Lead packets to ports that have rows."""
        if not rows:
            return
        with self._lock:
            self._change({}, ruleset.of_ports(rows))
        conntrack.forget_udp({r.host_port for r in rows if r.proto == "udp"})

    def shut(self, container_id: str, rows: Sequence[PublishedRow]) -> None:
        """Lead packets to them no more; the rows may still be there."""
        if rows:
            with self._lock:
                self._firewall.remove_elements(ruleset.of_ports(rows))

    @contextmanager
    def leaving(self, container_id: str) -> Iterator[None]:
        """A container goes: its ports lead nowhere from now on, whatever the rows say meanwhile."""
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

        :raises InvalidArgument: nothing of it can be published. :raises Internal: a port is taken.
        """
        target = self.target(endpoints)
        if not (target.ip4 or target.ip6):
            raise InvalidArgument(f"cannot publish ports of container {name}: it has no address of its own")
        with ExitStack() as undo:
            rows = self.hold(container_id, wanted, target, f"{name} ({endpoints[0].id})")
            undo.callback(self.release, container_id, rows)
            self._replace(container_id, [], rows)
            undo.pop_all()
        return tuple(port_of(r) for r in rows)

    def unpublish(self, container_id: str, ports: Sequence[PublishedPort]) -> None:
        """Take published ports back while the container runs; those that are not there are fine.

        Connections that stand are left alone.
        """
        gone = [r for r in self._rows.published(container_id=container_id) if port_of(r) in ports]
        if gone:
            self._replace(container_id, gone, [])
            self.release(container_id, gone)

    def lead(self, container_id: str, endpoints: Sequence[Endpoint]) -> None:
        """Lead a running container's ports to the addresses it has now; those it has none for are shut."""
        target = self.target(endpoints)
        before = self._rows.published(container_id=container_id)
        gone, moved = [], []
        for row in before:
            ip = target.to(row.host_ip)
            if not ip or (row.host_ip == row.ip and row.ip != ip):
                gone.append(row)  # it opened a port of the address that has gone
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
        self._replace(container_id, [*gone, *moved], after)
        self.release(container_id, gone)
        conntrack.forget_udp({r.host_port for r in after if r.proto == "udp"})

    def _replace(self, container_id: str, gone: Sequence[PublishedRow], new: Sequence[PublishedRow]) -> None:
        """Rows and elements in one step. Ports in a row that stay what they are are one element, so that such
        a row concerns its neighbours; every other is an element of its own."""
        kept = any(r.host_port == r.container_port for r in (*gone, *new))
        with self._lock, self._rows.db.transaction():
            before = self._rows.published(container_id=container_id, kept=True) if kept else []
            self._rows.delete_published(gone)
            self._rows.insert_published(new)
            after = self._rows.published(container_id=container_id, kept=True) if kept else []
            before += [r for r in gone if r.host_port != r.container_port]
            after += [r for r in new if r.host_port != r.container_port]
            self._change(ruleset.of_ports(before), ruleset.of_ports(after))
        conntrack.forget_udp({r.host_port for r in new if r.proto == "udp"})


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
