"""What a build says while it goes on: as the legacy builder's lines, or step by step for our own client.

Steps run side by side; lines are for reading. So the legacy form tells of one step after the other, in the
Dockerfile's order, and holds back what a later one says meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wherry.build.graph import ImageOp, LocalOp, Plan, ScratchOp, Vertex, walk
from wherry.build.instructions import Location
from wherry.build.solve import Result
from wherry.errors import WherryError
from wherry.model.digest import Digest
from wherry.model.images import Image

Send = Callable[[dict[str, Any]], None]
_HELD = 1 << 20
_ID = 12


class Step:
    """What became of a vertex. Times in nanoseconds since the epoch."""

    def __init__(self, number: int, vertex: Vertex) -> None:
        self.number, self.vertex = number, vertex
        self.status = "waiting"
        self.started = self.finished = 0
        self.result: Result | None = None
        self.held = bytearray()
        self.error = ""
        self.cause: BaseException | None = None


class Report:
    """Keeps what became of every step; see :class:`wherry.build.solve.Progress`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.steps: dict[Vertex, Step] = {}
        self.plans: Sequence[Plan] = ()
        self.warnings: list[str] = []

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        """The plans are known, one a platform."""
        self.plans = plans
        for vertex in walk([stage.vertex for plan in plans for stage in plan.stages]):
            self.steps[vertex] = Step(len(self.steps) + 1, vertex)

    def location_of(self, error: BaseException) -> Location | None:
        """Where the step stands that failed so."""
        return next((s.vertex.location for s in self.steps.values() if s.cause is error), None)

    def started(self, vertex: Vertex) -> None:
        step = self.steps[vertex]
        step.status, step.started = "running", time.time_ns()
        self._changed(step)

    def cached(self, vertex: Vertex, result: Result) -> None:
        for one in walk([vertex]):
            step = self.steps[one]
            if step.status == "waiting":
                step.status = "done" if one.is_source else "cached"
                step.result = result if one is vertex else None
                self._changed(step)

    def log(self, vertex: Vertex, data: bytes) -> None:
        self._said(self.steps[vertex], data)

    def finished(self, vertex: Vertex, result: Result) -> None:
        step = self.steps[vertex]
        step.status, step.finished, step.result = "done", time.time_ns(), result
        self._changed(step)

    def failed(self, vertex: Vertex, error: BaseException) -> None:
        step = self.steps[vertex]
        if step.status in ("done", "cached"):
            return
        cancelled = not isinstance(error, WherryError)
        step.status, step.finished = "canceled" if cancelled else "failed", time.time_ns()
        step.error = error.message if isinstance(error, WherryError) else ""
        step.cause = error
        self._changed(step)

    def end(self) -> None:
        """Everything went well."""

    def pulling(self, message: dict[str, Any]) -> None:
        """A line of a pull's."""
        self._send(message)

    def tell(self, message: dict[str, Any]) -> None:
        """Something for the client itself."""
        self._send(message)

    def _changed(self, step: Step) -> None: ...

    def _said(self, step: Step, data: bytes) -> None: ...


class LegacyReport(Report):
    """``Step 1/3 : FROM …``, as the docker CLI shows it."""

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        super().begin(plans, bases)
        self._bases = bases
        self._lines: list[tuple[str, Vertex | None]] = [
            one for plan in plans for stage in plan.stages for one in stage.steps
        ]
        self._at = 0
        self._shown = False
        self._last = ""
        self._advance()

    def _changed(self, step: Step) -> None:
        self._advance()

    def _said(self, step: Step, data: bytes) -> None:
        current = self._lines[self._at][1] if self._at < len(self._lines) else None
        if current is step.vertex and self._shown:
            self._stream(data.decode("utf-8", "replace"))
        elif len(step.held) < _HELD:
            step.held += data

    def end(self) -> None:
        for step in self.steps.values():
            if step.status == "waiting":
                step.status = "cached"
        self._advance()

    def _advance(self) -> None:
        while self._at < len(self._lines):
            text, vertex = self._lines[self._at]
            step = self.steps[vertex] if vertex is not None else None
            if step is not None and step.status == "waiting":
                return
            if not self._shown:
                self._shown = True
                self._stream(f"Step {self._at + 1}/{len(self._lines)} : {text}")
                self._stream("\n")
                if step is not None and not text.startswith("FROM ") and step.status != "cached":
                    self._stream(f" ---> Running in {self._name(step)}\n")
            if step is not None and step.held:
                self._stream(bytes(step.held).decode("utf-8", "replace"))
                step.held.clear()
            if step is not None and step.status in ("running", "failed", "canceled"):
                return
            self._close(step, text)
            self._at, self._shown = self._at + 1, False

    def _close(self, step: Step | None, text: str) -> None:
        if step is not None and step.status == "cached" and not text.startswith("FROM "):
            self._stream(" ---> Using cache\n")
        if step is not None:
            self._last = self._identity(step) or self._last
        if self._last:
            self._stream(f" ---> {self._last}\n")

    def _identity(self, step: Step) -> str:
        op = step.vertex.op
        if isinstance(op, ImageOp):
            found = self._bases.get(op.image.digest)
            return str(found.id if found else op.image.digest).removeprefix("sha256:")[:_ID]
        if isinstance(op, ScratchOp | LocalOp):
            return ""
        return step.result.record[:_ID] if step.result is not None else ""

    @staticmethod
    def _name(step: Step) -> str:
        return f"{abs(hash((step.number, step.started))):x}"[:_ID].ljust(_ID, "0")

    def _stream(self, text: str) -> None:
        self._send({"stream": text})


class StepReport(Report):
    """``{"step": {…}}`` for every change of a step, ``{"log": …}`` for what it prints."""

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        super().begin(plans, bases)
        self._names = _names(plans)
        shown = [self._entry(step) for step in self.steps.values()]
        self._send({"steps": shown})

    def _entry(self, step: Step) -> dict[str, Any]:
        return {
            "Number": step.number,
            "Name": self._names.get(step.vertex) or f"[internal] {step.vertex.text}",
            "Inputs": [self.steps[one].number for one in step.vertex.inputs],
        }

    def _changed(self, step: Step) -> None:
        entry: dict[str, Any] = {"Number": step.number, "Status": step.status}
        if step.started:
            entry["Started"] = step.started
        if step.finished:
            entry["Finished"] = step.finished
        if step.error:
            entry["Error"] = step.error
        self._send({"step": entry})

    def _said(self, step: Step, data: bytes) -> None:
        self._send({"log": {"Number": step.number, "Text": data.decode("utf-8", "replace")}})


class QuietReport(Report):
    """Says nothing."""

    def pulling(self, message: dict[str, Any]) -> None:
        return


def _names(plans: Sequence[Plan]) -> dict[Vertex, str]:
    """``[build 2/4] RUN make``; with one stage without a name ``[2/4] RUN make``; of several platforms
    with it.
    """
    names: dict[Vertex, str] = {}
    several = len(plans) > 1
    for stage, alone in [(stage, len(plan.stages) == 1) for plan in plans for stage in plan.stages]:
        own = list(
            dict.fromkeys(v for _, v in stage.steps if v is not None and not isinstance(v.op, ScratchOp))
        )
        own = [v for v in own if v not in names]
        for number, vertex in enumerate(own, 1):
            label = "" if alone and stage.name.startswith("stage-") else f"{stage.name} "
            platform = f"{vertex.platform} " if several else ""
            names[vertex] = f"[{platform}{label}{number}/{len(own)}] {vertex.text}"
    return names


def step_documents(report: Report) -> Sequence[dict[str, Any]]:
    """For the history: what became of every step."""
    names = _names(report.plans)
    return [
        {
            "Name": names.get(step.vertex) or f"[internal] {step.vertex.text}",
            "Status": step.status,
            "Started": step.started,
            "Finished": step.finished,
            "Error": step.error,
        }
        for step in report.steps.values()
    ]
