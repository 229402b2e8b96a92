"""``host``: the container shares the host's own interfaces; there is no namespace to furnish."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import Forbidden, Internal
from wherry.network.drivers import Local, Namespace
from wherry.network.types import Endpoint, Network


class HostDriver(Local):
    name = "host"

    publishes = False

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        raise Forbidden(f'only one instance of "{self.name}" network is allowed')

    def start(self, network: Network) -> None:
        pass

    def stop(self, network: Network) -> None:
        pass

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        raise Internal(f"cannot attach to network {network.name}: it has no namespace of its own")

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        return True

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        pass
