"""Network namespaces of containers: made, set up, pinned at ``<run>/netns/<container id>``, released.

A veth pair goes away with its namespace. The kernel does that in the background, for many pairs at once;
deleting one pair directly makes the caller wait for 30 ms. So a release is only an unmount. Later
:class:`Reaper` checks whether something keeps the namespace alive (a shell that was left inside); if so, it
removes the interface.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path

import msgspec

from wherry.errors import Internal, InvalidArgument, WherryError
from wherry.linux import netns, sysctl
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkError, NetlinkSocket
from wherry.network.drivers import Namespace, NetworkDriver
from wherry.network.endpoints import gateway_of
from wherry.network.types import DHCP, Endpoint, Family, Network

_log = logging.getLogger(__name__)

REAP_AFTER = 2.0
"""Seconds that the kernel has to remove the interfaces of a released namespace."""


@dataclass(frozen=True)
class SandboxEndpoint:
    """An endpoint, with everything that is needed to make it."""

    network: Network
    driver: NetworkDriver
    endpoint: Endpoint


Lend = Callable[[Path, Endpoint], Endpoint]
"""Obtains an address for an endpoint whose interface is up, from the DHCP server of its network."""


def build(path: Path, attachments: Sequence[SandboxEndpoint], lend: Lend) -> list[Endpoint]:
    """Make the namespace, bring its loopback interface up, attach every endpoint and set the routes.

    Nothing is left behind on failure.

    :returns: the endpoints, with the addresses that they obtained.
    :raises Internal: the host refuses, with the reason.
    """
    try:
        inside = netns.create(path, _open_inside)
    except OSError as e:
        raise Internal(f"cannot make a network namespace: {e.strerror or e}") from e
    try:
        with inside:
            inside.transact(rt.set_link(1, up=True))
            endpoints = _furnish(path, inside, attachments, lend)
            _route(inside, endpoints)
            return endpoints
    except BaseException as e:
        netns.unpin(path)
        if isinstance(e, OSError):
            raise Internal(f"cannot set up a network namespace: {e.strerror or e}") from e
        raise


def connect(path: Path, attachment: SandboxEndpoint, others: Sequence[Endpoint], lend: Lend) -> Endpoint:
    """Attach one more endpoint to a namespace that has others.

    :returns: the endpoint, with the address that it obtained.
    :raises Internal: the host refuses, with the reason; the interface is removed again.
    """
    with _inside(path, "connect") as inside:
        try:
            (endpoint,) = _furnish(path, inside, [attachment], lend)
            _route(inside, [*others, endpoint])
        except BaseException:
            _remove(inside, attachment.endpoint.ifname)
            _route(inside, others)
            raise
        return endpoint


def disconnect(path: Path, endpoint: Endpoint, left: Sequence[Endpoint]) -> None:
    """Remove an endpoint's interface from a namespace; if it is gone already, nothing happens.

    :raises Internal: the host refuses, with the reason.
    """
    with _inside(path, "disconnect") as inside:
        if endpoint.ifname:
            _remove(inside, endpoint.ifname)
        _route(inside, left)


def strip(path: Path, names: Sequence[str]) -> None:
    """Remove interfaces from a namespace that is being released. If something keeps it alive (a shell that
    was left inside), that has no network any more. Missing interfaces are no error."""
    if not names or not netns.is_pinned(path):
        return
    with _inside(path, "strip") as inside:
        for name in names:
            _remove(inside, name)


def readdress(path: Path, before: Endpoint, after: Endpoint, endpoints: Sequence[Endpoint]) -> None:
    """Change an endpoint's IPv4 address; ``endpoints`` are all endpoints after the change."""
    with _inside(path, "change") as inside:
        link = rt.link(inside, after.ifname)
        if link is None:
            raise Internal(f"interface {after.ifname} does not exist")
        if (before.ip, before.prefix_len) != (after.ip, after.prefix_len):
            # the old one first: if it were removed later, the kernel would remove other addresses of its
            # subnet with it
            inside.transact(rt.delete_address(link.index, ip_interface(f"{before.ip}/{before.prefix_len}")))
            inside.transact(rt.add_address(link.index, ip_interface(f"{after.ip}/{after.prefix_len}")))
        _route(inside, endpoints)


@contextmanager
def _inside(path: Path, what: str) -> Iterator[NetlinkSocket]:
    try:
        with netns.inside(path, NetlinkSocket) as sock:
            yield sock
    except OSError as e:
        raise Internal(f"cannot {what} a network namespace: {e.strerror or e}") from e


def _furnish(
    path: Path, inside: NetlinkSocket, attachments: Sequence[SandboxEndpoint], lend: Lend
) -> list[Endpoint]:
    endpoints = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for a in attachments:
            changed = a.driver.attach(a.network, a.endpoint, Namespace(fd, inside, str(path)))
            endpoint = changed or a.endpoint
            if endpoint.ifname and a.network.ipam_driver == DHCP:
                _configure(path, inside, msgspec.structs.replace(endpoint, ip="", prefix_len=0))
                endpoint = lend(path, endpoint)
                link = rt.link(inside, endpoint.ifname)
                if link is not None:
                    address = ip_interface(f"{endpoint.ip}/{endpoint.prefix_len}")
                    inside.transact(rt.add_address(link.index, address))
            elif endpoint.ifname:
                _configure(path, inside, endpoint)
            endpoints.append(endpoint)
    finally:
        os.close(fd)
    return endpoints


def _configure(path: Path, inside: NetlinkSocket, endpoint: Endpoint) -> None:
    """Set parameters and addresses, and bring it up."""
    index = rt.index(inside, endpoint.ifname)
    if index is None:
        raise OSError(errno.ENODEV, f"interface {endpoint.ifname} does not exist")
    if endpoint.ip6 or endpoint.sysctls or any(":" in a for a in endpoint.link_local):
        netns.inside(path, partial(_parameters, endpoint))
    addresses = [
        f"{ip}/{n}"
        for ip, n in ((endpoint.ip, endpoint.prefix_len), (endpoint.ip6, endpoint.prefix_len6))
        if ip
    ]
    addresses += [f"{a}/{64 if ':' in a else 16}" for a in endpoint.link_local]
    up = [rt.set_link(index, up=True)]
    inside.transact(*up, *(rt.add_address(index, ip_interface(a)) for a in addresses))


def _parameters(endpoint: Endpoint) -> None:
    """Runs in the namespace. :raises InvalidArgument: unknown parameter, or invalid value."""
    if endpoint.ip6 or any(":" in a for a in endpoint.link_local):
        sysctl.write("0", "net", "ipv6", "conf", endpoint.ifname, "disable_ipv6")
    for key, value in endpoint.sysctls.items():
        family, kind, name = key.split(".")
        try:
            sysctl.write(value, "net", family, kind, endpoint.ifname, name)
        except OSError as e:
            shown = f"net.{family}.{kind}.{endpoint.ifname}.{name}={value}"
            raise InvalidArgument(f"cannot set sysctl {shown}: {e.strerror or e}") from e


def _route(inside: NetlinkSocket, endpoints: Sequence[Endpoint]) -> None:
    """Set the default route of each family, or none."""
    families: tuple[tuple[Family, int], ...] = ((4, socket.AF_INET), (6, socket.AF_INET6))
    for family, number in families:
        chosen = gateway_of(endpoints, family)
        if chosen is not None:
            index = rt.index(inside, chosen.ifname)
            if index is None:
                raise OSError(errno.ENODEV, f"interface {chosen.ifname} does not exist")
            gateway = ip_address(chosen.gateway if family == 4 else chosen.gateway6)
            inside.transact(rt.set_default_route(gateway, index))
        else:
            _without_default(inside, number)


def _without_default(inside: NetlinkSocket, family: int) -> None:
    try:
        inside.transact(rt.delete_default_route(family))
    except NetlinkError as e:
        if e.errno not in (errno.ESRCH, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise


def _remove(inside: NetlinkSocket, name: str) -> None:
    try:
        inside.transact(rt.delete_link(name))
    except NetlinkError as e:
        if e.errno != errno.ENODEV:
            raise


def _open_inside() -> NetlinkSocket:
    """Runs in the new namespace. Interfaces that come later get no IPv6 address unless their endpoint has
    one, and ignore router advertisements; ``::1`` stays."""
    for key, value in (("disable_ipv6", "1"), ("accept_ra", "0")):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            sysctl.write(value, "net", "ipv6", "conf", "default", key)
    return NetlinkSocket()


def repin(path: Path, pid: int) -> bool:
    """Pin the namespace of a running container again. :returns: whether that worked."""
    if netns.is_pinned(path):
        return True
    if pid <= 0:
        return False
    path.unlink(missing_ok=True)
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return False
        netns.pin(f"/proc/{pid}/ns/net", path)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ESRCH):
            return False
        raise Internal(f"cannot pin the network namespace of process {pid}: {e.strerror or e}") from e
    return True


class Reaper:
    """Removes interfaces that did not go away with their namespace. Safe to use from any thread."""

    def __init__(self, *, after: float = REAP_AFTER) -> None:
        self._after = after
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        self._timer: threading.Timer | None = None

    def later(self, remove: Callable[[], None]) -> None:
        """Call ``remove`` after a while, together with others."""
        with self._lock:
            self._waiting.append(remove)
            if self._timer is None:
                self._timer = threading.Timer(self._after, self.run)
                self._timer.daemon = True
                self._timer.start()

    def run(self) -> None:
        """Call everything that waits now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
        for remove in waiting:
            try:
                remove()
            except WherryError as e:
                _log.warning("%s", e.message)
