"""``/secrets`` without a swarm: decode, one engine call, encode."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from aiohttp import web

from wherry.api.context import RequestContext, json_response, no_content
from wherry.api.router import Route
from wherry.engine.volumes.secrets import SecretRow
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.model.base import Value
from wherry.model.container import DriverConfig
from wherry.wire import filters as wire_filters
from wherry.wire.times import rfc3339

FILTERS = frozenset({"id", "label", "name", "names"})


class SecretSpec(Value, frozen=True, kw_only=True):
    """API ``SecretSpec``; ``data`` is base64, of either alphabet."""

    name: str = ""
    labels: dict[str, str] | None = None
    data: str = ""
    driver: DriverConfig | None = None
    templating: DriverConfig | None = None


def encode(row: SecretRow) -> dict[str, Any]:
    return {
        "ID": row.id,
        "Version": {"Index": row.version},
        "CreatedAt": rfc3339(row.created),
        "UpdatedAt": rfc3339(row.updated),
        "Spec": {"Name": row.name, "Labels": dict(row.labels)},
    }


async def list_secrets(ctx: RequestContext) -> web.Response:
    filters = wire_filters.parse(ctx.text("filters"), FILTERS)
    found = ctx.engine.volumes.secrets.select(filters)
    kept = [row for row in found if wire_filters.labels_match(filters.get("label", ()), row.labels)]
    return json_response([encode(row) for row in kept])


async def create(ctx: RequestContext) -> web.Response:
    spec = await ctx.json(SecretSpec)
    _refuse_drivers(spec)
    row = await ctx.engine.volumes.secrets.create(spec.name, _value(spec.data), spec.labels or {})
    return json_response({"ID": row.id}, status=201)


def _value(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        # Neither the error's text nor its cause may contain the value.
        raise InvalidArgument("invalid JSON: Data is not base64") from None


def _refuse_drivers(spec: SecretSpec) -> None:
    if spec.driver is not None and spec.driver.name:
        raise NotImplemented_("secret drivers are not implemented yet")
    if spec.templating is not None and spec.templating.name:
        raise NotImplemented_("templates of secrets are not implemented yet")


async def inspect(ctx: RequestContext) -> web.Response:
    return json_response(encode(ctx.engine.volumes.secrets.get(ctx.params["id"])))


async def update(ctx: RequestContext) -> web.Response:
    version = ctx.integer("version")
    if version is None:
        raise InvalidArgument("invalid secret version ''")
    spec = await ctx.json(SecretSpec)
    _refuse_drivers(spec)
    row = ctx.engine.volumes.secrets.get(ctx.params["id"])
    if spec.data or spec.name not in ("", row.name):
        raise InvalidArgument("only updates to Labels are allowed")
    ctx.engine.volumes.secrets.relabel(row.id, version, spec.labels or {})
    return web.Response()


async def remove(ctx: RequestContext) -> web.Response:
    ctx.engine.volumes.secrets.remove(ctx.params["id"])
    return no_content()


ROUTES: list[Route] = [
    ("GET", "/secrets", list_secrets),
    ("POST", "/secrets/create", create),
    ("GET", "/secrets/{id}", inspect),
    ("DELETE", "/secrets/{id}", remove),
    ("POST", "/secrets/{id}/update", update),
]
