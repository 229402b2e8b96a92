"""A container's network requests, checked: which networks, in which order, with which options."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wherry.errors import InvalidArgument
from wherry.model.container import EndpointRequest
from wherry.network import endpoints as places
from wherry.network.drivers import Traits
from wherry.network.types import Network


def plan(
    mode: str,
    endpoints: Mapping[str, EndpointRequest | None] | None,
    find: Callable[[str], Network],
    traits: Callable[[str], Traits],
) -> list[tuple[Network, EndpointRequest]]:
    """The networks of a container, each with its request.

    :param endpoints: None: only the network of ``mode``. :param find: finds a network by name, id or prefix.
    :param traits: a driver's traits, by name.
    :raises NotFound: no such network.
    :raises InvalidArgument: the requests contradict each other, or the network.
    """
    asked: dict[str, tuple[Network, EndpointRequest]] = {}
    for wanted, request in (endpoints or {}).items():
        network = find(wanted)
        asked[network.id] = (network, request or EndpointRequest())
    if endpoints is None:
        first = find(mode or "default")
        asked[first.id] = (first, EndpointRequest())
    for network, request in asked.values():
        if not traits(network.driver).shared and len(asked) > 1:
            raise InvalidArgument(
                f"conflicting options: a container on network {network.name} cannot be on another network"
            )
        if not traits(network.driver).namespace:
            raise InvalidArgument("conflicting options: host type networking has no sandbox of its own")
        places.check(network, request)
    return list(asked.values())
