"""IPsec between the hosts of a cluster, for overlay networks that ask for it.

Encrypted networks have their VXLAN packets on a UDP port of their own, which is never seen on a wire: to
there, the kernel lets nothing pass that ESP does not carry (RFC 4303, transport mode, AES-GCM). Policies see
to that for every peer there is or will be; the nft table does it once more, on its own (``ruleset``), should
another program flush the policies. It alone stands on the loopback interface, where the kernel asks for none.

Every association, one for each direction between two hosts, has a key that no other has or had:

- a host tells the others a public key (X25519, RFC 7748), the private part of which exists in its memory
  alone. It takes a new one whenever it cannot vouch for where its sequence numbers stand: at its start, with
  a new lease, after somebody removed its associations; and every half day.
- who sees such a key makes the association for what comes *from* that host, ready to receive, and then its
  offer: the SPI, and a public key made for this one purpose. Both sides derive the association's key from the
  two (HKDF, RFC 5869).
- the host, when it sees the offer that answers its key, makes its side and sends by it from then on.

So a packet is sent by a new key only when its receiver has that; former associations stay until the first one
has come. What is in the store tells nobody the keys; who may write there could pretend to be a host.
"""

from __future__ import annotations

import base64
import errno
import logging
import secrets
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from wherry.errors import Internal, Unavailable
from wherry.linux import xfrm
from wherry.linux.netlink import NetlinkError
from wherry.linux.xfrm import Address, Association, Flow, Policy, XfrmSocket, XfrmWatch
from wherry.network import options
from wherry.network.cluster.records import Host, Offer
from wherry.network.types import Instance, Network

_log = logging.getLogger(__name__)
PORT = 4790
_PRIORITY = 100
_CONTEXT = b"wherry overlay esp 1"
_TRIES = 8
_FORMER = 8
"""Associations for what a host sends that are kept beside the present one until that has carried some."""
_PAUSE = 1.0
"""Seconds between two keys, whatever happens."""
_PEERS = 1000


@dataclass(frozen=True)
class _Inbound:
    """An association for what a peer sends, and what it was told of it."""

    association: Association
    offer: Offer


class Ipsec:
    """Safe to use from any thread."""

    def __init__(self, instance: Instance, host: str, local: str, *, rekey: int) -> None:
        """:param host: this host's id. :param local: its address for the others. :param rekey: seconds after
        which it takes a new key.
        """
        self._host = host
        self._local: Address = ip_address(local)
        self._reqid = _reqid(instance)
        self._rekey = rekey
        self._lock = threading.Lock()
        self._users: set[str] = set()
        self._private: Any = None
        self._public = ""
        self._renewed = 0.0
        self._spent: set[tuple[str, int]] = set()
        """Offers that were made use of under this key, by host and SPI: none is a second time."""
        self._inbound: dict[str, _Inbound] = {}
        self._outbound: dict[str, Association] = {}
        self._peers: frozenset[Address] | None = None
        """The other hosts' addresses, None before anything was heard of them."""
        self._spoilt = False
        """Whether an offer or an association is lost, so that another key has to be taken."""
        self._failed = False
        """Whether the kernel refused something, which is tried again."""
        self._said: set[str] = set()
        self._watch: XfrmWatch | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called when the other hosts have to be told something anew."""

    @property
    def public(self) -> str:
        """This host's public key, ``""`` while it has no encrypted network."""
        with self._lock:
            return self._public

    # -- networks --------------------------------------------------------------------------------------

    def probe(self) -> None:
        """:raises Unavailable: the kernel cannot do it."""
        loop = Association(self._local, self._local, secrets.randbelow(1 << 24) + xfrm.SPI_FIRST, self._reqid)
        try:
            with XfrmSocket() as sock:
                sock.add(loop, secrets.token_bytes(xfrm.KEY_SIZE), PORT)
                sock.remove(loop)
        except OSError as e:
            if xfrm.unsupported(e):
                raise Unavailable(
                    f"this kernel has no IPsec ESP with AES-GCM ({e.strerror}): "
                    "encrypted overlay networks need it"
                ) from e
            raise Internal(f"cannot use IPsec: {e.strerror or e}") from e

    def require(self, network_id: str) -> None:
        """An encrypted network is there from now on: nothing of it leaves or comes in the clear.

        :raises Unavailable, Internal: the kernel cannot, with the reason.
        """
        self.probe()
        with self._lock:
            first = not self._users
            try:
                with XfrmSocket() as sock:
                    self._bar(sock)
                if self._watch is None:
                    self._watch = XfrmWatch(self.check)
            except OSError as e:
                raise Internal(f"cannot set up IPsec: {e.strerror or e}") from e
            self._users.add(network_id)
            if first:
                self._renew()
        if first:
            self.changed()

    def release(self, network_id: str) -> None:
        """An encrypted network is gone; with the last all of it is. :raises Internal: the kernel refuses."""
        with self._lock:
            if network_id not in self._users:
                return
            self._users.discard(network_id)
            if self._users:
                return
            watch, self._watch = self._watch, None
            self._private, self._public, self._peers = None, "", None
            self._inbound.clear()
            self._outbound.clear()
        _close(watch)  # without the lock, which its thread may be waiting for
        try:
            self.sweep()
        finally:
            self.changed()

    def sweep(self) -> None:
        """Remove what is left in the kernel while there is no encrypted network, by a killed daemon too.

        :raises Internal: the kernel refuses.
        """
        with self._lock:
            if not self._users:
                _clear(self._reqid)

    def close(self) -> None:
        """Look after nothing any more; what there is stays, for the containers that run on."""
        with self._lock:
            watch, self._watch = self._watch, None
        _close(watch)

    # -- peers -----------------------------------------------------------------------------------------

    def start_over(self) -> None:
        """The other hosts may have removed their sides: a new key and new offers, if there is use for any."""
        with self._lock:
            if self._users:
                self._inbound.clear()
                self._renew()

    def settle(self, hosts: Iterable[Host], offers: Mapping[str, Offer]) -> list[Offer]:
        """Make the associations that these hosts and what they offer allow, and remove those of others.

        :param offers: to this host, by the id of who made them. :returns: what this one offers.
        """
        with self._lock:
            if not self._users:
                return []
            peers = self._peers_of(hosts)
            failures: list[OSError] = []
            try:
                with XfrmSocket() as sock:
                    places = {(h, ip_address(p.address)) for h, p in peers.items()}
                    self._inbound = {
                        h: i for h, i in self._inbound.items() if (h, i.association.source) in places
                    }
                    self._outbound = {h: a for h, a in self._outbound.items() if (h, a.destination) in places}
                    for peer in peers.values():
                        try:
                            self._agree(sock, peer, offers.get(peer.id))
                        except OSError as e:
                            failures.append(e)
                    self._peers = frozenset(ip_address(p.address) for p in peers.values())
                    self._tidy(sock)
            except OSError as e:
                failures.append(e)
            self._fail(failures)
            return [i.offer for i in self._inbound.values()]

    def check(self) -> None:
        """Put right what is not as it was left, and take a new key when it is time."""
        with self._lock:
            if not self._users:
                return
            anew = self._failed
            try:
                anew |= self._repair()
            except OSError as e:
                self._fail([e])
        if anew:
            self.changed()

    # -- with the lock held ----------------------------------------------------------------------------

    def _fail(self, failures: Sequence[OSError]) -> None:
        if failures and not self._failed:
            _log.error("cannot set up IPsec with the other hosts, and try again: %s", failures[0])
        self._failed = bool(failures)

    def _say(self, message: str) -> None:
        """Warn, once."""
        if message not in self._said:
            self._said.add(message)
            _log.warning("%s", message)

    def _peers_of(self, hosts: Iterable[Host]) -> dict[str, Host]:
        """Those of the other hosts that can be spoken to, by id; one for an address."""
        found: dict[Address, Host] = {}
        for host in sorted(hosts, key=lambda h: h.id):
            address = ip_address(host.address)
            if host.id == self._host or not host.key or address.version != self._local.version:
                continue
            if address == self._local or address in found:
                self._say(f"two hosts of the cluster say that they have the address {address}")
            elif len(found) == _PEERS:
                self._say(
                    f"there are more than {_PEERS} hosts: no traffic of encrypted networks with the rest"
                )
            else:
                found[address] = host
        return {h.id: h for h in found.values()}

    def _flow(self, source: Address | None, destination: Address | None) -> Flow:
        return Flow(source, destination, PORT, self._local.version)

    def _barriers(self) -> tuple[Policy, ...]:
        """Nothing leaves but by a peer's own policy, and nothing comes in but by ESP to the one address that
        the other hosts know: both count before what blocks. Whose a block is, its priority tells."""
        return (
            Policy("out", self._flow(None, None), self._reqid, block=True),
            Policy("in", self._flow(None, None), self._reqid, block=True),
            Policy("in", self._flow(None, self._local), _PRIORITY, self._reqid),
        )

    def _outward(self, association: Association) -> Policy:
        flow = self._flow(self._local, association.destination)
        return Policy("out", flow, _PRIORITY, self._reqid, association.spi)

    def _bar(self, sock: XfrmSocket) -> None:
        present = sock.policies(PORT)
        for policy in self._barriers():
            if policy not in present:
                sock.put_policy(policy)

    def _renew(self) -> None:
        self._private, self._public = _new_key()
        self._renewed = time.monotonic()
        self._spoilt = False
        self._spent.clear()

    def _agree(self, sock: XfrmSocket, peer: Host, offer: Offer | None) -> None:
        try:
            self._receive(sock, peer)
            if offer is not None and offer.answers == self._public:
                self._spoilt |= not self._send(sock, peer, offer)
        except ValueError as e:
            self._say(f"host {peer.id[:64]!r} of the cluster has a key that is none: {e}")

    def _receive(self, sock: XfrmSocket, peer: Host) -> None:
        """Be ready for what a peer sends by its present key. :raises ValueError: that is none."""
        address = ip_address(peer.address)
        current = self._inbound.get(peer.id)
        if current and current.offer.answers == peer.key:
            return
        private, public = _new_key()
        for _ in range(_TRIES):
            spi = xfrm.SPI_FIRST + secrets.randbelow(xfrm.SPI_LAST - xfrm.SPI_FIRST)
            association = Association(address, self._local, spi, self._reqid)
            key = derive(private, peer.key, spi, sender=(peer.id, peer.key), receiver=(self._host, public))
            try:
                sock.add(association, key, PORT)
            except NetlinkError as e:
                if e.errno != errno.EEXIST:
                    raise
                continue
            offer = Offer(host=self._host, to=peer.id, spi=spi, public=public, answers=peer.key)
            self._inbound[peer.id] = _Inbound(association, offer)
            return
        raise OSError(errno.EEXIST, "no SPI is free")

    def _send(self, sock: XfrmSocket, peer: Host, offer: Offer) -> bool:
        """Send to a peer as it offers. :returns: whether the offer could be used, else a new one is needed.

        :raises ValueError: the offer's key is none.
        """
        address = ip_address(peer.address)
        current = self._outbound.get(peer.id)
        if current and current.spi == offer.spi:
            return True
        if (peer.id, offer.spi) in self._spent:
            return False
        association = Association(self._local, address, offer.spi, self._reqid)
        key = derive(
            self._private,
            offer.public,
            offer.spi,
            sender=(self._host, self._public),
            receiver=(peer.id, offer.public),
        )
        self._spent.add((peer.id, offer.spi))
        try:
            sock.add(association, key, PORT)
        except NetlinkError as e:
            if e.errno != errno.EEXIST:
                raise
            return False
        sock.put_policy(self._outward(association))
        self._outbound[peer.id] = association
        return True

    def _tidy(self, sock: XfrmSocket) -> None:
        """Remove associations and policies that nobody needs any more.

        Of a peer whose new association has carried nothing yet the former ones stay, as it may still send by
        any of them; so does what a daemon before this one has left, until there is another.
        """
        peers = self._peers or frozenset()
        inbound = {i.association.spi for i in self._inbound.values()}
        outbound = {a.destination: a.spi for a in self._outbound.values()}
        there = sock.associations(self._reqid)
        proven = {a.source for a in there if a.destination == self._local and a.spi in inbound and a.packets}
        former = Counter[Address]()
        for a in reversed(there):
            if a.destination == self._local:
                needed = a.source in peers and a.spi in inbound
                if not needed and a.source in peers and a.source not in proven:
                    former[a.source] += 1
                    needed = former[a.source] <= _FORMER
            else:
                current = outbound.get(a.destination, a.spi) == a.spi
                needed = a.source == self._local and a.destination in peers and current
            if not needed:
                sock.remove(a)
        wanted = {*self._barriers(), *map(self._outward, self._outbound.values())}
        for policy in sock.policies(PORT):
            flow = policy.flow
            undecided = flow.destination in peers and flow.destination not in outbound
            kept = policy.direction == "out" and flow.source == self._local and undecided
            if _is_ours(policy, self._reqid) and policy not in wanted and not kept:
                sock.remove_policy(policy)

    def _repair(self) -> bool:
        """:returns: whether the others have to be told something anew."""
        with XfrmSocket() as sock:
            self._bar(sock)
            there = {(a.destination, a.spi) for a in sock.associations(self._reqid)}
            lost_in = [h for h, i in self._inbound.items() if (self._local, i.association.spi) not in there]
            lost_out = [h for h, a in self._outbound.items() if (a.destination, a.spi) not in there]
            for host in lost_in:
                del self._inbound[host]
            for host in lost_out:
                del self._outbound[host]
            self._spoilt |= bool(lost_out)
            age = time.monotonic() - self._renewed
            renewing = age >= self._rekey or (self._spoilt and age >= _PAUSE)
            if renewing:
                self._renew()
            policies = sock.policies(PORT)
            for association in self._outbound.values():
                if (policy := self._outward(association)) not in policies:
                    sock.put_policy(policy)
            if self._peers is not None:
                self._tidy(sock)
            if lost_in or lost_out:
                _log.warning("another program has removed IPsec associations of ours: made anew")
        return bool(lost_in or renewing)


def clear(instance: Instance) -> None:
    """Remove what a daemon has left that was part of a cluster. :raises Internal: the kernel refuses."""
    _clear(_reqid(instance))


def _reqid(instance: Instance) -> int:
    """What is ours in a kernel that other programs use as well; the upper half is no common default's."""
    return 0x57480000 | zlib.crc32(instance.key.encode()) & 0xFFFF


def _is_ours(policy: Policy, reqid: int) -> bool:
    return reqid in (policy.reqid, policy.priority if policy.block else 0)


def _clear(reqid: int) -> None:
    try:
        with XfrmSocket() as sock:
            for association in sock.associations(reqid):
                sock.remove(association)
            for policy in sock.policies(PORT):
                if _is_ours(policy, reqid):
                    sock.remove_policy(policy)
    except OSError as e:
        if not xfrm.unsupported(e):
            raise Internal(f"cannot remove IPsec associations: {e.strerror or e}") from e


def wanted(network: Network) -> bool:
    """Whether a network is to be encrypted."""
    return network.driver == "overlay" and options.overlay(network.options).encrypted


def derive(
    private: Any, public: str, spi: int, *, sender: tuple[str, str], receiver: tuple[str, str]
) -> bytes:
    """The key of one association, the same from either side's private key.

    :param sender: id and public key of the host that sends by it, ``receiver`` likewise.
    :raises ValueError: ``public`` is no key, or one that yields no secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    secret = private.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True)))
    names = "\0".join((*sender, *receiver)).encode()
    info = _CONTEXT + spi.to_bytes(4, "big") + names
    return HKDF(SHA256(), length=xfrm.KEY_SIZE, salt=None, info=info).derive(secret)


def _new_key() -> tuple[Any, str]:
    """A private key, and its public one in base64."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    return private, base64.b64encode(private.public_key().public_bytes_raw()).decode()


def _close(watch: XfrmWatch | None) -> None:
    if watch is not None:
        watch.close()
