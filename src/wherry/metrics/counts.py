"""What is counted while the daemon works: requests, events, and how late the event loop is."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from wherry.engine.events import EventBus

_ACTIONS = {
    ("POST", "/containers/create"): "create",
    ("POST", "/containers/{id}/start"): "start",
    ("DELETE", "/containers/{id}"): "delete",
    ("GET", "/containers/{id}/changes"): "changes",
    ("POST", "/commit"): "commit",
}
"""The requests that dockerd times as container actions."""
_TICK = 1.0
"""Seconds between two looks at how late the loop is."""
_LATE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_CHECK = "exec_create: "


class Counts:
    """Used on the loop's thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._actions = Histogram(
            "engine_daemon_container_actions_seconds",
            "The number of seconds it takes to process each container action",
            ["action"],
            registry=registry,
        )
        for action in _ACTIONS.values():
            self._actions.labels(action)
        self._requests = Histogram(
            "wherry_api_request_duration_seconds",
            "Time until the answer, of requests whose answers are not streams",
            ["method", "endpoint", "code"],
            registry=registry,
        )
        self._streams = Counter(
            "wherry_api_streams",
            "Requests whose answers are streams, when they end",
            ["method", "endpoint", "code"],
            registry=registry,
        )
        self._working = Gauge(
            "wherry_api_requests_in_progress", "Requests that are being answered", registry=registry
        )
        self._events = Counter("engine_daemon_events", "The number of events logged", registry=registry)
        self._told = Counter(
            "wherry_events",
            "Events, by the kind of object and the action",
            ["type", "action"],
            registry=registry,
        )
        self._checks = Counter(
            "engine_daemon_health_checks", "The total number of health checks", registry=registry
        )
        self._failed = Counter(
            "engine_daemon_health_checks_failed",
            "The total number of failed health checks",
            registry=registry,
        )
        self._late = Histogram(
            "wherry_event_loop_lag_seconds",
            "How late a timer of the event loop comes",
            buckets=_LATE,
            registry=registry,
        )

    # ---- requests (wherry.api.server.Observer) -----------------------------------------------------------

    def begun(self) -> None:
        self._working.inc()

    def ended(self, method: str, route: str, code: int, seconds: float, *, stream: bool, parent: str) -> None:
        """:param route: as ``/containers/{id}/json``: never what a client wrote."""
        self._working.dec()
        if stream:
            self._streams.labels(method, route, str(code)).inc()
            return
        self._requests.labels(method, route, str(code)).observe(seconds)
        if code < 400 and (action := _ACTIONS.get((method, route))):
            self._actions.labels(action).observe(seconds)

    # ---- while the daemon works --------------------------------------------------------------------------

    async def follow(self, events: EventBus) -> None:
        """Count events until the daemon stops. Health checks are events too: execs whose command nobody
        but the daemon asked for."""
        while True:
            async with events.subscribe() as listener:
                async for event in listener.until(None):
                    self._count(event.type, event.action, event.attributes.get("exitCode", ""))
            await asyncio.sleep(_TICK)  # it was cut off, as it was too slow; what it missed is not counted

    def _count(self, kind: str, action: str, exit_code: str) -> None:
        self._events.inc()
        self._told.labels(kind, action.partition(":")[0]).inc()

    def checked(self, *, failed: bool) -> None:
        """A health check has ended."""
        self._checks.inc()
        if failed:
            self._failed.inc()

    async def watch_loop(self) -> None:
        """Observe for ever how late the loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            self._late.observe(max(0.0, loop.time() - due))
