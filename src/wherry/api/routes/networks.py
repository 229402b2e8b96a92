"""``/networks``: decode, one engine call, encode."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.router import Route
from wherry.engine.networks import Endpoint, Network, NetworkRequest, NetworkView, Subnet
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model.base import Value
from wherry.model.container import EndpointRequest
from wherry.wire import filters as wire_filters
from wherry.wire import networks as wire
from wherry.wire.times import parse_timestamp

PRUNE_FILTERS = frozenset({"label", "label!", "until"})
LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


class IpamConfig(Value, frozen=True, kw_only=True):
    """API ``IPAMConfig``."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(Value, frozen=True, kw_only=True):
    driver: str = ""
    config: list[IpamConfig] | None = None
    options: dict[str, str] | None = None


class ConfigReference(Value, frozen=True, kw_only=True):
    network: str = ""


class NetworkCreate(Value, frozen=True, kw_only=True):
    """API ``NetworkCreateRequest``."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Connect(Value, frozen=True, kw_only=True):
    container: str = ""
    endpoint_config: EndpointRequest | None = None


class Disconnect(Value, frozen=True, kw_only=True):
    container: str = ""
    force: bool = False


def encode(view: NetworkView, *, full: bool) -> dict[str, Any]:
    """:param full: with the members that only inspect shows."""
    network = view.network
    out = wire.network(
        name=network.name,
        network_id=network.id,
        driver="bridge" if network.config_only else network.driver,
        created=network.created,
        scope=network.scope,
        ipam=_ipam(network),
        options=network.options,
        labels=network.labels,
        internal=network.internal,
        attachable=network.attachable,
        ipv4=network.enable_ipv4,
        ipv6=network.enable_ipv6,
        config_only=network.config_only,
        config_from=network.config_from,
    )
    if full:
        out["Containers"] = {e.container_id: _endpoint(name, e) for name, e in view.endpoints}
        # containers on other hosts; Docker shows them this way if a network spans hosts
        for e in view.remote:
            out["Containers"][f"ep-{e.id}"] = _endpoint(e.dns_names[0] if e.dns_names else "", e)
        if view.peers:
            out["Peers"] = [{"Name": name, "IP": address} for name, address in view.peers]
        out["Status"] = wire.status(view.status or {})
    return out


def _endpoint(name: str, e: Endpoint) -> dict[str, str]:
    return {
        "Name": name,
        "EndpointID": e.id,
        "MacAddress": e.mac,
        "IPv4Address": f"{e.ip}/{e.prefix_len}" if e.ip else "",
        "IPv6Address": f"{e.ip6}/{e.prefix_len6}" if e.ip6 else "",
    }


def _ipam(network: Network) -> dict[str, Any]:
    subnets: list[dict[str, Any]] = []
    for subnet in network.subnets:
        item: dict[str, Any] = {"Subnet": subnet.cidr}
        if subnet.ip_range:
            item["IPRange"] = subnet.ip_range
        if subnet.gateway:
            item["Gateway"] = subnet.gateway
        if subnet.aux:
            item["AuxiliaryAddresses"] = subnet.aux
        subnets.append(item)
    return {
        "Driver": network.ipam_driver,
        "Options": network.ipam_options,
        "Config": subnets or None,
    }


async def list_networks(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), LIST_FILTERS)
    wire_filters.boolean(filters, "dangling")
    found = ctx.engine.networks.select(filters)
    more: dict[str, Any] = {} if ctx.version >= (1, 52) else {"Containers": {}}
    return json_response([encode(NetworkView(n), full=False) | more for n in found])


async def inspect(ctx: RequestContext) -> web.Response:
    ctx.truth("verbose")  # it is about a swarm's networks
    view = ctx.engine.networks.inspect(ctx.params["id"], scope=ctx.text("scope"))
    out = encode(view, full=True)
    if ctx.version < (1, 52):
        out.pop("Status", None)
    return json_response(out)


async def create(ctx: RequestContext) -> web.Response:
    body = await ctx.optional_json(NetworkCreate)
    if body.ingress:
        raise NotImplemented_("ingress networks belong to swarm mode, which is not implemented")
    if ctx.version < (1, 48):
        body = replace(body, enable_ipv4=None)
    network, warnings = await ctx.engine.networks.create(_request(body))
    return json_response({"Id": network.id, "Warning": "\n".join(warnings)}, status=201)


def _request(body: NetworkCreate) -> NetworkRequest:
    ipam = body.ipam or Ipam()
    subnets = []
    for c in ipam.config or ():
        if not c.subnet and (c.ip_range or c.gateway or c.auxiliary_addresses):
            raise InvalidArgument(
                "invalid network config:\nno subnet for the IP range, gateway or auxiliary address"
            )
        subnets.append(
            Subnet(
                cidr=c.subnet,
                gateway=c.gateway,
                ip_range=c.ip_range,
                aux=c.auxiliary_addresses or {},
            )
        )
    return NetworkRequest(
        name=body.name,
        driver=body.driver,
        scope=body.scope,
        ipam_driver=ipam.driver,
        ipam_options=ipam.options,
        subnets=tuple(subnets),
        options=body.options or {},
        labels=body.labels or {},
        internal=body.internal,
        attachable=body.attachable,
        ipv4=body.enable_ipv4,
        ipv6=body.enable_ipv6,
        config_only=body.config_only,
        config_from=body.config_from.network if body.config_from else "",
    )


async def remove(ctx: RequestContext) -> web.Response:
    await ctx.engine.networks.remove(ctx.params["id"])
    return no_content()


async def connect(ctx: RequestContext) -> web.Response:
    body = await ctx.optional_json(Connect)
    await ctx.engine.networks.connect(
        ctx.params["id"], body.container, body.endpoint_config or EndpointRequest()
    )
    return web.Response()


async def disconnect(ctx: RequestContext) -> web.Response:
    body = await ctx.optional_json(Disconnect)
    await ctx.engine.networks.disconnect(ctx.params["id"], body.container, force=body.force)
    return web.Response()


async def prune(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), PRUNE_FILTERS)
    until = filters.get("until")
    if until is not None and len(until) != 1:
        raise InvalidArgument("more than one until filter specified")
    removed = await ctx.engine.networks.prune(
        until=parse_timestamp(until[0]) if until else None,
        labels=lambda labels: wire_filters.label_filters_match(filters, labels),
    )
    return json_response({"NetworksDeleted": removed or None})


ROUTES: list[Route] = [
    ("GET", "/networks", list_networks),
    ("GET", "/networks/", list_networks),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
]
