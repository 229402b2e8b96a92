"""Spans of requests and builds as OTLP has them in JSON (opentelemetry-proto, trace/v1)."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wherry.engine.builds.spans import BuildSpan

INTERNAL, SERVER = 1, 2
_ERROR = 2
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""W3C Trace Context, "traceparent"."""
Span = dict[str, Any]


def attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    """As OTLP's KeyValue; what is empty is left out."""
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
        if value != ""
    ]


def of_build(span: BuildSpan) -> Span:
    made: Span = {
        "traceId": span.trace,
        "spanId": span.id,
        "name": span.name,
        "kind": INTERNAL if span.parent else SERVER,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": attributes(span.attributes),
    }
    if span.parent:
        made["parentSpanId"] = span.parent
    if span.error:
        made["status"] = {"code": _ERROR, "message": span.error}
    return made


def of_request(
    method: str, route: str, status: int, seconds: float, *, stream: bool, parent: str, now: int
) -> Span:
    """A request that has been answered (OpenTelemetry's semantic conventions for HTTP servers).

    :param parent: the client's ``traceparent``; anything else begins a trace. :param now: of its end, in
        nanoseconds since the epoch."""
    match = _TRACEPARENT.fullmatch(parent)
    facts: dict[str, str | int] = {
        "http.request.method": method or "_OTHER",
        "http.route": route,
        "http.response.status_code": status,
        "wherry.stream": "true" if stream else "",
    }
    made: Span = {
        "traceId": match[1] if match else secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": f"{method or 'HTTP'} {route}".strip(),
        "kind": SERVER,
        "startTimeUnixNano": str(now - int(seconds * 1e9)),
        "endTimeUnixNano": str(now),
        "attributes": attributes(facts),
    }
    if match:
        made["parentSpanId"] = match[2]
    if status >= 500:
        made["status"] = {"code": _ERROR}
    return made


class RequestSpans:
    """Observes the API (``wherry.api.server.Observer``)."""

    def __init__(self, take: Callable[[Span], None]) -> None:
        self._take = take

    def begun(self) -> None:
        return None

    def ended(self, method: str, route: str, code: int, seconds: float, *, stream: bool, parent: str) -> None:
        now = time.time_ns()
        self._take(of_request(method, route, code, seconds, stream=stream, parent=parent, now=now))


def request_body(spans: Sequence[Span], resource: Mapping[str, str], version: str) -> dict[str, Any]:
    """The body of an export (opentelemetry-proto, collector/trace/v1, ExportTraceServiceRequest)."""
    scope = {"scope": {"name": "wherry", "version": version}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": attributes(resource)}, "scopeSpans": [scope]}]}
