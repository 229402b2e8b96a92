"""The network of builds: it exists while a build needs it."""

from __future__ import annotations

import threading

from wherry.network.defaults import builds_network
from wherry.network.drivers.bridge import used_subnets
from wherry.network.manager import NetworkManager
from wherry.network.parts import NetworkParts
from wherry.network.types import BUILDS


class BuildNetwork:
    """It has its own subnet and bridge, because the default bridge may have no free address.
    Safe to use from any thread."""

    def __init__(self, parts: NetworkParts, networks: NetworkManager) -> None:
        self._parts = parts
        self._networks = networks
        self._lock = threading.Lock()
        self._users = 0

    def enter(self) -> str:
        """Returns what to request for a sandbox on it. Call :meth:`leave` when the caller's sandboxes are
        gone.

        :raises Forbidden: no free subnet. :raises Internal: the host refuses.
        """
        with self._lock:
            if self._parts.catalog.builds is None:
                self._make()
            self._users += 1
        return BUILDS

    def _make(self) -> None:
        catalog = self._parts.catalog
        while True:
            seen = catalog.all()
            used = {*used_subnets(), *catalog.taken()}
            network = builds_network(self._parts.instance, self._parts.config, used)
            if catalog.claim(network, seen):
                break
        try:
            self._networks.make(network)
        except BaseException:
            catalog.remove(network)
            raise

    def leave(self) -> None:
        """Some time after the last user has left, the network is removed."""
        with self._lock:
            self._users -= 1
        self._parts.reaper.later(self.drop)

    def drop(self) -> None:
        """Remove it if nobody uses it."""
        with self._lock:
            network = self._parts.catalog.builds
            if network is not None and not self._users:
                self._networks.unmake(network)
