"""The built-in drivers, and those from plugins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wherry.errors import WherryError
from wherry.linux.plugins import Plugins
from wherry.network import plugins as remote
from wherry.network.catalog import Catalog
from wherry.network.drivers import NetworkDriver, Traits
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.drivers.host import HostDriver
from wherry.network.drivers.none import NoneDriver
from wherry.network.drivers.remote import RemoteDriver
from wherry.network.drivers.vlans import IpvlanDriver, MacvlanDriver
from wherry.network.overlays import overlay_driver
from wherry.network.types import NO_BRIDGE, Instance, Network, NetworkConfig
from wherry.state.networks import Networks


@dataclass(frozen=True)
class Makings:
    """What the built-in drivers need to be made."""

    instance: Instance
    config: NetworkConfig
    rows: Networks
    catalog: Catalog


def built_in(made: Makings) -> tuple[NetworkDriver, ...]:
    """One line for each driver; the order has no meaning.

    :raises InvalidArgument: a driver's configuration is invalid.
    """
    theirs = made.config.bridge
    return (
        BridgeDriver(made.instance, made.config.mtu, "" if theirs == NO_BRIDGE else theirs),
        HostDriver(),
        NoneDriver(),
        MacvlanDriver(made.instance),
        IpvlanDriver(made.instance),
        overlay_driver(made.instance, made.config, made.rows, made.catalog),
    )


class Drivers:
    """Drivers by name. Safe to use from any thread."""

    def __init__(self, known: Iterable[NetworkDriver], plugins: Plugins) -> None:
        self.built_in = {driver.name: driver for driver in known}
        self._plugins = plugins
        self._found: dict[str, NetworkDriver] = {}
        """Drivers from plugins, added when they are first used."""

    @property
    def names(self) -> list[str]:
        return sorted({*self.built_in, *self._found})

    def get(self, name: str) -> NetworkDriver:
        """:raises NotFound: no driver and no plugin has this name."""
        driver = self.built_in.get(name) or self._found.get(name)
        if driver is None:
            driver = RemoteDriver(remote.find(self._plugins, name, "NetworkDriver"))
            self._found[name] = driver
        return driver

    def of(self, network: Network) -> NetworkDriver:
        """:raises NotFound: as :meth:`get`."""
        return self.get(network.driver)

    def has(self, network: Network) -> bool:
        try:
            self.of(network)
        except WherryError:
            return False
        return True

    def own(self, network: Network) -> NetworkDriver | None:
        """The network's driver, if it is built in."""
        return self.built_in.get(network.driver)

    def traits(self, name: str) -> Traits:
        """The traits of a driver that may be missing now: a plugin is expected to come back."""
        driver = self.built_in.get(name)
        return driver.traits if driver is not None else RemoteDriver.traits
