"""Progress of a build: as the legacy builder's lines, or step by step for our own client.

Steps run in parallel, but lines are read in sequence. So the legacy form reports one step after the other, in
the Dockerfile's order, and holds back the messages of later steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from wherry.dockerfile import instructions as ins
from wherry.dockerfile.checktypes import CheckFinding
from wherry.errors import WherryError
from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.solver.graph import BaseImage, ImageOp, LocalOp, Location, Plan, ScratchOp, Vertex, walk
from wherry.solver.solve import Result

Send = Callable[[dict[str, Any]], None]
_HELD = 1 << 20
_SAID = 1 << 20
_ID = 12


class Step:
    """The progress of a vertex. Times in nanoseconds since the epoch."""

    def __init__(self, number: int, vertex: Vertex) -> None:
        self.number, self.vertex = number, vertex
        self.status = "waiting"
        self.started = self.finished = 0
        self.result: Result | None = None
        self.held = bytearray()
        self.error = ""
        self.cause: BaseException | None = None

    @property
    def context(self) -> str | None:
        """The context that the step waits for; ``None`` for other steps."""
        return self.vertex.op.name if isinstance(self.vertex.op, LocalOp) else None

    @property
    def base(self) -> BaseImage | None:
        """The image that it starts from."""
        return self.vertex.op.image if isinstance(self.vertex.op, ImageOp) else None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is done: ``FROM scratch``."""
        return isinstance(self.vertex.op, ScratchOp)


class Report:
    """Records the progress of every step; see :class:`wherry.solver.solve.Progress`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.steps: dict[Vertex, Step] = {}
        self.plans: Sequence[Plan] = ()
        self.names: dict[Vertex, str] = {}
        self.warnings: list[str] = []
        self.said: list[tuple[int, int, bytes]] = []
        """The output of steps, for the history: the step's number, the time (ns), the text. Bounded."""
        self._room = _SAID

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        """The plans are known, one for each platform."""
        self.plans = [*self.plans, *plans]
        self.names.update(_names(plans))
        for vertex in walk([stage.vertex for plan in plans for stage in plan.stages]):
            if vertex not in self.steps:
                self.steps[vertex] = Step(len(self.steps) + 1, vertex)

    def location_of(self, error: BaseException) -> Location | None:
        """The location, in the Dockerfile, of the step that failed with this error."""
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
        if self._room > 0:
            self._room -= len(data) + 32
            clipped = self._room <= 0
            text = b"[output clipped: the history keeps 1MiB of a build]\n" if clipped else data
            self.said.append((self.steps[vertex].number, time.time_ns(), text))
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
        """The build was successful."""

    def pulling(self, message: dict[str, Any]) -> None:
        """A progress line of a pull."""
        self._send(message)

    @contextmanager
    def task(self, name: str) -> Iterator[Send]:
        """Work that is not a step: resolving an image, a push. Yields the receiver for its pull's lines."""
        yield self.pulling

    def found(self, findings: Sequence[CheckFinding], dockerfile: ins.Dockerfile) -> None:
        """The results of the checks of the Dockerfile."""
        self.warnings += [f"{one.rule}: {one.detail} (line {one.location.first})" for one in findings]

    def receiving(self, name: str) -> None:
        """A context is being requested."""

    def received(self, name: str) -> None:
        """The context has arrived."""

    def tell(self, message: dict[str, Any]) -> None:
        """A message for the client itself."""
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
    """``{"step": {…}}`` for every change of a step, ``{"log": …}`` for its output."""

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        super().begin(plans, bases)
        shown = [self._entry(step) for step in self.steps.values()]
        self._send({"steps": shown})

    def _entry(self, step: Step) -> dict[str, Any]:
        return {
            "Number": step.number,
            "Name": self.names.get(step.vertex) or f"[internal] {step.vertex.text}",
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
    """Reports nothing."""

    def pulling(self, message: dict[str, Any]) -> None:
        return


def _names(plans: Sequence[Plan]) -> dict[Vertex, str]:
    """``[build 2/4] RUN make``; if there is only one stage ``[2/4] RUN make``; with the platform if there are
    several.
    """
    names: dict[Vertex, str] = {}
    several = len(plans) > 1
    for stage, alone in [(stage, len(plan.stages) == 1) for plan in plans for stage in plan.stages]:
        own = list(
            dict.fromkeys(v for _, v in stage.steps if v is not None and not isinstance(v.op, ScratchOp))
        )
        own = [v for v in own if v not in names]
        for number, vertex in enumerate(own, 1):
            label = "" if alone else f"{stage.name} "
            platform = f"{vertex.platform} " if several else ""
            names[vertex] = f"[{platform}{label}{number}/{len(own)}] {vertex.text}"
    return names


def step_documents(report: Report) -> Sequence[dict[str, Any]]:
    """For the history: the progress of every step."""
    return [
        {
            "Number": step.number,
            "Name": report.names.get(step.vertex) or f"[internal] {step.vertex.text}",
            "Status": step.status,
            "Started": step.started,
            "Finished": step.finished,
            "Error": step.error,
        }
        for step in report.steps.values()
    ]


__all__ = [
    "CheckFinding",
    "LegacyReport",
    "Plan",
    "QuietReport",
    "Report",
    "Send",
    "Step",
    "StepReport",
    "ins",
    "step_documents",
]
