"""``host``: the container uses the host's own interfaces; there is no namespace to set up."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import Forbidden, Internal
from wherry.network.drivers import Namespace, SingleHostDriver, Traits
from wherry.network.types import Endpoint, Network


class HostDriver(SingleHostDriver):
    name = "host"
    traits = Traits(interface=False, namespace=False, names=False, shared=False)

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        raise Forbidden(f'only one instance of "{self.name}" network is allowed')

    def start(self, network: Network) -> None:
        pass

    def stop(self, network: Network) -> None:
        pass

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        raise Internal(f"cannot attach to network {network.name}: it has no namespace of its own")
