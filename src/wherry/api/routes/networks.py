"""``/networks``: list and inspect of what is there."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from wherry.api.context import Context, json_response
from wherry.api.router import Route
from wherry.engine.networks import Endpoint, Network
from wherry.wire import filters as wire_filters
from wherry.wire import objects as wire

PRUNE_FILTERS = frozenset({"label", "label!", "until"})
LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


def encode(network: Network, endpoints: list[tuple[str, Endpoint]] | None) -> dict[str, Any]:
    containers = None
    if endpoints is not None:
        containers = {
            e.container_id: {
                "Name": name,
                "EndpointID": e.id,
                "MacAddress": e.mac,
                "IPv4Address": f"{e.ip}/{e.prefix_len}" if e.ip else "",
                "IPv6Address": "",
            }
            for name, e in endpoints
        }
    subnets: list[dict[str, Any]] = []
    for subnet in network.subnets:
        item: dict[str, Any] = {"Subnet": subnet.cidr}
        if subnet.ip_range:
            item["IPRange"] = subnet.ip_range
        item["Gateway"] = subnet.gateway
        if subnet.aux:
            item["AuxiliaryAddresses"] = subnet.aux
        subnets.append(item)
    return wire.network(
        name=network.name,
        network_id=network.id,
        driver=network.driver,
        created=network.created,
        scope=network.scope,
        subnets=subnets,
        options=network.options,
        labels=network.labels,
        internal=network.internal,
        attachable=network.attachable,
        ipv4=network.enable_ipv4,
        ipv6=network.enable_ipv6,
        containers=containers,
    )


async def list_networks(ctx: Context) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    wire_filters.boolean(filters, "dangling")
    return json_response([encode(n, None) for n in ctx.services.networks.select(filters)])


async def inspect(ctx: Context) -> web.Response:
    network = ctx.services.networks.get(ctx.params["id"])
    return json_response(encode(network, ctx.services.networks.endpoints(network)))


async def prune(ctx: Context) -> web.Response:
    """There are only the predefined networks, which are never pruned."""
    wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    return json_response({"NetworksDeleted": None})


ROUTES: list[Route] = [
    ("GET", "/networks", list_networks),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
]
