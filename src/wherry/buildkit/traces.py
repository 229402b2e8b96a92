"""The trace of a build in the history: a span for the build, and one for each of its steps.

One JSON document per span, one after the other, in the form that OpenTelemetry's Go SDK gives a recorded span
(``sdk/trace/tracetest``, SpanStub): that is what clients read (``buildx history trace``). It is made of the
history's row whenever it is asked for, with the same bytes each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from wherry import __version__
from wherry.engine.builds.service import HistoryRow
from wherry.errors import NotFound
from wherry.model import digest as digests

MEDIA_TYPE = "application/vnd.buildkit.otlp.json.v0"
_INTERNAL, _SERVER = 1, 2
"""Kinds of spans."""
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


def trace_of(row: HistoryRow) -> bytes:
    """The spans of a build that has ended; steps that never began have none."""
    document = msgspec.json.decode(row.document)
    error = document.get("Error", "") if row.status == "Error" else ""
    canceled = "the build was canceled" if row.status == "Canceled" else ""
    attributes = {
        "build.ref": row.id,
        "build.status": row.status.lower(),
        "frontend": document.get("Frontend", "dockerfile.v0"),
        "dockerfile": document.get("Dockerfile", ""),
        "target": document.get("Target", ""),
        "platform": document.get("Platform", ""),
    }
    steps = [one for one in document.get("Steps", []) if one["Started"] or one["Finished"]]
    spans = [
        _span(
            row.id,
            "",
            "build",
            (row.started, row.finished),
            attributes,
            error or canceled,
            inner=len(steps),
        )
    ]
    for number, step in enumerate(steps, 1):
        began = step["Started"] or step["Finished"]
        facts = {"step.number": int(step.get("Number", number)), "step.status": step["Status"]}
        times = (began, max(began, step["Finished"] or row.finished))
        spans.append(_span(row.id, str(facts["step.number"]), step["Name"], times, facts, step["Error"]))
    return b"\n".join(map(msgspec.json.encode, spans)) + b"\n"


def found_in(rows: Iterable[HistoryRow], digest: str) -> bytes:
    """:raises NotFound: no build's trace has that digest."""
    for row in rows:
        if row.finished and digests.of(text := trace_of(row)) == digest:
            return text
    raise NotFound(f"content {digest} not found")


def _span(
    build: str,
    step: str,
    name: str,
    times: tuple[int, int],
    attributes: Mapping[str, str | int],
    error: str,
    *,
    inner: int = 0,
) -> dict[str, Any]:
    """:param step: ``""`` for the build itself. :param times: nanoseconds since the epoch."""
    scope = {"Name": "wherry", "Version": __version__, "SchemaURL": ""}
    return {
        "Name": name,
        "SpanContext": _context(build, step),
        "Parent": _context(build, "") if step else _context("", ""),
        "SpanKind": _INTERNAL if step else _SERVER,
        "StartTime": _time(times[0]),
        "EndTime": _time(times[1]),
        "Attributes": _pairs(attributes),
        "Events": None,
        "Links": None,
        "Status": {"Code": "Error" if error else "Unset", "Description": error},
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": inner,
        "Resource": _pairs({"service.name": "wherryd", "service.version": __version__}),
        "InstrumentationLibrary": scope,
    }


def _context(build: str, step: str) -> Mapping[str, Any]:
    """``""`` as the build: no context, as the first span's parent."""
    trace, span = _NO_TRACE, _NO_SPAN
    if build:
        trace = hashlib.sha256(build.encode()).hexdigest()[:32]
        span = hashlib.sha256(f"{build} {step}".encode()).hexdigest()[:16]
    return {
        "TraceID": trace,
        "SpanID": span,
        "TraceFlags": "01" if build else "00",
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
