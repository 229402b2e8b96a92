"""What a container asks of its networks, checked: which networks, in which order, with which wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model.container import EndpointRequest
from wherry.network.types import Network

_LATER = "is not implemented yet"


def plan(
    mode: str, endpoints: Mapping[str, EndpointRequest | None], find: Callable[[str], Network]
) -> list[tuple[Network, EndpointRequest]]:
    """The networks of a container, the one of its mode first, each with its request.

    :param find: a network by name, id or prefix.
    :raises NotFound: no such network.
    :raises InvalidArgument: the requests contradict each other, or the network.
    :raises NotImplemented_: a wish that cannot be met yet, named.
    """
    asked: dict[str, tuple[Network, EndpointRequest]] = {}
    first = find(mode or "default")
    asked[first.id] = (first, EndpointRequest())
    for wanted, request in endpoints.items():
        network = find(wanted)
        asked[network.id] = (network, request or EndpointRequest())
    for network, request in asked.values():
        if network.driver in ("host", "null") and len(asked) > 1:
            raise InvalidArgument(
                f"conflicting options: a container on network {network.name} cannot be on another network"
            )
        _check(network, request)
    if first.driver == "host":
        raise InvalidArgument("conflicting options: host type networking has no sandbox of its own")
    return list(asked.values())


def _check(network: Network, request: EndpointRequest) -> None:
    config = request.ipam_config
    if request.links:
        raise NotImplemented_(f"linking containers (--link) {_LATER}")
    if request.driver_opts:
        raise NotImplemented_(f"driver options of an endpoint ({min(request.driver_opts)}) {_LATER}")
    if config is not None and config.ipv6_address:
        raise NotImplemented_(f"IPv6 address {config.ipv6_address} of an endpoint: IPv6 {_LATER}")
    if config is not None and config.link_local_ips:
        raise NotImplemented_(f"link-local addresses of an endpoint (--link-local-ip) {_LATER}")
    # the default networks are the only ones yet
    if config is not None and config.ipv4_address:
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if request.aliases:
        raise InvalidArgument(
            "network-scoped alias is supported only for containers in user defined networks"
        )
