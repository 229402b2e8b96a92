"""``none``: a namespace with a loopback interface and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import Forbidden
from wherry.network.drivers import Local, Namespace
from wherry.network.types import Endpoint, Network


class NoneDriver(Local):
    """The loopback interface is the sandbox's own, so there is nothing to do."""

    name = "null"

    publishes = False

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        raise Forbidden(f'only one instance of "{self.name}" network is allowed')

    def start(self, network: Network) -> None:
        pass

    def stop(self, network: Network) -> None:
        pass

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        pass

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        return True

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        pass
