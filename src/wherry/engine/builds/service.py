"""Builds: from a context and a Dockerfile to a result, under one lease, each step shared and remembered."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from wherry.build import instructions as ins
from wherry.build.args import EPOCH
from wherry.build.dockerfile import parse
from wherry.build.errors import DockerfileError
from wherry.build.graph import Plan, Vertex
from wherry.build.plan import PlanRequest, plan
from wherry.build.solve import Inflight, Solver
from wherry.engine.builds import agents, describing
from wherry.engine.builds.agents import forwarded
from wherry.engine.builds.assembling import Assembler
from wherry.engine.builds.bases import Bases
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.debugging import command_of, debug_image, failed_vertex
from wherry.engine.builds.exchange import Exchange
from wherry.engine.builds.fetching import Fetcher
from wherry.engine.builds.finishing import Finished, Finisher, PlatformResult
from wherry.engine.builds.layers import Layers
from wherry.engine.builds.outputs import OutputStore
from wherry.engine.builds.remote import remote_context
from wherry.engine.builds.reports import Report, step_documents
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.runner import Networks, Runner
from wherry.engine.builds.sessions import Sessions
from wherry.engine.builds.threads import in_thread
from wherry.engine.builds.worker import BuildWorker, Inputs
from wherry.engine.events import EventBus
from wherry.engine.pulls import PullService
from wherry.engine.pushes import PushService
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.ignore import Patterns, read
from wherry.model.oci import Platform
from wherry.state.builds import BuildRows, HistoryRow
from wherry.storage.contexts import Context
from wherry.storage.leases import Lease

log = logging.getLogger(__name__)

_THREADS = 8
_PARALLEL = 4
_HISTORY = 100


@dataclass(frozen=True)
class Built:
    """``image`` is the new image's id, ``""`` where none was wanted; ``metadata`` as of ``--metadata-
    file``.
    """

    build: str
    image: str
    warnings: Sequence[str] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


class BuildService:
    """Used on the loop."""

    def __init__(
        self,
        *,
        images: ImageStore,
        cache: BuildCache,
        rows: BuildRows,
        runner: Runner,
        fetcher: Fetcher,
        pulls: PullService,
        pushes: PushService,
        events: EventBus,
        run: Path,
        limit: int = 0,
    ) -> None:
        """:param run: where sockets are made.
        :param limit: bytes that the cache may have; 0 for the default share of the disk.
        """
        self.cache, self.rows = cache, rows
        self._images, self._runner, self._fetcher, self._pulls = images, runner, fetcher, pulls
        self._events, self._limit = events, limit
        self._threads = ThreadPoolExecutor(_THREADS, "build")
        self._layer_threads = ThreadPoolExecutor(2, "layers")
        self._mounts = CacheMounts(cache)
        self.sessions = Sessions(cache)
        self.outputs = OutputStore(cache, images)
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._inflight = Inflight(_PARALLEL)
        layers = Layers(cache, images, self._layer_threads)
        assembler = Assembler(images, cache, layers)
        self._exchange = Exchange(
            cache=cache,
            images=images,
            assembler=assembler,
            outputs=self.outputs,
            pulls=pulls,
            pushes=pushes,
        )
        self._finisher = Finisher(
            images=images,
            assembler=assembler,
            exchange=self._exchange,
            outputs=self.outputs,
            pushes=pushes,
            events=events,
        )
        self._trimming: asyncio.Task[None] | None = None
        self._run = run
        agents.sweep(run)
        rows.end_history()

    # ---- contexts ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def received(self, stream: int) -> AsyncIterator[Inputs]:
        """The context of a whole archive, for as long as the build takes.

        :raises InvalidArgument: it is broken or hostile.
        """
        context = await asyncio.to_thread(self.cache.contexts.once)
        try:
            await in_thread(partial(context.receive, stream))
            yield Inputs(contexts={"": context})
        finally:
            await asyncio.shield(asyncio.to_thread(context.release))

    @asynccontextmanager
    async def fetched(self, request: BuildRequest) -> AsyncIterator[tuple[BuildRequest, Inputs]]:
        """The context behind ``request.remote``, and the request with the Dockerfile that may be all
        of it.
        """
        async with remote_context(request, self._fetcher, self.cache) as (changed, context):
            yield changed, Inputs(contexts={"": context} if context is not None else {})

    # ---- building ------------------------------------------------------------------------------------------

    async def describe(self, call: str, request: BuildRequest, inputs: Inputs) -> dict[str, Any]:
        """``--call``: what the Dockerfile says, without building it."""

        def work() -> dict[str, Any]:
            return describing.called(call, self._dockerfile(request, inputs), request, inputs)

        return await asyncio.to_thread(work)

    async def build(self, request: BuildRequest, inputs: Inputs, report: Report) -> Built:
        """Build. Cancelled, it ends what it began and leaves nothing.

        :raises DockerfileError: with the lines that are wrong. :raises WherryError: of the step that failed.
        """
        build_id = secrets.token_hex(12)
        started = time.time_ns()
        current = asyncio.current_task()
        assert current is not None
        if request.name:
            self._running[request.name] = current
        _settle_epoch(request, inputs)
        inputs.limits = request.limits
        self._note(build_id, started, 0, "Running", request, report, "")
        status, finished = "Error", Finished()
        try:
            async with forwarded(self._run, inputs.agents) as inputs.agents:
                with self._images.leases.hold("build") as lease:
                    finished = await self._build(build_id, started, request, inputs, report, lease)
            status = "Completed"
        except asyncio.CancelledError:
            status = "Canceled"
            raise
        finally:
            self._running.pop(request.name, None)
            self._note(build_id, started, time.time_ns(), status, request, report, finished.image)
            self._trim_later(failed=status != "Completed")
        metadata = {"buildx.build.ref": f"default/default/{build_id}", **finished.metadata}
        return Built(build_id, finished.image, self._warnings(report), metadata)

    def cancel(self, name: str) -> None:
        """End a build that its client gave a name. :raises NotFound: none of that name runs."""
        task = self._running.get(name)
        if task is None:
            raise NotFound(f"No such build: {name}")
        task.cancel()

    async def _build(
        self,
        build_id: str,
        started: int,
        request: BuildRequest,
        inputs: Inputs,
        report: Report,
        lease: Lease,
    ) -> Finished:
        dockerfile = await asyncio.to_thread(self._dockerfile, request, inputs)
        await asyncio.to_thread(self._check, dockerfile, request, inputs, report)
        bases = Bases(
            images=self._images,
            pulls=self._pulls,
            lease=lease,
            credentials=request.credentials,
            always_pull=request.pull,
            progress=report.pulling,
        )
        platforms = request.platforms or (oci.host(),)
        plans = [await plan(dockerfile, self._plan_request(request, inputs, one), bases) for one in platforms]
        networks = self._runner.networks()
        worker = self._worker(inputs, lease, networks)
        try:
            await self._exchange.load(request, worker, report.pulling)
            report.begin(plans, bases.found)
            solver = Solver(worker, report, self._inflight, salt=secrets.token_hex(8))
            try:
                await self._solve_all(solver, plans)
            except WherryError as e:
                if request.debug:
                    await self._keep_state(solver, plans, bases, report, lease)
                raise _located(e, dockerfile, report) from e
            report.end()
            results = [
                PlatformResult(one.normalised(), planned, solver.results, bases.found)
                for one, planned in zip(platforms, plans, strict=True)
            ]
            finished = await self._finisher.finish(
                build_id, request, inputs, results, lease, report, started=started, dockerfile=dockerfile
            )
            await self._exchange.store(build_id, request, results, lease, report.pulling)
            return finished
        finally:
            await asyncio.shield(asyncio.to_thread(self._close, worker, networks))

    def _worker(self, inputs: Inputs, lease: Lease, networks: Networks) -> BuildWorker:
        return BuildWorker(
            cache=self.cache,
            runner=self._runner,
            mounts=self._mounts,
            fetcher=self._fetcher,
            threads=self._threads,
            inputs=inputs,
            lease=lease,
            networks=networks,
        )

    @staticmethod
    async def _solve_all(solver: Solver, plans: Sequence[Plan]) -> None:
        """The targets, and then every step below them, as images are made of all of them."""
        await solver.solve([planned.target.vertex for planned in plans])
        for planned in plans:
            await _complete(solver, planned.target.vertex)

    async def _keep_state(
        self, solver: Solver, plans: Sequence[Plan], bases: Bases, report: Report, lease: Lease
    ) -> None:
        """The state before the step that failed, as an image for a shell to look at."""
        vertex = failed_vertex(report)
        if vertex is None or vertex.parent is None:
            return
        await _complete(solver, vertex.parent)
        assembler = self._finisher.assembler
        image = await asyncio.to_thread(
            debug_image, vertex, plans[0], solver.results, bases.found, assembler, self._images, lease
        )
        report.tell({"aux": {"Debug": {"Image": image, "Command": command_of(vertex)}}})

    @staticmethod
    def _close(worker: BuildWorker, networks: Networks) -> None:
        networks.close()
        worker.close()

    @staticmethod
    def _plan_request(request: BuildRequest, inputs: Inputs, platform: Platform) -> PlanRequest:
        fresh = frozenset({"*"}) if request.no_cache else request.no_cache_filter
        return PlanRequest(
            target=request.target,
            platform=platform.normalised(),
            build_args=request.build_args,
            contexts=request.contexts,
            labels=request.labels,
            fresh=fresh,
            network=request.network or "default",
            entitlements=request.entitlements,
            epoch=inputs.epoch,
        )

    @staticmethod
    def _dockerfile(request: BuildRequest, inputs: Inputs) -> ins.Dockerfile:
        text = request.text if request.text is not None else inputs.dockerfile
        context = inputs.contexts.get("")
        name = request.dockerfile or "Dockerfile"
        if text is None:
            text = context.read(name) if context is not None else None
            if text is None and name == "Dockerfile" and context is not None:
                text = context.read("dockerfile")
            if text is None:
                raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
        if not text.strip():
            raise InvalidArgument(f"The Dockerfile ({name}) cannot be empty")
        if context is not None:
            _hide_ignored(context, name)
        return parse(text, name=name)

    @staticmethod
    def _check(dockerfile: ins.Dockerfile, request: BuildRequest, inputs: Inputs, report: Report) -> None:
        """The checks' findings are warnings, unless the Dockerfile says that they are errors."""
        found = describing.findings(dockerfile, request, inputs)
        report.warnings = [describing.warning(one) for one in found]
        if found and describing.options_of(dockerfile, request).error:
            rules = ", ".join(sorted({one.rule for one in found}))
            reason = f"lint violation found for rules: {rules}: {found[0].detail}"
            raise DockerfileError(reason, found[0].location).within(dockerfile.name, dockerfile.source)

    @staticmethod
    def _warnings(report: Report) -> Sequence[str]:
        unused = sorted({name for planned in report.plans for name in planned.unused_args})
        found = list(report.warnings)
        if unused:
            found.append(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed")
        return found

    # ---- history and bound ---------------------------------------------------------------------------------

    def _note(
        self,
        build_id: str,
        started: int,
        finished: int,
        status: str,
        request: BuildRequest,
        report: Report,
        image: str,
    ) -> None:
        document = {
            "Dockerfile": request.dockerfile,
            "Target": request.target,
            "Tags": [tag.familiar() for tag in request.tags],
            "Platform": ",".join(str(one) for one in request.platforms or (oci.host(),)),
            "BuildArgs": sorted(request.build_args),
            "Image": image,
            "Steps": step_documents(report),
        }
        row = HistoryRow(build_id, started, finished, status, msgspec.json.encode(document).decode())
        try:
            self.rows.put_history(row, keep=_HISTORY)
        except WherryError as e:
            log.warning("cannot note a build: %s", e.message)

    def _trim_later(self, *, failed: bool) -> None:
        """Keep the cache's bound, beside other work; a failure's leftovers go as well."""

        def work() -> None:
            self.cache.keep_bound(self._limit)
            if failed:
                self._images.collect()

        async def trim() -> None:
            await asyncio.to_thread(work)

        if self._trimming is None or self._trimming.done():
            self._trimming = asyncio.create_task(trim())

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        if self._trimming is not None:
            await asyncio.gather(self._trimming, return_exceptions=True)
        await self.outputs.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._layer_threads.shutdown(wait=False, cancel_futures=True)


async def _complete(solver: Solver, vertex: Vertex) -> None:
    """Results of everything below a vertex as well."""
    chain = vertex.chain()
    solver.note_cached(chain)
    missing = [one for one in chain if one not in solver.results]
    if missing:
        await solver.solve(missing)


def _settle_epoch(request: BuildRequest, inputs: Inputs) -> None:
    """:raises InvalidArgument: SOURCE_DATE_EPOCH is no number of seconds."""
    text = request.build_args.get(EPOCH, "")
    if text:
        if not (text.isascii() and text.isdecimal() and len(text) < 12):
            raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text[:80]!r}")
        inputs.epoch = int(text)


def _located(error: WherryError, dockerfile: ins.Dockerfile, report: Report) -> WherryError:
    """The same error, with the Dockerfile's lines below it where they are known."""
    if isinstance(error, DockerfileError):
        return error if "\n" in error.message else error.within(dockerfile.name, dockerfile.source)
    location = report.location_of(error)
    if location is None or not isinstance(error, InvalidArgument | NotFound):
        return error
    shown = DockerfileError("", location).within(dockerfile.name, dockerfile.source).message
    kind = NotFound if isinstance(error, NotFound) else InvalidArgument
    return kind(f"{error.message}\n{shown.partition(chr(10))[2]}")


def _hide_ignored(context: Context, name: str) -> None:
    """Clients send the Dockerfile and ``.dockerignore`` always; COPY sees them if they are not ignored."""
    for ignore in (f"{name}.dockerignore", ".dockerignore"):
        data = context.read(ignore)
        if data is not None:
            patterns = Patterns(read(data.decode("utf-8", "replace")))
            both = dict.fromkeys((name, ".dockerignore", ignore))
            context.hidden = tuple(one for one in both if patterns.excluded(one))
            return
