"""Endpoints for monitoring: liveness, readiness, metrics."""

from __future__ import annotations

from aiohttp import web

from wherry.hub.registry.answers import COMMON, document
from wherry.hub.registry.context import Hub
from wherry.hub.store import health
from wherry.hub.store.objects import Full
from wherry.hub.store.sql import DatabaseAway


async def healthy(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """``/healthz``: the process answers."""
    return document({"status": "ok"})


async def ready(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """``/readyz``: the database answers and there is room; otherwise 503 with the reason."""
    wrong: dict[str, str] = {}
    try:
        await hub.db.read(health.alive)
    except DatabaseAway as e:
        wrong["database"] = e.message
    try:
        await hub.objects.check_room(0)
    except Full as e:
        wrong["objects"] = str(e)
    return document(
        {"status": "ok"} if not wrong else {"status": "failing", **wrong}, status=503 if wrong else 200
    )


async def metrics(hub: Hub, request: web.BaseRequest) -> web.StreamResponse:
    """``/metrics`` in Prometheus' text format."""
    lines = [hub.counters.text()]
    for name, value in (await hub.db.scan(health.queues)).items():
        lines.append(f"# TYPE wherry_hub_{name} gauge\nwherry_hub_{name} {value}\n")
    return web.Response(
        text="".join(lines), headers={**COMMON, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
