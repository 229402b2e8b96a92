"""A build's progress as ``StatusResponse`` messages: kept until it ends, and sent to all listeners."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from wherry.buildkit.errors import words
from wherry.buildkit.proto import control_pb2, gateway_pb2
from wherry.engine.builds.failures import causes
from wherry.engine.builds.reports import CheckFinding, Plan, Report, Send, Step, ins
from wherry.errors import InvalidArgument, WherryError
from wherry.model import reference
from wherry.model.digest import Digest
from wherry.model.images import Image

_BATCH = 512 << 10
"""The maximum bytes of output in one message; clients accept 16 MiB."""
_STEP, _ALL = 2 << 20, 32 << 20
"""The maximum bytes of output that are kept, for each step and for a build; more is clipped, with BuildKit's
text and its limit for a step."""
_CLIPPED = b"[output clipped, log limit 2MiB reached]\n"


def stamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)


class StatusLog:
    """The messages of one build. A late listener receives everything that was kept."""

    def __init__(self) -> None:
        self._messages: list[control_pb2.StatusResponse] = []
        self._ended = False
        self._news = asyncio.Event()
        self._output: Counter[str] = Counter()

    def put(self, message: control_pb2.StatusResponse) -> None:
        self._messages.append(message)
        self._wake()

    def log(self, vertex: str, text: bytes, when: int) -> None:
        if self._output[vertex] > _STEP:
            return
        self._output[vertex] += len(text)
        if self._output[vertex] > _STEP or self._output.total() > _ALL:
            self._output[vertex] = _STEP + 1
            text = _CLIPPED
        for at in range(0, len(text), _BATCH):
            message = control_pb2.StatusResponse()
            message.logs.add(vertex=vertex, timestamp=stamp(when), stream=1, msg=text[at : at + _BATCH])
            self.put(message)

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncIterator[control_pb2.StatusResponse]:
        """All messages until the build's end; those that exist already are combined."""
        at = 0
        while True:
            news = self._news
            found, at = self._messages[at:], len(self._messages)
            for message in _together(found):
                yield message
            if at == len(self._messages):
                if self._ended:
                    return
                await news.wait()


def _together(messages: Sequence[control_pb2.StatusResponse]) -> Iterator[control_pb2.StatusResponse]:
    whole, size = control_pb2.StatusResponse(), 0
    for message in messages:
        own = message.ByteSize()
        if size and size + own > _BATCH:
            yield whole
            whole, size = control_pb2.StatusResponse(), 0
        whole.MergeFrom(message)
        size += own
    if size:
        yield whole


class BuildKitReport(Report):
    """Steps become vertices; pulls and transfers become their statuses."""

    def __init__(self, identifier: str, log: StatusLog) -> None:
        super().__init__(self._unasked)
        self._id, self._log = identifier, log
        self._others = 0
        self._contexts: dict[str, Step] = {}
        self._bases: dict[Digest, Image] = {}
        self.definition = ""
        """The vertex that reads the Dockerfile; warnings refer to it."""

    @staticmethod
    def _unasked(_message: dict[str, Any]) -> None:
        """Messages that other faces show as separate lines."""

    # ---- steps ---------------------------------------------------------------------------------------------

    def digest(self, number: int | str) -> str:
        return "sha256:" + hashlib.sha256(f"{self._id} {number}".encode()).hexdigest()

    def begin(self, plans: Sequence[Plan], bases: Mapping[Digest, Image]) -> None:
        before = len(self.steps)
        super().begin(plans, bases)
        self._bases.update(bases)
        message = control_pb2.StatusResponse()
        for step in list(self.steps.values())[before:]:
            if step.is_nothing:
                continue
            if step.context is not None:
                self._contexts[step.context] = step
            message.vertexes.append(self._vertex(step))
        self._log.put(message)

    def _vertex(self, step: Step) -> control_pb2.Vertex:
        vertex = control_pb2.Vertex(
            digest=self.digest(step.number),
            inputs=[self.digest(self.steps[one].number) for one in step.vertex.inputs],
            name=self.name_of(step),
        )
        if step.status != "waiting":
            started = step.started or time.time_ns()
            vertex.started.CopyFrom(stamp(started))
            if step.status != "running":
                vertex.completed.CopyFrom(stamp(max(step.finished, started)))
        vertex.cached = step.status == "cached"
        if step.status == "failed" and step.cause is not None:
            vertex.error = words(step.cause)
        elif step.status == "canceled":
            vertex.error = "context canceled"
        return vertex

    def name_of(self, step: Step) -> str:
        name = self.names.get(step.vertex, "")
        if step.base is not None:
            return f"{name.partition('FROM ')[0]}FROM {self._shown(step.base.name, step.base.digest)}"
        return name or f"[internal] {step.vertex.text}"

    def _shown(self, name: str, manifest: Digest) -> str:
        """An image's whole name with the digest of what it names, as BuildKit shows it."""
        try:
            whole = reference.parse(name).with_default_tag()
        except InvalidArgument:
            return name
        known = self._bases.get(manifest)
        return str(whole) if whole.digest else f"{whole}@{manifest if known is None else known.id}"

    def _changed(self, step: Step) -> None:
        if not step.is_nothing:
            message = control_pb2.StatusResponse()
            message.vertexes.append(self._vertex(step))
            self._log.put(message)

    def _said(self, step: Step, data: bytes) -> None:
        self._log.log(self.digest(step.number), data, time.time_ns())

    def failed_vertex(self, error: BaseException) -> str:
        """The digest of the step that failed with this error."""
        for cause in causes(error):
            for step in self.steps.values():
                if step.cause is cause:
                    return self.digest(step.number)
        return ""

    # ---- contexts ------------------------------------------------------------------------------------------

    def receiving(self, name: str) -> None:
        step = self._contexts.get(name)
        if step is not None and step.status == "waiting":
            step.status, step.started = "running", time.time_ns()
            self._changed(step)

    def received(self, name: str) -> None:
        step = self._contexts.get(name)
        if step is not None and step.status == "running":
            step.status, step.finished = "done", time.time_ns()
            self._changed(step)

    def transferred(self, name: str, size: int, *, done: bool = False) -> None:
        """Report the number of bytes of a context received so far."""
        step = self._contexts.get(name)
        if step is None:
            return
        vertex = self.digest(step.number)
        self._status(vertex, f"transferring {name or 'context'}:", size, 0, step.started, done=done)

    # ---- everything else -----------------------------------------------------------------------------------

    @contextmanager
    def task(self, name: str) -> Iterator[Send]:
        """A separate vertex with a pull's lines as its statuses."""
        self._others += 1
        digest = self.digest(f"other {self._others}")
        internal = name.startswith(("load ", "pull "))
        vertex = control_pb2.Vertex(digest=digest, name=f"[internal] {name}" if internal else name)
        vertex.started.CopyFrom(stamp(began := time.time_ns()))
        lines = _Lines(self, digest, began)
        self._put(vertex)
        try:
            yield lines.take
        except BaseException as e:
            vertex.error = words(e) if isinstance(e, WherryError) else "context canceled"
            raise
        finally:
            lines.end()
            vertex.completed.CopyFrom(stamp(time.time_ns()))
            self._put(vertex)

    @contextmanager
    def definition_task(self, name: str) -> Iterator[Send]:
        with self.task(name) as tell:
            self.definition = self.digest(f"other {self._others}")
            yield tell

    def _put(self, vertex: control_pb2.Vertex) -> None:
        message = control_pb2.StatusResponse()
        message.vertexes.append(vertex)
        self._log.put(message)

    def _status(
        self, vertex: str, name: str, current: int, total: int, started: int, *, done: bool = False
    ) -> None:
        message = control_pb2.StatusResponse()
        now = time.time_ns()
        status = message.statuses.add(ID=name, vertex=vertex, name=name, current=current, total=total)
        status.timestamp.CopyFrom(stamp(now))
        status.started.CopyFrom(stamp(started or now))
        if done:
            status.completed.CopyFrom(stamp(now))
        self._log.put(message)

    def warned(self, request: gateway_pb2.WarnRequest) -> None:
        """Add a warning from the client itself."""
        message = control_pb2.StatusResponse()
        message.warnings.add(
            vertex=request.digest or self.definition,
            level=request.level,
            short=request.short,
            detail=request.detail,
            url=request.url,
            info=request.info,
            ranges=request.ranges,
        )
        self._log.put(message)

    def found(self, findings: Sequence[CheckFinding], dockerfile: ins.Dockerfile) -> None:
        super().found(findings, dockerfile)
        message = control_pb2.StatusResponse()
        for one in findings:
            warning = message.warnings.add(
                vertex=self.definition,
                level=1,
                short=f"{one.rule}: {one.detail} (line {one.location.first})".encode(),
                detail=[one.description.encode()],
                url=one.url,
            )
            warning.info.filename = dockerfile.name
            warning.info.data = dockerfile.source.encode("utf-8", "surrogateescape")
            warning.info.language = "Dockerfile"
            lines = warning.ranges.add()
            lines.start.line, lines.end.line = one.location.first, one.location.last
        if findings:
            self._log.put(message)


class _Lines:
    """A pull's lines (``{"id": …, "status": …, "progressDetail": …}``) as statuses of one vertex."""

    def __init__(self, report: BuildKitReport, vertex: str, began: int) -> None:
        self._report, self._vertex, self._began = report, vertex, began
        self._open: dict[str, tuple[int, int]] = {}

    def take(self, message: dict[str, Any]) -> None:
        status, layer = str(message.get("status", "")), str(message.get("id", ""))
        detail = message.get("progressDetail") or {}
        if not status:
            return
        if not layer:
            self._report._status(self._vertex, status, 0, 0, time.time_ns(), done=True)
            return
        current, total = int(detail.get("current", 0) or 0), int(detail.get("total", 0) or 0)
        done = status in ("Pull complete", "Already exists", "Pushed", "Layer already exists")
        name = f"{layer}"
        before = self._open.get(name, (0, 0))
        if done:
            current = total = before[1] or total
        if (current, total) != before or done or name not in self._open:
            self._open[name] = (current, max(total, before[1]))
            self._report._status(self._vertex, name, current, max(total, before[1]), self._began, done=done)
            if done:
                del self._open[name]

    def end(self) -> None:
        for name, (_, total) in self._open.items():
            self._report._status(self._vertex, name, total, total, self._began, done=True)
        self._open.clear()
