"""The trace of a build in the history: a span for the build, and one for each of its steps.

One JSON document per span, one after the other, in the form that OpenTelemetry's Go SDK gives a recorded span
(``sdk/trace/tracetest``, SpanStub): that is what clients read (``buildx history trace``). It is made of the
history's row whenever it is asked for, with the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from wherry import __version__
from wherry.engine.builds.service import HistoryRow
from wherry.engine.builds.spans import BuildSpan, spans_of
from wherry.errors import NotFound
from wherry.model import digest as digests

MEDIA_TYPE = "application/vnd.buildkit.otlp.json.v0"
_INTERNAL, _SERVER = 1, 2
"""Kinds of spans."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def trace_of(row: HistoryRow) -> bytes:
    """The spans of a build that has ended; steps that never began have none."""
    return b"\n".join(msgspec.json.encode(_stub(span)) for span in spans_of(row)) + b"\n"


def found_in(rows: Iterable[HistoryRow], digest: str) -> bytes:
    """:raises NotFound: no build's trace has that digest."""
    for row in rows:
        if row.finished and digests.of(text := trace_of(row)) == digest:
            return text
    raise NotFound(f"content {digest} not found")


def _stub(span: BuildSpan) -> dict[str, Any]:
    scope = {"Name": "wherry", "Version": __version__, "SchemaURL": ""}
    return {
        "Name": span.name,
        "SpanContext": _context(span.trace, span.id),
        "Parent": _context(span.trace, span.parent) if span.parent else _context("", ""),
        "SpanKind": _INTERNAL if span.parent else _SERVER,
        "StartTime": _time(span.start),
        "EndTime": _time(span.end),
        "Attributes": _pairs(span.attributes),
        "Events": None,
        "Links": None,
        "Status": {"Code": "Error" if span.error else "Unset", "Description": span.error},
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": span.inner,
        "Resource": _pairs({"service.name": "wherryd", "service.version": __version__}),
        "InstrumentationLibrary": scope,
    }


def _context(trace: str, span: str) -> Mapping[str, Any]:
    """Without a trace: no context, as the first span's parent."""
    return {
        "TraceID": trace or _NO_TRACE,
        "SpanID": span or _NO_SPAN,
        "TraceFlags": "01" if trace else "00",
        "TraceState": "",
        "Remote": False,
    }


def _pairs(values: Mapping[str, str | int]) -> Sequence[Mapping[str, Any]]:
    return [
        {"Key": key, "Value": {"Type": "INT64" if isinstance(value, int) else "STRING", "Value": value}}
        for key, value in values.items()
        if value != ""
    ]


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
