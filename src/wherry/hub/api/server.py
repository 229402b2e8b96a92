"""Answers requests of the JSON API."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.hub.api import accounts, namespaces, repositories
from wherry.hub.api.routes import ROUTES, ApiAsk, ApiRoute
from wherry.hub.core.reach import Rules
from wherry.hub.core.refusals import Refusal
from wherry.hub.registry import access
from wherry.hub.registry.answers import COMMON, document
from wherry.hub.registry.bodies import read
from wherry.hub.registry.context import Hub
from wherry.hub.service.who import HubCaller
from wherry.hub.store.sql import Tx

PREFIX = "/api/v1/"
BODY_MAX = 1 << 20
MODULES = (accounts, namespaces, repositories)
"""Each declares its routes when it is imported."""


class JsonApi:
    """:meth:`__call__` answers one request; its errors are those of the registry, as JSON."""

    def __init__(self, hub: Hub, webhooks: Rules) -> None:
        """:param webhooks: which addresses webhooks can reach."""
        self._hub, self._webhooks = hub, webhooks

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """:raises Refusal:"""
        if request.path == f"{PREFIX}openapi.json":
            return document(description())
        route, places, methods = ROUTES.find(request.method, request.path)
        if route is None and methods:
            raise Refusal("UNSUPPORTED", "method not allowed", headers={"Allow": ", ".join(methods)})
        if route is None:
            raise Refusal("NAME_UNKNOWN", "no such endpoint")
        ask = await self._asked(request, route, places)

        def work(tx: Tx) -> Any:
            return route.answer(tx, ask)

        try:
            found = await (self._hub.db.write(work) if route.writes else self._hub.db.scan(work))
        except InvalidArgument as e:
            raise Refusal("UNSUPPORTED", e.message, status=400) from e
        except NotFound as e:
            raise Refusal("NAME_UNKNOWN", e.message) from e
        except Conflict as e:
            raise Refusal("DENIED", e.message, status=409) from e
        if found is None:
            return web.Response(status=204, headers=COMMON)
        return document(found, Cache_Control="no-store")

    async def _asked(self, request: web.BaseRequest, route: ApiRoute, places: dict[str, str]) -> ApiAsk:
        caller = await access.caller_of(self._hub, request)
        if caller.access is not None:
            raise access.unauthorized(self._hub, request, "", "use Basic: a password or a personal token")
        if not caller.known and not route.public:
            raise Refusal(
                "UNAUTHORIZED", "log in first", headers={"WWW-Authenticate": 'Basic realm="wherry-hub"'}
            )
        address = self._hub.trusted.client(request)
        who = HubCaller(caller, address, self._hub.settings, self._webhooks)
        return ApiAsk(who, places, dict(request.query), await _body(request))


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    data = await read(request, BODY_MAX, "SIZE_INVALID")
    if not data:
        return {}
    if request.content_type != "application/json":
        # Browsers send other types to other sites without asking.
        raise Refusal("UNSUPPORTED", "the body must be application/json", status=415)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Refusal("UNSUPPORTED", "the body is not JSON", status=400) from e
    if not isinstance(found, dict):
        raise Refusal("UNSUPPORTED", "the body must be an object", status=400)
    return found


def description() -> dict[str, Any]:
    """The API in the form of OpenAPI 3.1: paths, methods, what each does, and what needs a log-in."""
    paths: dict[str, dict[str, Any]] = {}
    for _, route in ROUTES.all:
        names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
        paths.setdefault(route.path, {})[route.method.lower()] = {
            "summary": route.summary,
            "operationId": f"{route.answer.__module__.rpartition('.')[2]}.{route.answer.__name__}",
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "security": [{}, {"basic": []}] if route.public else [{"basic": []}],
            "responses": {"200": {"description": "done"}, "204": {"description": "done, no content"}},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "wherry hub", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
    }
