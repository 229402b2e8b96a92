"""The trace of a build, made of its row in the history: a span for the build, and one for each of its steps.

The same row gives the same identifiers, so a trace can be made whenever it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from wherry.state.builds import HistoryRow


@dataclass(frozen=True)
class BuildSpan:
    """``start`` and ``end`` in nanoseconds since the epoch; ``parent`` is empty for the build's own span.

    :ivar error: why it failed, or empty. :ivar inner: how many spans have it as their parent.
    """

    trace: str
    id: str
    parent: str
    name: str
    start: int
    end: int
    attributes: Mapping[str, str | int]
    error: str = ""
    inner: int = 0


def spans_of(row: HistoryRow) -> Sequence[BuildSpan]:
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
    trace = hashlib.sha256(row.id.encode()).hexdigest()[:32]
    whole = BuildSpan(
        trace,
        _id(row.id, ""),
        "",
        "build",
        row.started,
        row.finished,
        attributes,
        error or canceled,
        len(steps),
    )
    spans = [whole]
    for number, step in enumerate(steps, 1):
        began = step["Started"] or step["Finished"]
        facts = {"step.number": int(step.get("Number", number)), "step.status": step["Status"]}
        end = max(began, step["Finished"] or row.finished)
        own = _id(row.id, str(facts["step.number"]))
        spans.append(BuildSpan(trace, own, whole.id, step["Name"], began, end, facts, step["Error"]))
    return spans


def _id(build: str, step: str) -> str:
    return hashlib.sha256(f"{build} {step}".encode()).hexdigest()[:16]
