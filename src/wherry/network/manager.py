"""Networks, and the sandboxes of containers on them: the face of this room.

What a killed daemon left is found by its row, by the alias of its interface or by its file below
``<run>/netns``, and removed by :meth:`NetworkManager.restore`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path

import msgspec

from wherry.errors import Forbidden, Internal, InvalidArgument, WherryError
from wherry.linux import netns
from wherry.linux.plugins import Plugins
from wherry.network import create, hostsetup, ipam
from wherry.network import plugins as remote
from wherry.network.catalog import Catalog
from wherry.network.cluster import ipsec
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.create import NetworkRequest, Surroundings
from wherry.network.defaults import default_networks
from wherry.network.dns.server import DnsServer
from wherry.network.drivers import Driver
from wherry.network.drivers.bridge import BridgeDriver, used_subnets
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.drivers.overlay import OverlayDriver
from wherry.network.drivers.vlans import IpvlanDriver, MacvlanDriver
from wherry.network.overlays import Overlays, host_id
from wherry.network.plugins.ipam import RemoteIpam
from wherry.network.publishing import Publishing
from wherry.network.sandboxes import Sandboxes
from wherry.network.types import DHCP, Endpoint, Instance, Network, NetworkConfig
from wherry.state.database import Database
from wherry.state.meta import Meta
from wherry.state.networks import Networks

_log = logging.getLogger(__name__)
Lines = list[str]
Peers = list[tuple[str, str]]


class NetworkManager(Sandboxes):
    """Safe to use from any thread, all of which must be in the host's network and mount namespace."""

    def __init__(
        self,
        *,
        db: Database,
        run: Path,
        instance: str = "default",
        config: NetworkConfig | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        """:param run: namespaces are pinned in ``<run>/netns``. :param instance: as in ``types.Instance``.
        :param plugins: None for those in Docker's places.
        """
        self._instance = Instance(instance)
        self._config = config or NetworkConfig()
        rows = Networks(db)
        catalog = Catalog(rows)
        cluster = self._config.cluster
        host = host_id(Meta(db).set_default("cluster_host", secrets.token_hex(16))) if cluster else ""
        self._ipsec = Ipsec(self._instance, host, cluster.advertise, rekey=cluster.rekey) if cluster else None
        overlay = OverlayDriver(self._instance, cluster.advertise if cluster else "", self._ipsec)
        drivers: dict[str, Driver] = {
            d.name: d
            for d in (
                BridgeDriver(self._instance, self._config.mtu),
                HostDriver(),
                NoneDriver(),
                MacvlanDriver(self._instance),
                IpvlanDriver(self._instance),
                overlay,
            )
        }
        publishes = [name for name, driver in drivers.items() if driver.publishes]
        publishing = Publishing(rows, self._instance, self._config, catalog.all, publishes)
        dns = DnsServer(catalog.all, self._config.host_gateway_ip)
        super().__init__(rows, run / "netns", catalog, drivers, publishing, dns, plugins or Plugins())
        self._host = hostsetup.HostSetup(self._instance, self._config, catalog)
        if cluster is not None and self._ipsec is not None:
            self._overlays = Overlays(
                cluster,
                host_id=host,
                rows=rows,
                catalog=catalog,
                driver=overlay,
                ipsec=self._ipsec,
                publishing=publishing,
                dns=dns,
            )

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
        lines += self._host.remove_strange_bridges()
        if self._ipsec is not None and not any(map(ipsec.wanted, self._catalog.all().values())):
            try:
                self._ipsec.sweep()
            except WherryError as e:
                lines.append(e.message)
        self._publishing.rebuild()
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
        try:
            self._driver(network.driver).start(network)
        except WherryError as e:
            if network.predefined:
                raise
            if network.driver == "overlay" and self._overlays is not None:
                self._overlays.try_again(network.id)
            return [f"network {network.name} is not there: {e.message}"]
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
        if self._overlays is not None:
            self._overlays.member.start()
        return lines

    def shutdown(self) -> None:
        """Close what this process holds; running containers keep their networks and published ports."""
        self._halt()
        self._publishing.close()

    def teardown_all(self) -> None:
        """Remove everything of this instance from the host: sandboxes, bridges, table, pins."""
        for row in self._rows.sandboxes():
            self.delete_sandbox(row.container_id)
        self._halt()
        for network in self._catalog.all().values():
            if not network.config_only and self._has_driver(network):
                self._driver(network.driver).stop(network)
        self._publishing.remove_table()
        netns.remove_directory(self._netns)
        self._publishing.close()

    def _halt(self) -> None:
        """End what runs by itself, so that nobody changes anything from here on."""
        if self._overlays is not None:
            self._overlays.member.close()
        if self._ipsec is not None:
            self._ipsec.close()
        self._host.close()
        self._leases.close()
        self._dns.close()
        self._publishing.unwatch()
        self._reaper.run()

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

    def publishes(self, network: Network) -> bool:
        """Whether ports of containers on a network can be published."""
        able = self._has_driver(network) and self._driver(network.driver).publishes
        return able and not network.internal

    def drivers(self) -> Lines:
        """The names of the drivers there are."""
        return sorted(self._drivers)

    def create(self, request: NetworkRequest) -> tuple[Network, Lines]:
        """Make a network. :returns: it, and warnings.

        :raises InvalidArgument, Forbidden, NotFound, Conflict, Unavailable: it cannot be as asked.
        """
        driver = None if request.config_only else self._driver(request.driver or "bridge")
        _check_ipam(request)
        with ExitStack() as undo:
            request, pools = self._pools(request, undo)
            network, warnings = self._choose(request, driver, pools)
            if driver is not None:
                network = self._make(network, driver)
            undo.pop_all()
        return network, warnings

    def _pools(self, request: NetworkRequest, undo: ExitStack) -> tuple[NetworkRequest, dict[str, str]]:
        """The request with subnets of its IPAM plugin, if it has one."""
        name = request.ipam_driver or "default"
        if name in ("default", "null", "none", DHCP) or request.config_only or request.config_from:
            return request, {}
        create.check_name(request.name)
        return RemoteIpam(remote.find(self._plugins, name, "IpamDriver")).pools(request, undo)

    def _choose(
        self, request: NetworkRequest, driver: Driver | None, pools: dict[str, str]
    ) -> tuple[Network, Lines]:
        with self._db.transaction():
            # within one transaction, so that two at once do not choose the same subnet
            network, warnings = create.make(request, self._surroundings())
            network = msgspec.structs.replace(network, pools=pools)
            if driver is not None:
                network = driver.check(network, self.list())
            if network.driver != "overlay":
                self._catalog.put(network)
        return network, warnings

    def _make(self, network: Network, driver: Driver) -> Network:
        """Make a network that has a row real, or take the row back."""
        with self._alone(network), ExitStack() as undo:
            if network.driver == "overlay" and self._overlays is not None:
                # asked of the other hosts with no transaction open: that may take as long as they do
                network = self._overlays.create(network)
                undo.callback(self._overlays.member.remove, network)
                self._catalog.put(network)
            undo.callback(self._forget, network)
            driver.create(network)
            undo.callback(self._quietly, driver, network)
            if network.bridge_name:
                undo.callback(self._publishing.remove_network, network)
            undo.callback(driver.stop, network)
            driver.start(network)
            if network.bridge_name:
                self._publishing.add_network(network)
            if network.enable_ipv6:
                for line in self._host.enable_forwarding(ipv6=True):
                    _log.info("%s", line)
            undo.pop_all()
        return network

    @staticmethod
    def _quietly(driver: Driver, network: Network) -> None:
        with suppress(WherryError):
            driver.remove(network)

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
        with self._alone(network):
            if network.driver == "overlay" and self._overlays is not None:
                self._overlays.member.remove(network)
            self._forget(network)
            if not network.config_only:
                # what keeps it apart goes when there is nothing any more that it would keep
                with ExitStack() as after:
                    if network.bridge_name:
                        after.callback(self._publishing.remove_network, network)
                    self._driver(network.driver).stop(network)
                self._quietly(self._driver(network.driver), network)
            if network.pools:
                with suppress(WherryError):
                    self._ipam(network).release_pools(network)
        return network

    def _alone(self, network: Network) -> AbstractContextManager[object]:
        """While an overlay network is made or removed here, what the cluster says of it waits."""
        shared = network.driver == "overlay" and self._overlays is not None
        return self._overlays.making if shared and self._overlays is not None else nullcontext()

    def _forget(self, network: Network) -> None:
        """What the cluster's thread has heard of and forgotten in the same moment is fine."""
        if network.id in self._catalog.all():
            self._catalog.remove(network)

    def peers(self, network: Network) -> Peers:
        """Name and address of the other hosts with containers on an overlay network."""
        return self._overlays.peers(network.id) if self._overlays is not None else []

    def remote(self, network: Network) -> Sequence[Endpoint]:
        """The places on an overlay network that other hosts have."""
        found = self._overlays.remote(network.id) if self._overlays is not None else []
        return [r.endpoint for r in found]

    def status(self, network: Network) -> dict[str, tuple[int, int]]:
        """By subnet: addresses in use or reserved, addresses of its range that are free."""
        return {s.cidr: ipam.status(self._rows, network, s) for s in network.subnets}

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


def _check_ipam(request: NetworkRequest) -> None:
    """:raises InvalidArgument: an IPAM driver that does not go with the network."""
    name = request.ipam_driver or "default"
    if name == DHCP and request.driver != "macvlan":
        raise InvalidArgument(
            "IPAM driver dhcp needs driver macvlan: other networks have no DHCP server of their own"
        )
    if request.config_only and name not in ("default", "null", "none", DHCP):
        raise InvalidArgument(f"a configuration-only network cannot have addresses of plugin {name[:64]}")
    if request.ipam_options and name in ("default", "null", "none", DHCP):
        raise InvalidArgument(
            f"invalid IPAM option {min(request.ipam_options)[:64]!r}: driver {name} has none"
        )
