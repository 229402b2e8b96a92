"""This daemon as a member of a cluster: what it publishes, and what it knows about the other hosts.

One thread keeps the lease; everything that this host publishes is bound to it. The other thread follows the
store: first it reads everything, then every change; after an error it reads everything again. While the store
cannot be reached, the last known state stays in use, so that traffic goes on. Whatever could not be published
or withdrawn meanwhile is corrected by the next full read.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from wherry.errors import Conflict, Forbidden, Unavailable
from wherry.network.cluster import etcd, records
from wherry.network.cluster.etcd import Compacted, Etcd, KeyChange, Pair
from wherry.network.cluster.records import Host, Offer, Remote
from wherry.network.create import OVERLAPS
from wherry.network.options import VNI_OPTION
from wherry.network.types import Endpoint, Network

_log = logging.getLogger(__name__)
TTL = 30
"""Seconds of silence after which a host is considered gone."""
_RETRY, _SOON = 1.0, 0.05
"""Seconds until everything is read again: after an error, and after a request to do so."""
_VNI_FIRST, _VNI_LAST = 4096, (1 << 24) - 1
_TRIES = 8
_AT_ONCE = 100
"""Changes in one transaction; etcd's default limit is 128."""


class ClusterListener(Protocol):
    """Acts on what other hosts publish. It is called on the cluster's thread, one call at a time."""

    def networks_are(self, networks: Mapping[str, Network]) -> None:
        """The cluster's networks, by id."""

    def endpoints_are(self, network_id: str, remotes: Sequence[Remote]) -> None:
        """The endpoints that other hosts have on a network."""

    def local_endpoints(self) -> Sequence[Endpoint]:
        """The endpoints of this host on overlay networks."""

    def public_key(self) -> str:
        """This host's public key for encrypted networks; ``""`` if it has none."""

    def starts_over(self) -> None:
        """The other hosts may have dropped this one: agreements with them are void."""

    def hosts_are(self, hosts: Sequence[Host], offers: Mapping[str, Offer]) -> Sequence[Offer]:
        """The other hosts, and each one's offer to this host. :returns: this host's offers."""

    def look_after(self) -> None:
        """Called regularly, on the thread that keeps the lease."""


class Member:
    """Safe to use from any thread."""

    def __init__(self, store: Etcd, host: Host, listener: ClusterListener, *, ttl: int = TTL) -> None:
        self._store = store
        self._host = host
        self._listener = listener
        self._ttl = ttl
        self._lock = threading.Lock()
        self._lease = ""
        self._networks: dict[str, Network] = {}
        self._remotes: dict[str, Remote] = {}
        self._hosts: dict[str, Host] = {}
        self._offers: dict[str, Offer] = {}
        """The offers of other hosts to this one, by key."""
        self._offered: dict[str, str] = {}
        """This host's offers according to the store, by key."""
        self._claimed: set[str] = set()
        """Addresses that were claimed for endpoints that are not announced yet."""
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._watching: list[http.client.HTTPConnection] = []
        self._threads: list[threading.Thread] = []
        self._away = False

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        for name, run in (("cluster", self._follow), ("cluster-lease", self._keep)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Stop publishing. The lease expires, unless this daemon comes back before that."""
        self._stopping.set()
        self.resync()
        for thread in self._threads:
            thread.join()

    def resync(self) -> None:
        """Publish and read everything again: ends the watch, even one that is just about to begin."""
        self._again.set()
        for connection in list(self._watching):
            sock = connection.sock  # read it once: the watching thread resets it
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def hosts(self) -> list[Host]:
        """All hosts, including this one."""
        with self._lock:
            return sorted({**self._hosts, self._host.id: self._host}.values(), key=lambda h: h.id)

    @property
    def networks(self) -> dict[str, Network]:
        """The networks of the cluster, as far as this host knows."""
        with self._lock:
            return dict(self._networks)

    # -- networks --------------------------------------------------------------------------------------

    def create(self, network: Network, vni: int) -> tuple[Network, int]:
        """Publish a network to all hosts. :param vni: 0: any free number. :returns: the network, and its
        number.

        :raises Unavailable: the store cannot be reached. :raises Conflict, Forbidden: another network has its
        name, subnet or number.
        """
        for _ in range(_TRIES):
            pairs, _revision = self._store.range(records.ROOT)
            guard = next((p for p in pairs if p.key == records.GUARD), None)
            others = [
                n
                for p in pairs
                if p.key.startswith(records.NETWORKS) and (n := records.read_network(p.value))
            ]
            number = _check(network, vni, others)
            numbered = with_number(network, number)
            changes = [
                etcd.put(records.network_key(network.id), records.write(numbered)),
                etcd.put(records.GUARD, network.id),
            ]
            if self._store.transact([etcd.unchanged(guard, records.GUARD)], changes):
                return numbered, number
        raise Unavailable(f"cannot make network {network.name}: too many are made at the same time")

    def remove(self, network: Network) -> None:
        """:raises Unavailable: the store cannot be reached.
        :raises Forbidden: a container on some host uses it."""
        key = records.network_key(network.id)
        conditions = [etcd.nothing_below(f"{records.ENDPOINTS}{network.id}/")]
        if not self._store.transact(conditions, [etcd.delete(key), etcd.put(records.GUARD, network.id)]):
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints on another host"
            )

    # -- endpoints -------------------------------------------------------------------------------------

    def claim(self, network: Network, choose: Callable[[set[str]], str]) -> str:
        """Claim an address that no host has assigned.

        :param choose: returns one, given those that are known to be taken.
        :raises Unavailable: the store cannot be reached. :raises Conflict: it chose the same taken address
        twice.
        """
        with self._lock:
            taken = {
                ip
                for r in self._remotes.values()
                if r.endpoint.network_id == network.id
                for ip in r.endpoint.addresses
            }
        before = ""
        for _ in range(1 << 10):
            address = choose(taken)
            if address == before:
                raise Conflict("Address already in use")
            key = records.address_key(network.id, address)
            with self._lock:
                self._claimed.add(key)
            if self._store.transact([etcd.absent(key)], [etcd.put(key, self._host.id, self._leased())]):
                return address
            with self._lock:
                self._claimed.discard(key)
            taken.add(address)
            before = address
        raise Conflict(f"no available addresses on this network's address pools: {network.name}")

    def unclaim(self, network_id: str, addresses: Iterable[str]) -> None:
        """Release addresses. If the store cannot be reached, the next full read does it."""
        keys = [records.address_key(network_id, a) for a in addresses if a]
        with self._lock:
            self._claimed.difference_update(keys)
        self._later([etcd.delete(key) for key in keys])

    def announce(self, endpoint: Endpoint) -> None:
        """Publish an endpoint to the other hosts. :raises Unavailable: the store cannot be reached."""
        self._store.transact([], self._told(endpoint, self._leased()))
        with self._lock:
            self._claimed -= {records.address_key(endpoint.network_id, ip) for ip in endpoint.addresses}

    def withdraw(self, endpoint: Endpoint) -> None:
        """Withdraw an endpoint. If the store cannot be reached, the next full read does it."""
        self.unclaim(endpoint.network_id, endpoint.addresses)
        self._later([etcd.delete(records.endpoint_key(endpoint))])

    def _told(self, endpoint: Endpoint, lease: str) -> list[object]:
        remote = Remote(host=self._host.id, address=self._host.address, endpoint=endpoint)
        return [
            etcd.put(records.endpoint_key(endpoint), records.write(remote), lease),
            *(
                etcd.put(records.address_key(endpoint.network_id, ip), self._host.id, lease)
                for ip in endpoint.addresses
            ),
        ]

    def _later(self, changes: Sequence[object]) -> None:
        if not changes:
            return
        try:
            self._store.transact([], changes)
        except Unavailable as e:
            _log.warning("not yet published to other hosts: %s", e.message)
            self.resync()

    def _leased(self) -> str:
        with self._lock:
            if not self._lease:
                raise Unavailable(f"cannot reach the cluster store {self._store.name}: there is no lease yet")
            return self._lease

    # -- the lease -------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stopping.wait(self._ttl / 3):
            try:
                self._keep_lease()
                self._listener.look_after()
            except Unavailable as e:
                self._say_away(e)
            except Exception:
                _log.exception("this host's lease cannot be looked after")

    def _keep_lease(self) -> None:
        with self._lock:
            lease = self._lease
        if lease and not self._store.keep(lease):
            self._lose_lease(lease)

    def _lose_lease(self, lease: str) -> None:
        with self._lock:
            if self._lease != lease:
                return
            self._lease = ""
        _log.warning("this host's lease in the cluster store has expired: publishing everything again")
        self.resync()

    # -- following -------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._again.clear()
            try:
                revision = self._read_all()
                for changes in self._store.watch(records.ROOT, revision + 1, self._watching):
                    if self._again.is_set() or self._stopping.is_set():
                        break
                    self._apply(changes)
            except Compacted:
                continue
            except Unavailable as e:
                if not self._again.is_set():
                    self._say_away(e)
            except Exception:
                _log.exception("what another host says cannot be followed")
            self._stopping.wait(_SOON if self._again.is_set() else _RETRY)

    def _say_away(self, error: Unavailable) -> None:
        if not self._away:
            self._away = True
            _log.warning("%s: using the last known state until the store is back", error.message)

    def _read_all(self) -> int:
        """Publish everything of this host, and read everything of the others.
        :returns: the revision of that."""
        local = list(self._listener.local_endpoints())
        with self._lock:
            lease = self._lease
        if not lease:
            lease = self._store.grant(self._ttl)
            self._listener.starts_over()
        host = msgspec.structs.replace(self._host, key=self._listener.public_key())
        changes: list[object] = [etcd.put(f"{records.HOSTS}{host.id}", records.write(host), lease)]
        for endpoint in local:
            changes += self._told(endpoint, lease)
        for start in range(0, len(changes), _AT_ONCE):
            self._store.transact([], changes[start : start + _AT_ONCE])
        with self._lock:
            self._lease = lease
        pairs, revision = self._store.range(records.ROOT)
        self._forget_own(pairs, local)
        self._learn(pairs)
        if self._away:
            self._away = False
            _log.info("the cluster store %s is back", self._store.name)
        return revision

    def _forget_own(self, pairs: Sequence[Pair], local: Sequence[Endpoint]) -> None:
        """Delete entries of this host that are no longer true."""
        mine = {records.endpoint_key(e) for e in local}
        mine |= {records.address_key(e.network_id, ip) for e in local for ip in e.addresses}
        with self._lock:
            mine |= self._claimed
        gone = []
        for pair in pairs:
            if pair.key in mine:
                continue
            if pair.key.startswith(records.ENDPOINTS):
                remote = records.read_remote(pair.value)
                if remote is not None and remote.host == self._host.id:
                    gone.append(etcd.delete(pair.key))
            elif pair.key.startswith(records.ADDRESSES) and pair.value == self._host.id:
                gone.append(etcd.delete(pair.key))
        for start in range(0, len(gone), _AT_ONCE):
            self._later(gone[start : start + _AT_ONCE])

    def _learn(self, pairs: Sequence[Pair]) -> None:
        networks, remotes, hosts = {}, {}, {}
        offers, offered = {}, {}
        for pair in pairs:
            if pair.key.startswith(records.NETWORKS) and (network := records.read_network(pair.value)):
                networks[network.id] = network
            elif pair.key.startswith(records.ENDPOINTS) and (remote := records.read_remote(pair.value)):
                if remote.host != self._host.id:
                    remotes[pair.key] = remote
            elif pair.key.startswith(records.HOSTS) and (host := records.read_host(pair.key, pair.value)):
                hosts[host.id] = host
            elif pair.key.startswith(self._own_offers):
                offered[pair.key] = pair.value
            elif pair.key.startswith(records.OFFERS) and (offer := self._offer(pair.key, pair.value)):
                offers[pair.key] = offer
        with self._lock:
            self._networks, self._remotes, self._hosts = networks, remotes, hosts
            self._offers, self._offered = offers, offered
        self._listener.networks_are(networks)
        for network_id in networks:
            self._tell_endpoints(network_id)
        self._tell_hosts()

    def _apply(self, changes: Sequence[KeyChange]) -> None:
        touched: set[str] = set()
        networks_changed = hosts_changed = False
        forgotten = KeyChange(f"{records.HOSTS}{self._host.id}", None) in changes
        with self._lock:
            lease = self._lease
            for change in changes:
                if change.key.startswith(records.NETWORKS):
                    networks_changed |= self._apply_network(change)
                elif change.key.startswith(records.ENDPOINTS):
                    touched |= self._apply_endpoint(change)
                elif change.key.startswith(records.HOSTS):
                    hosts_changed |= self._apply_host(change)
                elif change.key.startswith(records.OFFERS):
                    hosts_changed |= self._apply_offer(change)
            networks = dict(self._networks)
        if networks_changed:
            self._listener.networks_are(networks)
            touched |= set(networks)
        for network_id in touched & set(networks):
            self._tell_endpoints(network_id)
        if hosts_changed:
            self._tell_hosts()
        if forgotten and lease:
            self._lose_lease(lease)

    def _apply_network(self, change: KeyChange) -> bool:
        network_id = change.key.removeprefix(records.NETWORKS)
        network = records.read_network(change.value) if change.value is not None else None
        before = self._networks.pop(network_id, None)
        if network is not None:
            self._networks[network_id] = network
        return before != network

    def _apply_endpoint(self, change: KeyChange) -> set[str]:
        before = self._remotes.pop(change.key, None)
        remote = records.read_remote(change.value) if change.value is not None else None
        if remote is not None and remote.host != self._host.id:
            self._remotes[change.key] = remote
        return {r.endpoint.network_id for r in (before, self._remotes.get(change.key)) if r is not None}

    def _apply_host(self, change: KeyChange) -> bool:
        host = records.read_host(change.key, change.value) if change.value is not None else None
        before = self._hosts.pop(change.key.removeprefix(records.HOSTS), None)
        if host is not None:
            self._hosts[host.id] = host
        return before != host

    def _apply_offer(self, change: KeyChange) -> bool:
        if change.key.startswith(self._own_offers):
            if change.value is None:
                self._offered.pop(change.key, None)
            else:
                self._offered[change.key] = change.value
            return False
        before = self._offers.pop(change.key, None)
        offer = self._offer(change.key, change.value) if change.value is not None else None
        if offer is not None:
            self._offers[change.key] = offer
        return before != offer

    @property
    def _own_offers(self) -> str:
        return f"{records.OFFERS}{self._host.id}/"

    def _offer(self, key: str, text: str) -> Offer | None:
        """Take in an offer to this host; offers to others are ignored."""
        offer = records.read_offer(key, text) if key.endswith(f"/{self._host.id}") else None
        return offer if offer is not None and offer.to == self._host.id else None

    def _tell_hosts(self) -> None:
        """Let the listener act on the other hosts and their offers; publish the offers that it returns."""
        with self._lock:
            hosts = [h for h in self._hosts.values() if h.id != self._host.id]
            offers = {o.host: o for o in self._offers.values()}
            offered, lease = dict(self._offered), self._lease
        if not lease:
            return  # the lease has ended: everything will be published again soon
        mine = {records.offer_key(o): records.write(o) for o in self._listener.hosts_are(hosts, offers)}
        changes = [etcd.put(k, v, lease) for k, v in mine.items() if offered.get(k) != v]
        changes += [etcd.delete(k) for k in offered.keys() - mine.keys()]
        for start in range(0, len(changes), _AT_ONCE):
            self._store.transact([], changes[start : start + _AT_ONCE])
        with self._lock:
            self._offered = mine

    def _tell_endpoints(self, network_id: str) -> None:
        with self._lock:
            found = [r for r in self._remotes.values() if r.endpoint.network_id == network_id]
        self._listener.endpoints_are(network_id, found)


def _check(network: Network, vni: int, others: Sequence[Network]) -> int:
    """Check a network against the others; returns its number. Raises what :meth:`Member.create` raises."""
    if any(o.name == network.name for o in others):
        raise Conflict(f"network with name {network.name} already exists")
    for subnet in network.subnets:
        for other in (s.network for o in others for s in o.subnets):
            if other.version == subnet.network.version and other.overlaps(subnet.network):
                raise Forbidden(OVERLAPS)
    used = {number_of(o) for o in others}
    if vni:
        if vni in used:
            raise Conflict(f"VXLAN number {vni} is in use by another network")
        return vni
    return next(n for n in range(_VNI_FIRST, _VNI_LAST) if n not in used)


def number_of(network: Network) -> int:
    return int(network.options.get(VNI_OPTION, "0") or 0)


def with_number(network: Network, number: int) -> Network:
    return msgspec.structs.replace(network, options={**network.options, VNI_OPTION: str(number)})
