"""What the managers of networks and of sandboxes share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.linux.plugins import Plugins
from wherry.network import plugins as remote
from wherry.network import sandbox
from wherry.network.catalog import Catalog
from wherry.network.dns.server import DnsServer
from wherry.network.drivers.builtin import Drivers
from wherry.network.hostsetup import HostSetup
from wherry.network.ownership import Marks
from wherry.network.plugins.ipam import RemoteIpam
from wherry.network.publishing import Publishing
from wherry.network.types import Instance, NetworkConfig
from wherry.state.networks import Networks


@dataclass(frozen=True)
class NetworkParts:
    """Everything except ``marks`` is safe to use from any thread. Namespaces are pinned in ``pins``."""

    instance: Instance
    config: NetworkConfig
    pins: Path
    rows: Networks
    catalog: Catalog
    drivers: Drivers
    plugins: Plugins
    publishing: Publishing
    dns: DnsServer
    host: HostSetup
    marks: Marks
    reaper: sandbox.Reaper

    def ipam(self, name: str) -> RemoteIpam:
        """An IPAM plugin. :raises NotFound: there is none with this name."""
        return RemoteIpam(remote.find(self.plugins, name, "IpamDriver"))
