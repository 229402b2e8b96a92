"""Which published ports go from one running container to another that takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from wherry.network.ports import PortTarget, in_order
from wherry.network.types import PortMapping, PublishedPort


@dataclass(frozen=True)
class PortMoves:
    """``given``: the ports as the giver has them; ``taken``: the same host ports, as the taker has them;
    ``rest``: what the taker asks for besides, which must be reserved."""

    given: tuple[PublishedPort, ...]
    taken: tuple[PublishedPort, ...]
    rest: tuple[PortMapping, ...]


def plan(held: Sequence[PublishedPort], wanted: Sequence[PortMapping], target: PortTarget) -> PortMoves:
    """:param held: the giver's ports that can be moved. :param target: where the taker's ports lead.

    :raises InvalidArgument: as :meth:`PortTarget.places`.
    """
    free = dict.fromkeys(held)
    given: list[PublishedPort] = []
    taken: list[PublishedPort] = []
    rest: list[PortMapping] = []
    for group in in_order(wanted, target):
        number = next((p.host_port for p in free if any(_fits(p, *place) for place in group)), None)
        for mapping, place in group:
            port = next((p for p in free if p.host_port == number and _fits(p, mapping, place)), None)
            if port is not None:
                del free[port]
                given.append(port)
                taken.append(
                    msgspec.structs.replace(
                        port, container_port=mapping.container_port, sources=mapping.sources
                    )
                )
            elif mapping not in rest:
                rest.append(_with_number(mapping, place, number))
    return PortMoves(tuple(given), tuple(taken), tuple(rest))


def _fits(port: PublishedPort, mapping: PortMapping, place: str) -> bool:
    if (port.proto, port.host_ip) != (mapping.proto, place):
        return False
    if mapping.host_port is None:
        return port.container_port == mapping.container_port
    return mapping.host_port <= port.host_port <= (mapping.host_port_end or mapping.host_port)


def _with_number(mapping: PortMapping, place: str, number: int | None) -> PortMapping:
    """The mapping itself; or, where the giver has the number on another address, that number here."""
    if number is None:
        return mapping
    return msgspec.structs.replace(mapping, host_ip=place, host_port=number, host_port_end=None)
