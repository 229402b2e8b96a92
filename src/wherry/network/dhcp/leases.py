"""DHCP leases of running containers: obtained at the start, renewed while they run, released at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from wherry.errors import Internal, Unavailable, WherryError
from wherry.network.dhcp.client import DhcpExchange, LeaseRefused
from wherry.network.dhcp.message import DhcpLease
from wherry.network.types import Endpoint

_log = logging.getLogger(__name__)
RETRY = 30.0
"""Seconds until a renewal without an answer is tried again."""


@dataclass
class _Held:
    path: Path
    endpoint: Endpoint
    hostname: str
    lease: DhcpLease
    renew_at: float
    ends_at: float


Moved = Callable[[Endpoint, Endpoint], None]


class DhcpLeases:
    """Safe to use from any thread. Renewals run on their own thread, which sleeps until the next one is due.

    :param moved: called with an endpoint before and after the change, when a server gave it another address.
    """

    def __init__(self, moved: Moved) -> None:
        self._moved = moved
        self._held: dict[str, _Held] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def obtain(self, path: Path, endpoint: Endpoint, hostname: str, wanted: str = "") -> Endpoint:
        """Obtain a lease for an endpoint whose interface is up. :returns: the endpoint with its address.

        :raises Internal: no server grants one.
        """
        try:
            with DhcpExchange(path, endpoint, hostname) as exchange:
                lease = exchange.obtain(IPv4Address(wanted) if wanted else None)
        except (OSError, WherryError, LeaseRefused) as e:
            reason = e.message if isinstance(e, WherryError) else str(e) or "the DHCP server refused"
            raise Internal(f"cannot get an address on network {endpoint.network_name}: {reason}") from e
        found = with_lease(endpoint, lease)
        self._hold(path, found, hostname, lease)
        return found

    def adopt(self, path: Path, endpoint: Endpoint, hostname: str) -> None:
        """Take over the lease of a container that ran before this process. It is renewed at once, because its
        remaining time is unknown."""
        unknown = DhcpLease(IPv4Address(endpoint.ip), endpoint.prefix_len, None, IPv4Address(0), 0)
        self._hold(path, endpoint, hostname, unknown)

    def release(self, endpoint: Endpoint) -> None:
        """Release an address; its namespace must still exist. An endpoint without a lease is no error."""
        with self._changed:
            held = self._held.pop(endpoint.id, None)
        if held is None:
            return
        try:
            with DhcpExchange(held.path, held.endpoint, held.hostname) as exchange:
                known = held.lease.seconds > 0
                exchange.release(held.lease if known else exchange.again(held.lease.address, patient=False))
        except (OSError, Unavailable, LeaseRefused):
            pass  # the interface or the server is gone: the lease expires by itself

    def close(self) -> None:
        """Stop renewing. Containers keep their addresses; the next process renews them."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _hold(self, path: Path, endpoint: Endpoint, hostname: str, lease: DhcpLease) -> None:
        now = time.monotonic()
        with self._changed:
            self._held[endpoint.id] = _Held(
                path,
                endpoint,
                hostname,
                lease,
                now + (lease.renew_after if lease.seconds else 0),
                now + (lease.seconds or 3600),
            )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dhcp", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                due = min(self._held.values(), key=lambda h: h.renew_at, default=None)
                left = None if due is None else due.renew_at - time.monotonic()
                if due is None or (left is not None and left > 0):
                    self._changed.wait(left)
                    continue
            self._renew(due)

    def _renew(self, held: _Held) -> None:
        try:
            lease = self._renewed(held)
        except (OSError, WherryError, LeaseRefused) as e:
            with self._changed:
                held.renew_at = time.monotonic() + RETRY
            _log.warning(
                "the lease of container %s on network %s is not renewed: %s",
                held.endpoint.container_id[:12], held.endpoint.network_name, e,
            )  # fmt: skip
            return
        before, after = held.endpoint, with_lease(held.endpoint, lease)
        with self._changed:
            if self._held.get(before.id) is not held:
                return  # it ended meanwhile
            held.lease, held.endpoint = lease, after
            held.renew_at = time.monotonic() + lease.renew_after
            held.ends_at = time.monotonic() + lease.seconds
        if after != before:
            try:
                self._moved(before, after)
            except (OSError, WherryError) as e:
                _log.error("cannot give container %s its new address: %s", before.container_id[:12], e)

    @staticmethod
    def _renewed(held: _Held) -> DhcpLease:
        with DhcpExchange(held.path, held.endpoint, held.hostname) as exchange:
            try:
                if not held.lease.seconds:
                    return exchange.again(held.lease.address)
                if time.monotonic() < held.ends_at:
                    return exchange.renew(held.lease)
            except LeaseRefused:
                pass
            return exchange.obtain()


def with_lease(endpoint: Endpoint, lease: DhcpLease) -> Endpoint:
    return msgspec.structs.replace(
        endpoint,
        ip=str(lease.address),
        prefix_len=lease.prefix_len,
        gateway=str(lease.gateway) if lease.gateway is not None else "",
    )
