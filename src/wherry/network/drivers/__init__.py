"""The network driver Protocol: a driver creates a kind of network on this host and connects endpoints to it.

A driver owns the interfaces, and the addresses on the host's side. It does not choose addresses (``ipam``),
assign them to a container's interface (``sandbox``), publish ports (``ports``, ``firewall``) or store rows.
For one network its methods are called in this order::

    check  sharing.create  start  (attach  detach)*  stop  sharing.remove

``start``, ``detach`` and ``stop`` may be called again, and after a crash may find their work half done. If
``attach`` fails, whatever it leaves behind goes away with the container's namespace or is removed by
``detach``.

A built-in driver is a file of this package and a line in ``builtin``. Callers use its methods and traits, and
never compare its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Protocol

from wherry.linux.netlink import NetlinkSocket
from wherry.model.container import EndpointRequest
from wherry.network.ruleset import Bridged
from wherry.network.types import Endpoint, Network

Scope = str


@dataclass(frozen=True)
class Namespace:
    """A container's namespace while it is being set up: ``fd`` refers to it, ``netlink`` is a socket in it,
    and it is pinned at ``path``."""

    fd: int
    netlink: NetlinkSocket
    path: str = ""


@dataclass(frozen=True)
class Traits:
    """The properties that all networks of a driver have.

    :ivar publishes: the host can publish ports of its containers. :ivar interface: a container gets an
        interface.
    :ivar namespace: a container has its own network namespace. :ivar names: containers resolve each other's
        names.
    :ivar shared: a container can be on other networks too. :ivar scopes: ``local``, ``global``.
    :ivar dhcp: it can use an external DHCP server. :ivar unaddressed: it can be without addresses of either
        family.
    """

    publishes: bool = False
    interface: bool = True
    namespace: bool = True
    names: bool = True
    shared: bool = True
    scopes: tuple[Scope, ...] = ("local",)
    dhcp: bool = False
    unaddressed: bool = False


@dataclass(frozen=True)
class Elsewhere:
    """The other hosts' part of a network: names and addresses of hosts with containers on it (including this
    one), and the other hosts' endpoints."""

    peers: tuple[tuple[str, str], ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


class OverlayListener(Protocol):
    """Acts on what other hosts publish. It is called on a thread of the driver."""

    def appeared(self, network: Network) -> None:
        """A network from another host exists here now. :raises Internal: it cannot be isolated."""

    def vanished(self, network: Network) -> None:
        """The network does not exist here any more."""

    def moved(self, new: Sequence[Endpoint], gone: Sequence[Endpoint]) -> None:
        """The endpoints that other hosts have now, and those that are gone."""


class Sharing(Protocol):
    """Publishes a driver's networks to other hosts. Safe to use from any thread."""

    def start(self, listener: OverlayListener) -> None:
        """Start to publish and to listen."""

    def close(self) -> None:
        """Stop both; what was published stays valid."""

    def making(self) -> AbstractContextManager[object]:
        """While a network is made or removed here, messages of other hosts about it must wait."""

    def create(self, network: Network) -> Network:
        """Called once in a network's life, when it has a row. :returns: the network, with what the others
        chose.

        :raises Conflict, Forbidden, Internal, Unavailable: it is not possible, with the reason.
        """

    def remove(self, network: Network) -> None:
        """The opposite. :raises Forbidden: another host uses it. :raises Internal, Unavailable: it fails."""

    def claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        """The request with addresses that no other host assigns.

        :raises Conflict, Unavailable: there are none, or the store cannot be asked.
        """

    def announce(self, endpoint: Endpoint) -> None:
        """A container has joined. :raises Unavailable: the others cannot be told."""

    def withdraw(self, endpoint: Endpoint) -> None:
        """The container has left."""

    def retry(self, network_id: str) -> None:
        """A network could not be started: try again from time to time."""

    def elsewhere(self, network_id: str) -> Elsewhere: ...


class NotShared:
    """For drivers whose networks are not shared with other hosts."""

    def start(self, listener: OverlayListener) -> None:
        pass

    def close(self) -> None:
        pass

    def making(self) -> AbstractContextManager[object]:
        return nullcontext()

    def create(self, network: Network) -> Network:
        return network

    def remove(self, network: Network) -> None:
        pass

    def claim(self, network: Network, request: EndpointRequest, undo: ExitStack) -> EndpointRequest:
        return request

    def announce(self, endpoint: Endpoint) -> None:
        pass

    def withdraw(self, endpoint: Endpoint) -> None:
        pass

    def retry(self, network_id: str) -> None:
        pass

    def elsewhere(self, network_id: str) -> Elsewhere:
        return Elsewhere()


class NetworkDriver(Protocol):
    """All methods may be called from several threads at once for different endpoints."""

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    @property
    def sharing(self) -> Sharing: ...

    def check(self, network: Network, others: Sequence[Network]) -> Network:
        """Check whether this network can be made here; returns it with the driver's own choices.

        :raises InvalidArgument, Forbidden, Unavailable: it cannot, with the reason.
        """

    def start(self, network: Network) -> None:
        """Make the network exist.

        :raises Internal: the host refuses, with the reason.
        """

    def stop(self, network: Network) -> None:
        """Remove the network with every endpoint on it."""

    def host_ifname(self, endpoint: Endpoint) -> str:
        """The name of the host's end of an endpoint's interface; ``""`` if there is none."""

    def attach(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> Endpoint | None:
        """Put an interface ``endpoint.ifname`` with the endpoint's MAC address into the namespace.

        :returns: the endpoint if the driver has changed it, else None.

        :raises Internal: the host refuses, with the reason.
        """

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        """Take over the endpoint of a running container. :returns: False if its interface is gone."""

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Remove the endpoint's part on the host's side."""

    def bridged(self, network: Network) -> Bridged | None:
        """The network's facts for the firewall; None if no packet passes the host's firewall."""

    def sweep(self, networks: Sequence[Network], *, strays: bool) -> None:
        """Given all networks of the driver: remove what the kernel has of others, except interfaces, which
        are found by their marks (``ownership``).

        :param strays: whether networks of this daemon were just removed, so that there may be leftovers.
        :raises Internal: the kernel refuses.
        """

    def remains(self) -> list[str]:
        """What the kernel has of this daemon besides interfaces, as text."""


class SingleHostDriver:
    """The common base of most drivers: nothing is shared with other hosts, and only interfaces are made."""

    sharing: Sharing = NotShared()

    def host_ifname(self, endpoint: Endpoint) -> str:
        return ""

    def adopt(self, network: Network, endpoint: Endpoint) -> bool:
        return True

    def detach(self, network: Network, endpoint: Endpoint) -> None:
        pass

    def bridged(self, network: Network) -> Bridged | None:
        return None

    def sweep(self, networks: Sequence[Network], *, strays: bool) -> None:
        pass

    def remains(self) -> list[str]:
        return []
