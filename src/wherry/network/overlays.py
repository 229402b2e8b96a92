"""Overlay networks of this host: what the other hosts say made real, and what they must know told to them."""

from __future__ import annotations

import hashlib
import logging
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from msgspec.structs import replace

from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network import ipam, options
from wherry.network.catalog import Catalog
from wherry.network.cluster.etcd import Etcd, parse_places
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.member import Member
from wherry.network.cluster.records import Host, Offer, Remote
from wherry.network.dns.server import DnsServer
from wherry.network.drivers.overlay import OverlayDriver
from wherry.network.endpoints import endpoint_of
from wherry.network.publishing import Publishing
from wherry.network.types import ClusterConfig, Endpoint, Family, Network
from wherry.state.networks import Networks

_log = logging.getLogger(__name__)
_FAMILIES: tuple[Family, Family] = (4, 6)


class Overlays:
    """Safe to use from any thread. The cluster's own thread calls what ``member.Listener`` has."""

    def __init__(
        self,
        config: ClusterConfig,
        *,
        host_id: str,
        rows: Networks,
        catalog: Catalog,
        driver: OverlayDriver,
        ipsec: Ipsec,
        publishing: Publishing,
        dns: DnsServer,
    ) -> None:
        """:raises InvalidArgument: the store's place or its certificates make no sense."""
        self._rows = rows
        self._catalog = catalog
        self._driver = driver
        self._ipsec = ipsec
        self._publishing = publishing
        self._dns = dns
        self._lock = threading.Lock()
        self.making = threading.RLock()
        """Held while a network is made here, so that what the cluster says of it meanwhile waits."""
        self._remotes: dict[str, dict[str, Remote]] = {}
        self._impossible: set[str] = set()
        """Networks that cannot be made here, which was said, and is tried again."""
        store = Etcd(parse_places(config.store), _context(config))
        host = Host(id=host_id, address=config.advertise, name=socket.gethostname())
        self.member = Member(store, host, self, ttl=config.ttl)
        ipsec.changed = self.member.resync

    # -- for this host's containers --------------------------------------------------------------------

    def create(self, network: Network) -> Network:
        """Make a network known to all hosts. Raises as ``Member.create``."""
        network, _ = self.member.create(network, options.overlay(network.options).vni)
        return network

    def claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """The request with addresses that no other host hands out. Raises as ``Member.claim``."""
        config = request.ipam_config or EndpointIpamConfig()
        addresses = {}
        for family in _FAMILIES:
            if not network.subnets_of(family):
                continue
            wanted = config.ipv4_address if family == 4 else config.ipv6_address

            def choose(taken: set[str], family: Family = family, wanted: str = wanted) -> str:
                return ipam.allocate(self._rows, network, wanted, family=family, busy=taken)[0]

            address = self.member.claim(network, choose)
            undo.callback(self.member.unclaim, network.id, [address])
            addresses[f"ipv{family}_address"] = address
        return replace(request, ipam_config=replace(config, **addresses))

    def remote(self, network_id: str) -> list[Remote]:
        """The places on a network that other hosts have."""
        with self._lock:
            return list(self._remotes.get(network_id, {}).values())

    def peers(self, network_id: str) -> list[tuple[str, str]]:
        """Name and address of every host with a container on a network, this one included."""
        hosts = {h.id: h for h in self.member.hosts}
        found = {r.host: r.address for r in self.remote(network_id)}
        return [(hosts[h].name if h in hosts else h[:12], address) for h, address in sorted(found.items())]

    # -- what the other hosts say ----------------------------------------------------------------------

    def networks_are(self, networks: Mapping[str, Network]) -> None:
        with self.making:
            present = {i: n for i, n in self._catalog.all().items() if n.driver == "overlay"}
            for network_id, network in networks.items():
                if network_id not in present:
                    self._appear(network)
            for network_id, network in present.items():
                if network_id not in networks:
                    self._vanish(network)
            self._impossible &= networks.keys()

    def _appear(self, network: Network) -> None:
        try:
            self._catalog.get(network.name)
        except (NotFound, InvalidArgument):
            pass
        else:
            _log.warning(
                "another host has made network %s, which this one cannot see: it has one of this name",
                network.name,
            )
            return
        try:
            with ExitStack() as undo:
                self._catalog.put(network)
                undo.callback(self._catalog.remove, network)
                undo.callback(self._driver.stop, network)
                self._driver.start(network)
                self._publishing.add_network(network)
                undo.pop_all()
        except WherryError as e:
            if network.id not in self._impossible:
                _log.error("network %s of another host cannot be made here: %s", network.name, e.message)
            self._impossible.add(network.id)
        else:
            self._impossible.discard(network.id)

    def try_again(self, network_id: str) -> None:
        """A network that was here before could not be set up when the daemon started."""
        self._impossible.add(network_id)

    def _recover(self, network: Network) -> None:
        try:
            self._driver.start(network)
        except WherryError:
            return
        self._impossible.discard(network.id)
        _log.info("network %s could be set up now", network.name)

    def _vanish(self, network: Network) -> None:
        if self._rows.endpoints(network_id=network.id):
            _log.warning(
                "network %s is not in the cluster any more, but containers here use it", network.name
            )
            return
        try:
            self._catalog.remove(network)
            self._driver.stop(network)
            self._publishing.remove_network(network)
        except WherryError as e:
            _log.error("network %s cannot be removed: %s", network.name, e.message)

    def endpoints_are(self, network_id: str, remotes: Sequence[Remote]) -> None:
        network = self._catalog.all().get(network_id)
        if network is None:
            return
        with self._lock:
            before = self._remotes.get(network_id, {})
            after = {r.endpoint.id: r for r in remotes}
            self._remotes[network_id] = after
        gone = [r.endpoint for i, r in before.items() if after.get(i) != r]
        new = [r.endpoint for i, r in after.items() if before.get(i) != r]
        if gone or new:
            self._dns.remote(new, gone)
        try:
            self._driver.reach(network, remotes)
        except WherryError as e:
            _log.error("%s", e.message)

    def public_key(self) -> str:
        return self._ipsec.public

    def starts_over(self) -> None:
        self._ipsec.start_over()

    def hosts_are(self, hosts: Sequence[Host], offers: Mapping[str, Offer]) -> list[Offer]:
        return self._ipsec.settle(hosts, offers)

    def look_after(self) -> None:
        self._ipsec.check()
        if not self._impossible:
            return
        with self.making:
            known, here = self.member.networks, self._catalog.all()
            for network_id in sorted(self._impossible):
                if network_id in here:
                    self._recover(here[network_id])
                elif network_id in known:
                    self._appear(known[network_id])

    def local_endpoints(self) -> list[Endpoint]:
        overlay = {i for i, n in self._catalog.all().items() if n.driver == "overlay"}
        return [endpoint_of(r) for r in self._rows.endpoints() if r.network_id in overlay]


def _context(config: ClusterConfig) -> ssl.SSLContext | None:
    if not config.ca_file:
        if config.cert_file:
            raise InvalidArgument("a certificate for the cluster store needs kv.cacertfile besides")
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ssl.SSLError) as e:
        raise InvalidArgument(f"cannot use the cluster store's certificates: {e}") from e
    return context


def host_id(engine: str) -> str:
    """A name for this daemon that no other has, from something that is its own."""
    return hashlib.sha256(engine.encode()).hexdigest()[:32]
