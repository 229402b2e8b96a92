"""IPsec between the hosts of a cluster, for overlay networks that ask for it.

Encrypted networks send their VXLAN packets to a separate UDP port. The kernel lets no packet to or from this
port pass unless ESP carries it (RFC 4303, transport mode, AES-GCM). IPsec policies enforce this for all
present and future peers. The nft table enforces it once more (``ruleset``), in case another program flushes
the policies. On the loopback interface the nft table alone enforces it, because the kernel applies no
policies there.

Each association (one per direction between two hosts) has a unique key that is never used again:

- A host publishes a public key (X25519, RFC 7748); the private key exists only in its memory. It makes a new
  key whenever it cannot be sure of its sequence numbers: at its start, with a new lease, after somebody
  removed its associations; and also every half day.
- A host that sees such a key first makes the inbound association for packets *from* that host, so that it is
  ready to receive. Then it publishes its offer: the SPI, and a public key made for this purpose only. Both
  sides derive the association's key from the two key pairs (HKDF, RFC 5869).
- When the first host sees the offer that answers its key, it makes the outbound association and uses it from
  then on.

So a host sends with a new key only when the receiver has it. Former associations stay until the first packet
has arrived on the new one. Reading the store reveals no association key; but who can write to the store could
pretend to be a host.
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
from wherry.linux.xfrm import Address, Association, Flow, XfrmPolicy, XfrmSocket, XfrmWatch
from wherry.network.cluster.records import Host, Offer
from wherry.network.types import Instance

_log = logging.getLogger(__name__)
PORT = 4790
_PRIORITY = 100
_CONTEXT = b"wherry overlay esp 1"
_TRIES = 8
_FORMER = 8
"""Former inbound associations that are kept per host until the present one has carried a packet."""
_PAUSE = 1.0
"""Seconds until a new key is made in any case."""
_PEERS = 1000


@dataclass(frozen=True)
class _Inbound:
    """An inbound association: for packets from a peer, with the offer that was made for it."""

    association: Association
    offer: Offer


class Ipsec:
    """Safe to use from any thread."""

    def __init__(
        self, instance: Instance, host: str, local: str, *, rekey: int, changed: Callable[[], None]
    ) -> None:
        """:param host: this host's id. :param local: its address for the others. :param rekey: seconds after
        which it makes a new key. :param changed: called when the other hosts must be told something new.
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
        """Offers used with this key, by host and SPI: none is used a second time."""
        self._inbound: dict[str, _Inbound] = {}
        self._outbound: dict[str, Association] = {}
        self._peers: frozenset[Address] | None = None
        """The other hosts' addresses; None until they are known."""
        self._spoilt = False
        """Whether an offer or an association is lost, so that a new key is needed."""
        self._failed = False
        """Whether the kernel has refused something that must be tried again."""
        self._said: set[str] = set()
        self._watch: XfrmWatch | None = None
        self._changed = changed

    @property
    def public(self) -> str:
        """This host's public key; ``""`` if it has no encrypted network."""
        with self._lock:
            return self._public

    # -- networks --------------------------------------------------------------------------------------

    def probe(self) -> None:
        """:raises Unavailable: the kernel does not support it."""
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
        """An encrypted network exists: from now on none of its packets is sent or accepted unencrypted.

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
            self._changed()

    def release(self, network_id: str) -> None:
        """An encrypted network was removed; with the last one all IPsec state goes.
        :raises Internal: the kernel refuses."""
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
        _close(watch)  # without the lock: its thread may be waiting for it
        try:
            self.sweep()
        finally:
            self._changed()

    def sweep(self) -> None:
        """Remove what is left in the kernel if there is no encrypted network.

        :raises Internal: the kernel refuses.
        """
        with self._lock:
            if not self._users:
                _clear(self._reqid)

    def close(self) -> None:
        """Stop all maintenance. The kernel's state stays, for containers that keep running."""
        with self._lock:
            watch, self._watch = self._watch, None
        _close(watch)

    # -- peers -----------------------------------------------------------------------------------------

    def start_over(self) -> None:
        """The other hosts may have removed their sides: make a new key and new offers, if any are needed."""
        with self._lock:
            if self._users:
                self._inbound.clear()
                self._renew()

    def settle(self, hosts: Iterable[Host], offers: Mapping[str, Offer]) -> list[Offer]:
        """Make the associations for these hosts and their offers, and remove those of other hosts.

        :param offers: to this host, by the id of the host that made them. :returns: this host's offers.
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
        """Repair what another program has changed, and make a new key when it is due."""
        with self._lock:
            if not self._users:
                return
            anew = self._failed
            try:
                anew |= self._repair()
            except OSError as e:
                self._fail([e])
        if anew:
            self._changed()

    # -- with the lock held ----------------------------------------------------------------------------

    def _fail(self, failures: Sequence[OSError]) -> None:
        if failures and not self._failed:
            _log.error("cannot set up IPsec with other hosts, will retry: %s", failures[0])
        self._failed = bool(failures)

    def _say(self, message: str) -> None:
        """Log a warning, but each only once."""
        if message not in self._said:
            self._said.add(message)
            _log.warning("%s", message)

    def _peers_of(self, hosts: Iterable[Host]) -> dict[str, Host]:
        """The other hosts with a usable address, by id; one per address."""
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

    def _barriers(self) -> tuple[XfrmPolicy, ...]:
        """Block everything that no peer's policy allows to leave, and everything that does not arrive by ESP
        at the address that the other hosts know. Both allowing policies have precedence over the blocks. A
        block's priority shows which daemon owns it."""
        return (
            XfrmPolicy("out", self._flow(None, None), self._reqid, block=True),
            XfrmPolicy("in", self._flow(None, None), self._reqid, block=True),
            XfrmPolicy("in", self._flow(None, self._local), _PRIORITY, self._reqid),
        )

    def _outward(self, association: Association) -> XfrmPolicy:
        flow = self._flow(self._local, association.destination)
        return XfrmPolicy("out", flow, _PRIORITY, self._reqid, association.spi)

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
            self._say(f"host {peer.id[:64]!r} of the cluster announced an invalid public key: {e}")

    def _receive(self, sock: XfrmSocket, peer: Host) -> None:
        """Prepare to receive what a peer sends with its present key.
        :raises ValueError: an invalid public key."""
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
        """Send to a peer with the key of its offer. :returns: whether the offer could be used; if not, a new
        one is needed.

        :raises ValueError: the offer has an invalid public key.
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
        """Remove associations and policies that are no longer needed.

        While a peer's new inbound association has carried no packet, the former ones stay, because the peer
        may still use any of them. Those of an earlier daemon also stay until there is a new one.
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
        """:returns: whether the other hosts must be told something new."""
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
                _log.warning("another program has removed our IPsec associations; they were restored")
        return bool(lost_in or renewing)


def clear(instance: Instance) -> None:
    """Remove the IPsec state of an earlier daemon that was in a cluster.
    :raises Internal: the kernel refuses."""
    _clear(_reqid(instance))


def count(instance: Instance) -> int:
    """The number of this daemon's associations and policies in the kernel."""
    reqid = _reqid(instance)
    try:
        with XfrmSocket() as sock:
            ours = [policy for policy in sock.policies(PORT) if _is_ours(policy, reqid)]
            return len(sock.associations(reqid)) + len(ours)
    except OSError as e:
        if not xfrm.unsupported(e):
            raise Internal(f"cannot list IPsec associations: {e.strerror or e}") from e
        return 0


def _reqid(instance: Instance) -> int:
    """The mark of our entries in a kernel that other programs use too.
    Its upper half is no common program's default."""
    return 0x57480000 | zlib.crc32(instance.key.encode()) & 0xFFFF


def _is_ours(policy: XfrmPolicy, reqid: int) -> bool:
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


def derive(
    private: Any, public: str, spi: int, *, sender: tuple[str, str], receiver: tuple[str, str]
) -> bytes:
    """The key of one association; both sides derive the same from their own private key.

    :param sender: id and public key of the host that sends with it; ``receiver`` likewise.
    :raises ValueError: ``public`` is an invalid public key, or one that yields no secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    secret = private.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True)))
    names = "\0".join((*sender, *receiver)).encode()
    info = _CONTEXT + spi.to_bytes(4, "big") + names
    return HKDF(SHA256(), length=xfrm.KEY_SIZE, salt=None, info=info).derive(secret)


def _new_key() -> tuple[Any, str]:
    """A private key, and its public key in base64."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    return private, base64.b64encode(private.public_key().public_bytes_raw()).decode()


def _close(watch: XfrmWatch | None) -> None:
    if watch is not None:
        watch.close()
