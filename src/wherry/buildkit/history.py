"""The history of builds of all faces: list builds, repeat their progress, delete them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wherry import threads
from wherry.buildkit import filters, traces
from wherry.buildkit.jobs import SolveJob
from wherry.buildkit.proto import control_pb2
from wherry.buildkit.proto.control_rpc import Control as Methods
from wherry.buildkit.status import StatusLog, stamp
from wherry.engine.builds.service import BuildService, HistoryRow
from wherry.errors import InvalidArgument, NotFound
from wherry.model import digest as digests
from wherry.rpc.server import Route, ServerCall, on
from wherry.rpc.status import Code

Event = control_pb2.BuildHistoryEvent
Record = control_pb2.BuildHistoryRecord
ListenCall = ServerCall[control_pb2.BuildHistoryRequest, control_pb2.BuildHistoryEvent]
StatusCall = ServerCall[control_pb2.StatusRequest, control_pb2.StatusResponse]
_IN_TOTO = "application/vnd.in-toto+json"


class BuildHistory:
    """Used on the loop."""

    def __init__(self, builds: BuildService) -> None:
        self._builds = builds

    def routes(self) -> list[Route]:
        return [on(Methods.ListenBuildHistory, self.listen), on(Methods.UpdateBuildHistory, self.update)]

    async def listen(self, request: control_pb2.BuildHistoryRequest, call: ListenCall) -> None:
        """Send the existing builds, then new ones, unless the client only wants the former."""
        news = self._builds.noted.subscribe()
        try:
            known: dict[str, str] = {}
            rows = await threads.short(self._builds.rows.history)
            await self._send(self._chosen(rows, request), known, call)
            while not request.EarlyExit:
                await news.wait()
                news.clear()
                rows = await threads.short(self._builds.rows.history)
                for gone in set(known) - {row.id for row in rows}:
                    del known[gone]
                    await call.send(Event(type=control_pb2.DELETED, record=Record(Ref=gone)))
                await self._send(self._chosen(rows, request), known, call)
        finally:
            self._builds.noted.unsubscribe(news)

    def _chosen(
        self, rows: Sequence[HistoryRow], request: control_pb2.BuildHistoryRequest
    ) -> list[HistoryRow]:
        test = filters.history(request.Filter)
        found = [
            row
            for row in rows
            if (not request.Ref or row.id == request.Ref)
            and not (request.ActiveOnly and row.finished)
            and test(_fields(row))
        ]
        return found[: request.Limit] if request.Limit > 0 else found

    async def _send(self, rows: Sequence[HistoryRow], known: dict[str, str], call: ListenCall) -> None:
        for row in reversed(rows):
            if known.get(row.id) == row.status:
                continue
            known[row.id] = row.status
            kind = control_pb2.COMPLETE if row.finished else control_pb2.STARTED
            await call.send(Event(type=kind, record=await threads.short(record, row)))

    def blob(self, digest: str) -> bytes:
        """A build's provenance or trace. Blocks. :raises NotFound: no build of the history has it."""
        try:
            return self._builds.history_blob(digest)
        except NotFound:
            return traces.found_in(self._builds.rows.history(), digest)

    async def update(
        self,
        request: control_pb2.UpdateBuildHistoryRequest,
        _call: ServerCall[control_pb2.UpdateBuildHistoryRequest, control_pb2.UpdateBuildHistoryResponse],
    ) -> control_pb2.UpdateBuildHistoryResponse:
        if request.Delete:
            await threads.short(self._builds.forget, request.Ref)
        elif request.Pinned:
            raise InvalidArgument("pinning builds in the history is not supported")
        return control_pb2.UpdateBuildHistoryResponse()

    async def replay(self, ref: str, running: Mapping[str, SolveJob], call: StatusCall) -> bool:
        """Repeat the progress of an ended build. :returns: ``False`` if there is no build with that ref."""
        if ref in running:
            return False
        try:
            row = await threads.short(self._builds.rows.history_of, ref)
        except NotFound:
            return False
        if row.id != ref or not row.finished:
            return False
        log = StatusLog()
        document = msgspec.json.decode(row.document)
        digests = _vertices(row.id, document.get("Steps", []), log)
        for number, when, text in await threads.short(self._builds.rows.said, ref):
            if number in digests:
                log.log(digests[number], text, when)
        log.end()
        async for message in log.follow():
            await call.send(message)
        return True


def _vertices(build: str, steps: Sequence[Mapping[str, Any]], log: StatusLog) -> dict[int, str]:
    from wherry.buildkit.status import BuildKitReport

    report = BuildKitReport(build, log)
    message = control_pb2.StatusResponse()
    found: dict[int, str] = {}
    for number, step in enumerate(steps, 1):
        digest = found[int(step.get("Number", number))] = report.digest(step.get("Number", number))
        vertex = message.vertexes.add(digest=digest, name=step["Name"], cached=step["Status"] == "cached")
        started = step["Started"] or step["Finished"]
        if step["Status"] != "waiting":
            vertex.started.CopyFrom(stamp(started))
            vertex.completed.CopyFrom(stamp(step["Finished"] or started))
        vertex.error = step["Error"]
    log.put(message)
    return found


def _fields(row: HistoryRow) -> Mapping[str, str]:
    document = msgspec.json.decode(row.document)
    status = {"Running": "running", "Completed": "completed", "Canceled": "canceled"}.get(row.status, "error")
    repository = document.get("FrontendAttrs", {}).get("vcs:source", "")
    return {
        "ref": row.id,
        "status": status,
        "repository": repository,
        "startedAt": str(row.started),
        "completedAt": str(row.finished),
        "duration": str(max(0, row.finished - row.started)),
    }


def record(row: HistoryRow) -> control_pb2.BuildHistoryRecord:
    """One build as clients list it."""
    document = msgspec.json.decode(row.document)
    made = Record(
        Ref=row.id,
        Frontend=document.get("Frontend", "dockerfile.v0"),
        FrontendAttrs=document.get("FrontendAttrs") or _attributes(document),
        Exporters=[control_pb2.Exporter(**one) for one in document.get("Exporters", [])],
        ExporterResponse={
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in document.get("Metadata", {}).items()
        },
        Generation=1,
    )
    made.CreatedAt.CopyFrom(stamp(row.started))
    if row.finished:
        made.CompletedAt.CopyFrom(stamp(row.finished))
    if row.status in ("Error", "Canceled", "Interrupted"):
        made.error.code = Code.CANCELLED if row.status == "Canceled" else Code.UNKNOWN
        made.error.message = document.get("Error") or row.status.lower()
    steps = document.get("Steps", [])
    made.numTotalSteps = len(steps)
    made.numCachedSteps = sum(step["Status"] == "cached" for step in steps)
    made.numCompletedSteps = sum(step["Status"] in ("cached", "done") for step in steps)
    made.numWarnings = len(document.get("Warnings", []))
    if row.finished:
        trace = traces.trace_of(row)
        made.trace.media_type, made.trace.digest = traces.MEDIA_TYPE, digests.of(trace)
        made.trace.size = len(trace)
    for platform, found in document.get("Provenance", {}).items():
        several = len(document["Provenance"]) > 1
        into = made.Results[platform] if several else made.Result
        into.Attestations.add(
            media_type=_IN_TOTO,
            digest=found["digest"],
            size=found["size"],
            annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"},
        )
    return made


def _attributes(document: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of a build by another face, in the form of this face."""
    found = {"filename": document.get("Dockerfile", ""), "target": document.get("Target", "")}
    found["platform"] = document.get("Platform", "")
    return {key: value for key, value in found.items() if value}
