"""``none``: a namespace with a loopback interface and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import Forbidden
from wherry.network.drivers import Namespace, SingleHostDriver, Traits
from wherry.network.types import Endpoint, Network


class NoneDriver(SingleHostDriver):
    """The sandbox itself has the loopback interface, so the driver does nothing."""

    name = "null"
    traits = Traits(interface=False, names=False, shared=False)

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        raise Forbidden(f'only one instance of "{self.name}" network is allowed')

    def start(self, network: Network) -> None:
        pass

    def stop(self, network: Network) -> None:
        pass

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        pass
