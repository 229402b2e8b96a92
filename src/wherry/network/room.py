"""The room of networks, put together: its parts, its two managers, start and stop.

    NetworkManager    SandboxManager    BuildNetwork
              NetworkParts: rows, catalog, drivers, publishing, dns, …

What a killed daemon left is found by its row, its mark (``ownership``) or its file below ``<run>/netns``, and
is removed by :meth:`NetworkRoom.restore`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wherry.errors import Internal, Unavailable, WherryError
from wherry.linux import netns
from wherry.linux.plugins import Plugins
from wherry.mishaps import contained
from wherry.network import ipam, sandbox
from wherry.network.builds import BuildNetwork
from wherry.network.catalog import Catalog
from wherry.network.defaultbridge import Surrounding, host_bridge
from wherry.network.defaults import default_networks
from wherry.network.dns.server import DnsServer
from wherry.network.drivers.bridge import occupied
from wherry.network.drivers.builtin import Drivers, Makings, built_in
from wherry.network.hostsetup import HostSetup, collisions
from wherry.network.manager import NetworkManager
from wherry.network.ownership import Marks
from wherry.network.parts import NetworkParts
from wherry.network.publishing import Publishing
from wherry.network.sandboxes import SandboxManager
from wherry.network.types import Endpoint, Instance, Network, NetworkConfig
from wherry.state.database import Database
from wherry.state.networks import Networks

_log = logging.getLogger(__name__)
Lines = list[str]


def wire(
    db: Database,
    run: Path,
    *,
    instance: Instance,
    config: NetworkConfig | None = None,
    plugins: Plugins | None = None,
) -> NetworkRoom:
    """:param run: namespaces are pinned in ``<run>/netns``. :param plugins: None: those in Docker's
        directories.
    :raises InvalidArgument: an invalid configuration.
    """
    config, plugins = config or NetworkConfig(), plugins or Plugins()
    rows = Networks(db)
    catalog = Catalog(rows)
    drivers = Drivers(built_in(Makings(instance, config, rows, catalog)), plugins)
    parts = NetworkParts(
        instance=instance,
        config=config,
        pins=run / "netns",
        rows=rows,
        catalog=catalog,
        drivers=drivers,
        plugins=plugins,
        publishing=Publishing(rows, instance, config, catalog.all, drivers),
        dns=DnsServer(catalog.all, config.host_gateway_ip),
        host=HostSetup(instance, config, catalog),
        marks=Marks(instance, run / "netns"),
        reaper=sandbox.Reaper(),
    )
    networks = NetworkManager(parts)
    return NetworkRoom(networks, SandboxManager(parts), BuildNetwork(parts, networks), parts)


@dataclass(frozen=True)
class _Acts:
    """Acts on what other hosts publish (``drivers.Listener``)."""

    publishing: Publishing
    dns: DnsServer

    def appeared(self, network: Network) -> None:
        self.publishing.add_network(network)

    def vanished(self, network: Network) -> None:
        self.publishing.remove_network(network)

    def moved(self, new: Sequence[Endpoint], gone: Sequence[Endpoint]) -> None:
        self.dns.remote(new, gone)


@dataclass(frozen=True)
class NetworkRoom:
    """The managers, and the methods that start and stop everything."""

    networks: NetworkManager
    sandboxes: SandboxManager
    builds: BuildNetwork
    parts: NetworkParts

    def start(self) -> Lines:
        """Make the networks real: rows, bridges, nft table, kernel parameters. Idempotent.

        :returns: lines that say what was changed on the host, and which networks could not be made.
        :raises Internal: the host refuses, with the reason. :raises Conflict: another daemon has this
            instance.
        """
        parts = self.parts
        parts.marks.claim()
        try:
            netns.prepare_directory(parts.pins)
        except OSError as e:
            raise Internal(f"cannot prepare {parts.pins}: {e.strerror or e}") from e
        # first, because devices of networks without rows still occupy subnets and names
        parts.catalog.load()
        with parts.marks.one_look():
            lines = parts.marks.remove_networks(parts.catalog.all())
            strays = bool(lines)
            lines += self._load_networks()
        networks = list(parts.catalog.all().values())
        for network in networks:
            with contained(f"make network {network.name}"):
                lines += self._start_network(network)
        lines += parts.host.enable_forwarding(ipv6=any(n.enable_ipv6 for n in networks))
        for driver in parts.drivers.built_in.values():
            try:
                driver.sweep([n for n in networks if n.driver == driver.name], strays=strays)
            except WherryError as e:
                lines.append(e.message)
        parts.publishing.rebuild()
        lines += [
            f"chain {chain} of the host drops forwarded packets: containers reach other hosts, and other "
            f"hosts their ports, only as far as it lets interface {parts.instance.bridge} through"
            for chain in parts.publishing.drops_of_others()
        ]
        parts.dns.start()
        parts.publishing.watch()
        parts.host.watch_routes()
        for line in lines:
            _log.info("%s", line)
        return lines

    def _load_networks(self) -> Lines:
        parts, catalog = self.parts, self.parts.catalog
        stored = {n.name: n for n in catalog.all().values()}
        host = host_bridge(parts.config.bridge)
        ours = parts.marks.indexes() | ({host.index} if host is not None else set())
        others = occupied(besides=ours)
        before = stored.get("bridge")
        in_use = before is not None and before.id in parts.marks.networks_in_use(parts.rows.endpoints())
        around = Surrounding(
            in_use, {subnet for subnet, _ in others}, catalog.taken(), ipam.local_pool(parts.rows.db)
        )
        networks, lines = default_networks(parts.instance, parts.config, stored, host=host, around=around)
        self._leave_bridge(before, networks)
        for network in networks:
            if network != stored.get(network.name):
                catalog.put(network)
        behind = [n for n in catalog.all().values() if self._is_behind(n)]
        return lines + collisions(behind, others)

    def _leave_bridge(self, before: Network | None, networks: Sequence[Network]) -> None:
        """Remove the default bridge's interface if from now on another bridge is the default one, or none."""
        now = next((n for n in networks if n.name == "bridge"), None)
        if before is None or (now is not None and now.bridge_name == before.bridge_name):
            return
        self.parts.drivers.of(before).stop(before)
        if now is None:
            self.parts.catalog.remove(before)

    def _is_behind(self, network: Network) -> bool:
        """Whether this host routes to its subnets;
        it does not if they belong to a network that the host is on."""
        driver = self.parts.drivers.own(network)
        return driver is not None and not network.hidden and driver.bridged(network) is not None

    def _start_network(self, network: Network) -> Lines:
        if network.config_only or network.hidden:
            return []
        drivers = self.parts.drivers
        try:
            drivers.of(network).start(network)
        except WherryError as e:
            if network.predefined:
                raise
            driver = drivers.own(network)
            if driver is not None:
                driver.sharing.retry(network.id)
            return [f"network {network.name} is not there: {e.message}"]
        return []

    def restore(self, live: Mapping[str, int]) -> Lines:
        """:meth:`take_over`, and then all that is left to do for each running container."""
        return self.take_over(live) + [line for one in live for line in self.sandboxes.resume(one)]

    def take_over(self, live: Mapping[str, int]) -> Lines:
        """After a restart: keep the sandboxes of running containers, and release everything else that is
        ours. Names, addresses and ports are as before then; the rest is done by ``sandboxes.resume``.

        :param live: container id -> pid of its first process (0 if not known).
        :returns: lines that say what was found.
        """
        parts = self.parts
        lines: Lines = []
        known = [row.container_id for row in parts.rows.sandboxes()]
        for container_id in known:
            with contained(f"restore the network of container {container_id[:12]}"):
                if container_id in live:
                    lines += self.sandboxes.adopt(container_id, live[container_id])
                else:
                    self.sandboxes.delete(container_id)
                    lines.append(f"released the network of container {container_id[:12]}, which does not run")
        lines += parts.marks.sweep(set(known))
        self.builds.drop()  # builds end with the daemon; the next one chooses a subnet that is free then
        parts.publishing.rebuild()
        for driver in parts.drivers.built_in.values():
            driver.sharing.start(_Acts(parts.publishing, parts.dns))
        return lines

    def settle(self) -> None:
        """Wait until interfaces of deleted sandboxes are gone; remove those that stay."""
        self.parts.reaper.run()

    def shutdown(self) -> None:
        """Close this process's resources; running containers keep their networks and published ports."""
        self._halt()
        self.parts.publishing.close()
        self.parts.marks.release()

    def _halt(self) -> None:
        """Stop all threads, so that nothing changes any more."""
        for driver in self.parts.drivers.built_in.values():
            driver.sharing.close()
        self.parts.host.close()
        self.sandboxes.close()
        self.parts.dns.close()
        self.parts.publishing.unwatch()
        self.parts.reaper.run()

    def teardown(self) -> None:
        """Remove everything of this instance from the host: what has rows, and what has only its mark.

        :raises Conflict: another daemon has this instance.
        :raises Unavailable: something is left; the text names it.
        """
        parts = self.parts
        parts.marks.claim()
        parts.catalog.load()
        failures = []
        for step in self._teardown_steps():
            try:
                step()
            except (WherryError, OSError) as e:
                failures.append(str(e))
        left = parts.marks.remaining()
        left += [line for driver in parts.drivers.built_in.values() for line in driver.remains()]
        parts.marks.release()
        if left:
            reasons = f" ({'; '.join(failures)})" if failures else ""
            raise Unavailable(f"cannot remove everything from the host: {', '.join(left)} left{reasons}")

    def _teardown_steps(self) -> Iterator[Callable[[], object]]:
        parts = self.parts
        for row in parts.rows.sandboxes():
            yield partial(self.sandboxes.delete, row.container_id)
        yield self._halt
        for network in parts.catalog.all().values():
            if not network.config_only and parts.drivers.has(network):
                yield partial(parts.drivers.of(network).stop, network)
        yield partial(parts.marks.remove_networks, ())
        yield partial(parts.marks.sweep, ())
        for driver in parts.drivers.built_in.values():
            yield partial(driver.sweep, (), strays=True)
        yield parts.publishing.remove_table
        yield partial(netns.remove_directory, parts.pins)
        yield parts.publishing.close
