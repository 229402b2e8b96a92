"""Overlay networks of this host: makes the other hosts' networks real, and publishes this host's."""

from __future__ import annotations

import hashlib
import logging
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

from msgspec.structs import replace

from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.model.container import EndpointIpamConfig, EndpointRequest
from wherry.network import ipam, options
from wherry.network.catalog import Catalog
from wherry.network.cluster.etcd import Etcd, parse_places
from wherry.network.cluster.ipsec import Ipsec
from wherry.network.cluster.member import Member
from wherry.network.cluster.records import Host, Offer, Remote
from wherry.network.drivers import Elsewhere, OverlayListener
from wherry.network.drivers.overlay import OverlayDriver
from wherry.network.endpoints import endpoint_of
from wherry.network.types import ClusterConfig, Endpoint, Family, Instance, Network, NetworkConfig
from wherry.state.meta import Meta
from wherry.state.networks import Networks

_log = logging.getLogger(__name__)
_FAMILIES: tuple[Family, Family] = (4, 6)


class OverlayObservers:
    """Callbacks for changes.
    Made first, so that the code that changes something need not know the observers."""

    def __init__(self) -> None:
        self._who: list[Callable[[], None]] = []

    def add(self, who: Callable[[], None]) -> None:
        self._who.append(who)

    def __call__(self) -> None:
        for who in self._who:
            who()


def overlay_driver(
    instance: Instance, config: NetworkConfig, rows: Networks, catalog: Catalog
) -> OverlayDriver:
    """The overlay driver, for a daemon in a cluster or without one.

    :raises InvalidArgument: an invalid store address or invalid certificates.
    """
    cluster = config.cluster
    if cluster is None:
        return OverlayDriver(instance)
    host = host_id(Meta(rows.db).set_default("cluster_host", secrets.token_hex(16)))
    changed = OverlayObservers()
    ipsec = Ipsec(instance, host, cluster.advertise, rekey=cluster.rekey, changed=changed)
    devices = OverlayDriver(instance, cluster.advertise, ipsec)
    overlays = Overlays(
        cluster, host, rows=rows, catalog=catalog, devices=devices, ipsec=ipsec, changed=changed
    )
    return OverlayDriver(instance, cluster.advertise, ipsec, overlays)


class Overlays:
    """What this host and the others publish to each other (``drivers.Sharing``). Safe to use from any thread;
    the methods of ``member.Listener`` are called on the cluster's own thread."""

    def __init__(
        self,
        config: ClusterConfig,
        host_id: str,
        *,
        rows: Networks,
        catalog: Catalog,
        devices: OverlayDriver,
        ipsec: Ipsec,
        changed: OverlayObservers,
    ) -> None:
        """:param devices: makes networks of other hosts real. :param changed: called by ``ipsec``.
        :raises InvalidArgument: an invalid store address or invalid certificates.
        """
        self._rows = rows
        self._catalog = catalog
        self._devices = devices
        self._ipsec = ipsec
        self._lock = threading.Lock()
        self._making = threading.RLock()
        self._remotes: dict[str, dict[str, Remote]] = {}
        self._impossible: set[str] = set()
        """Networks that cannot be made here; each was reported, and is tried again."""
        self._acts: OverlayListener | None = None
        """Acts on what the others publish; set by :meth:`start`."""
        store = Etcd(parse_places(config.store), _context(config))
        host = Host(id=host_id, address=config.advertise, name=socket.gethostname())
        self._member = Member(store, host, self, ttl=config.ttl)
        changed.add(self._member.resync)

    # -- for this host's containers --------------------------------------------------------------------

    def start(self, listener: OverlayListener) -> None:
        self._acts = listener
        self._member.start()

    def close(self) -> None:
        self._member.close()
        self._ipsec.close()

    def making(self) -> AbstractContextManager[object]:
        return self._making

    def create(self, network: Network) -> Network:
        """Publish a network to all hosts. Raises what ``Member.create`` raises."""
        network, _ = self._member.create(network, options.overlay(network.options).vni)
        return network

    def remove(self, network: Network) -> None:
        self._member.remove(network)

    def announce(self, endpoint: Endpoint) -> None:
        self._member.announce(endpoint)

    def withdraw(self, endpoint: Endpoint) -> None:
        self._member.withdraw(endpoint)

    def retry(self, network_id: str) -> None:
        self._impossible.add(network_id)

    def claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """The request with addresses that no other host assigns. Raises what ``Member.claim`` raises."""
        config = request.ipam_config or EndpointIpamConfig()
        addresses = {}
        for family in _FAMILIES:
            if not network.subnets_of(family):
                continue
            wanted = config.ipv4_address if family == 4 else config.ipv6_address

            def choose(taken: set[str], family: Family = family, wanted: str = wanted) -> str:
                return ipam.allocate(self._rows, network, wanted, family=family, busy=taken)[0]

            address = self._member.claim(network, choose)
            undo.callback(self._member.unclaim, network.id, [address])
            addresses[f"ipv{family}_address"] = address
        return replace(request, ipam_config=replace(config, **addresses))

    def elsewhere(self, network_id: str) -> Elsewhere:
        with self._lock:
            remotes = list(self._remotes.get(network_id, {}).values())
        hosts = {h.id: h for h in self._member.hosts}
        found = sorted({r.host: r.address for r in remotes}.items())
        return Elsewhere(
            tuple((hosts[h].name if h in hosts else h[:12], address) for h, address in found),
            tuple(r.endpoint for r in remotes),
        )

    # -- what the other hosts publish ------------------------------------------------------------------

    def networks_are(self, networks: Mapping[str, Network]) -> None:
        with self._making:
            present = {i: n for i, n in self._catalog.all().items() if n.driver == self._devices.name}
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
                "cannot use network %s of another host: a network with this name exists here",
                network.name,
            )
            return
        try:
            with ExitStack() as undo:
                self._catalog.put(network)
                undo.callback(self._catalog.remove, network)
                undo.callback(self._devices.stop, network)
                self._devices.start(network)
                if self._acts is not None:
                    self._acts.appeared(network)
                undo.pop_all()
        except WherryError as e:
            if network.id not in self._impossible:
                _log.error("network %s of another host cannot be made here: %s", network.name, e.message)
            self._impossible.add(network.id)
        else:
            self._impossible.discard(network.id)

    def _recover(self, network: Network) -> None:
        try:
            self._devices.start(network)
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
            self._devices.stop(network)
            if self._acts is not None:
                self._acts.vanished(network)
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
        if (gone or new) and self._acts is not None:
            self._acts.moved(new, gone)
        try:
            self._devices.reach(network, remotes)
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
        with self._making:
            known, here = self._member.networks, self._catalog.all()
            for network_id in sorted(self._impossible):
                if network_id in here:
                    self._recover(here[network_id])
                elif network_id in known:
                    self._appear(known[network_id])

    def local_endpoints(self) -> list[Endpoint]:
        overlay = {i for i, n in self._catalog.all().items() if n.driver == self._devices.name}
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
    """A unique name for this daemon, derived from its engine id."""
    return hashlib.sha256(engine.encode()).hexdigest()[:32]
