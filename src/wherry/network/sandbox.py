"""Network namespaces of containers: made, furnished, kept at ``<run>/netns/<container id>``, let go.

A veth pair goes away with its namespace. The kernel does that in the background, for many at once, where
deleting the pair by itself makes the caller wait for 30 ms. So letting go is one unmount, and
:class:`Reaper` looks later whether something (a shell that was left inside) keeps the namespace, and takes
the interface away from it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import Internal, WherryError
from wherry.linux import netns, sysctl
from wherry.linux import rtnetlink as rt
from wherry.linux.netlink import NetlinkSocket
from wherry.network.drivers import Driver, Namespace
from wherry.network.types import Endpoint, Network

_log = logging.getLogger(__name__)

REAP_AFTER = 2.0
"""Seconds the kernel gets to remove the interfaces of a namespace that was let go."""


@dataclass(frozen=True)
class Attachment:
    """An endpoint with what is needed to make it."""

    network: Network
    driver: Driver
    endpoint: Endpoint


def build(path: Path, attachments: Sequence[Attachment]) -> None:
    """Make the namespace, bring its loopback interface up and attach every endpoint.

    The first attachment gets the default route. Nothing is left behind on failure.

    :raises Internal: the host refuses, with the reason.
    """
    try:
        inside = netns.create(path, _open_inside)
    except OSError as e:
        raise Internal(f"cannot make a network namespace: {e.strerror or e}") from e
    try:
        with inside:
            inside.transact(rt.set_link(1, up=True))
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for position, a in enumerate(attachments):
                    namespace = Namespace(fd, inside)
                    a.driver.attach(a.network, a.endpoint, namespace, default_route=position == 0)
            finally:
                os.close(fd)
    except BaseException as e:
        netns.unpin(path)
        if isinstance(e, OSError):
            raise Internal(f"cannot set up a network namespace: {e.strerror or e}") from e
        raise


def _open_inside() -> NetlinkSocket:
    """Runs in the new namespace: interfaces that come later get no IPv6 address; ``::1`` stays."""
    try:
        sysctl.write("1", "net", "ipv6", "conf", "default", "disable_ipv6")
    except FileNotFoundError:
        pass  # a kernel without IPv6
    return NetlinkSocket()


def repin(path: Path, pid: int) -> bool:
    """Pin the namespace of a running container again. :returns: whether it is pinned afterwards."""
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
    """Removes interfaces that should have gone away with their namespace. Safe to use from any thread."""

    def __init__(self, *, after: float = REAP_AFTER) -> None:
        self._after = after
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        self._timer: threading.Timer | None = None

    def later(self, remove: Callable[[], None]) -> None:
        """Call ``remove`` in a while, together with others."""
        with self._lock:
            self._waiting.append(remove)
            if self._timer is None:
                self._timer = threading.Timer(self._after, self.run)
                self._timer.daemon = True
                self._timer.start()

    def run(self) -> None:
        """Do now all that waits."""
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
