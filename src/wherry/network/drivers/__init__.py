"""What a network driver is: it makes a kind of network real on this host and puts endpoints on it.

A driver owns the links, and addresses on the host's side. It does not choose addresses (``ipam``), give them
to a container's interface (``sandbox``), publish ports (``ports``, ``firewall``) or keep rows. Its calls come
in this order for one network::

    check  create  start  (attach  detach)*  stop  remove

``start`` and ``detach`` and ``stop`` may be repeated and may find what they make or remove half there, after
a crash. ``attach`` leaves nothing behind when it fails but what goes away with the container's namespace,
or is removed by ``detach``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wherry.linux.netlink import NetlinkSocket
from wherry.network.types import Endpoint, Network


@dataclass(frozen=True)
class Namespace:
    """A container's namespace while it is furnished: ``fd`` refers to it, ``netlink`` speaks to it, and it is
    pinned at ``path``."""

    fd: int
    netlink: NetlinkSocket
    path: str = ""


class Local:
    """A driver whose networks nobody else has to be told of."""

    def create(self, network: Network) -> None:
        pass

    def remove(self, network: Network) -> None:
        pass


class Driver(Protocol):
    """All methods are safe to call from several threads for different endpoints."""

    @property
    def name(self) -> str: ...

    @property
    def publishes(self) -> bool:
        """Whether ports of containers on it can be published by the host."""

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        """Whether such a network can be made here, beside the others; with what the driver chooses itself.

        :raises InvalidArgument, Forbidden, Unavailable: it cannot, with the reason.
        """

    def create(self, network: Network) -> None:
        """Called once in a network's life, where somebody else must be told of it.

        :raises Internal, Unavailable: that fails, with the reason.
        """

    def remove(self, network: Network) -> None:
        """The opposite. Raises as :meth:`create`."""

    def start(self, network: Network) -> None:
        """Make the network exist.

        :raises Internal: the host refuses, with the reason.
        """

    def stop(self, network: Network) -> None:
        """Remove the network with every endpoint on it."""

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> Endpoint | None:
        """Put an interface ``endpoint.ifname`` with the endpoint's MAC address into the namespace.

        :returns: the endpoint where the driver chose something of it, None where it is as it was asked for.

        :raises Internal: the host refuses, with the reason.
        """

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        """Take over the endpoint of a running container. :returns: False if its interface is gone."""

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Remove what of the endpoint is on the host's side."""
