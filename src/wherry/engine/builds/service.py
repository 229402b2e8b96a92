"""Builds: from a context and a Dockerfile to an image, under one lease, each step shared and remembered."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from wherry.build import instructions as ins
from wherry.build.args import EPOCH
from wherry.build.dockerfile import parse
from wherry.build.errors import DockerfileError
from wherry.build.graph import Vertex
from wherry.build.plan import PlanRequest, plan
from wherry.build.solve import Inflight, Solver
from wherry.engine.builds.assembling import Assembled, Assembler, ImageForm
from wherry.engine.builds.bases import Bases
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.fetching import Fetcher
from wherry.engine.builds.layers import Layers
from wherry.engine.builds.reports import Report, step_documents
from wherry.engine.builds.requests import BuildRequest, Output
from wherry.engine.builds.runner import Runner
from wherry.engine.builds.sessions import Sessions
from wherry.engine.builds.worker import BuildWorker, Inputs
from wherry.engine.events import EventBus
from wherry.engine.pulls import PullService
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.ignore import Patterns, read
from wherry.state.builds import BuildRows, HistoryRow
from wherry.storage.build_files import Ending
from wherry.storage.contexts import Context
from wherry.storage.leases import Lease

log = logging.getLogger(__name__)

_THREADS = 8
_PARALLEL = 4
_HISTORY = 100


@dataclass(frozen=True)
class Built:
    """``image`` is the new image's id."""

    build: str
    image: str
    warnings: Sequence[str] = ()


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
        events: EventBus,
        limit: int = 0,
    ) -> None:
        """:param limit: bytes that the cache may have; 0 for the default share of the disk."""
        self.cache, self.rows = cache, rows
        self._images, self._runner, self._fetcher, self._pulls = images, runner, fetcher, pulls
        self._events, self._limit = events, limit
        self._threads = ThreadPoolExecutor(_THREADS, "build")
        self._layer_threads = ThreadPoolExecutor(2, "layers")
        self._mounts = CacheMounts(cache)
        self.sessions = Sessions(cache)
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._inflight = Inflight(_PARALLEL)
        self._assembler = Assembler(images, cache, Layers(cache, images, self._layer_threads))
        self._trimming: asyncio.Task[None] | None = None

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
        self._apply_limits(request, inputs)
        self._note(build_id, started, 0, "Running", request, report, "")
        status, image = "Error", ""
        try:
            with self._images.leases.hold("build") as lease:
                assembled = await self._build(request, inputs, report, lease)
                image = await asyncio.to_thread(self._name, assembled, request)
            status = "Completed"
        except asyncio.CancelledError:
            status = "Canceled"
            raise
        finally:
            self._running.pop(request.name, None)
            self._note(build_id, started, time.time_ns(), status, request, report, image)
            self._trim_later(failed=status != "Completed")
        self._publish(image, request)
        return Built(build_id, image, self._warnings(report))

    @asynccontextmanager
    async def received(self, stream: int) -> AsyncIterator[Inputs]:
        """The context of a whole archive, for as long as the build takes.

        :raises InvalidArgument: it is broken or hostile.
        """
        context = await asyncio.to_thread(self.cache.contexts.once)
        ending = Ending()
        task = asyncio.ensure_future(asyncio.to_thread(context.receive, stream, ending))
        try:
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                ending.end()
                await asyncio.wait([task])
                raise
            yield Inputs(contexts={"": context})
        finally:
            await asyncio.shield(asyncio.to_thread(context.release))

    def cancel(self, name: str) -> None:
        """End a build that its client gave a name. :raises NotFound: none of that name runs."""
        task = self._running.get(name)
        if task is None:
            raise NotFound(f"No such build: {name}")
        task.cancel()

    async def _build(self, request: BuildRequest, inputs: Inputs, report: Report, lease: Lease) -> Assembled:
        dockerfile = await asyncio.to_thread(self._dockerfile, request, inputs)
        bases = Bases(
            images=self._images,
            pulls=self._pulls,
            lease=lease,
            credentials=request.credentials,
            always_pull=request.pull,
            progress=report.pulling,
        )
        planned = await plan(dockerfile, self._plan_request(request, inputs), bases)
        networks = self._runner.networks()
        worker = BuildWorker(
            cache=self.cache,
            runner=self._runner,
            mounts=self._mounts,
            fetcher=self._fetcher,
            threads=self._threads,
            inputs=inputs,
            lease=lease,
            networks=networks,
        )
        report.begin(planned, bases.found)
        solver = Solver(worker, report, self._inflight, salt=secrets.token_hex(8))
        try:
            await self._solve(solver, planned.target.vertex, dockerfile)
            chain = _chain(planned.target.vertex)
            solver.note_cached(chain)
            await self._complete(solver, chain, dockerfile)
            report.end()
            return await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: self._assembler.assemble(
                    planned.target, solver.results, bases.found, image_form(request, inputs.epoch), lease
                ),
            )
        finally:
            await asyncio.shield(asyncio.to_thread(self._close, worker, networks))

    @staticmethod
    def _apply_limits(request: BuildRequest, inputs: Inputs) -> None:
        inputs.limits = request.limits

    async def _solve(self, solver: Solver, target: Vertex, dockerfile: ins.Dockerfile) -> None:
        try:
            await solver.solve([target])
        except WherryError as e:
            raise _located(e, dockerfile) from e

    async def _complete(self, solver: Solver, chain: list[Vertex], dockerfile: ins.Dockerfile) -> None:
        """The image needs every step of its chain: those below a cached one whose own record is gone
        as well.
        """
        for vertex in chain:
            if vertex not in solver.results:
                await self._solve(solver, vertex, dockerfile)

    @staticmethod
    def _close(worker: BuildWorker, networks: Any) -> None:
        networks.close()
        worker.close()

    def _plan_request(self, request: BuildRequest, inputs: Inputs) -> PlanRequest:
        fresh = frozenset({"*"}) if request.no_cache else request.no_cache_filter
        return PlanRequest(
            target=request.target,
            platform=(request.platform or oci.host()).normalised(),
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
        text = request.text
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

    def _name(self, assembled: Assembled, request: BuildRequest) -> str:
        self._images.add(assembled.target)
        for tag in request.tags:
            self._images.tag(tag, assembled.target, why="build")
        return assembled.target.digest

    def _publish(self, image: str, request: BuildRequest) -> None:
        self._events.publish("image", "create", image, {"name": image})
        for tag in request.tags:
            self._events.publish("image", "tag", image, {"name": tag.familiar()})

    def _warnings(self, report: Report) -> Sequence[str]:
        unused = report.plan.unused_args if report.plan is not None else ()
        if unused:
            return [f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed"]
        return []

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
            "Platform": str(request.platform or oci.host()),
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
        if self._trimming is not None:
            await asyncio.gather(self._trimming, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._layer_threads.shutdown(wait=False, cancel_futures=True)


def _settle_epoch(request: BuildRequest, inputs: Inputs) -> None:
    """:raises InvalidArgument: SOURCE_DATE_EPOCH is no number of seconds."""
    text = request.build_args.get(EPOCH, "")
    if text:
        if not (text.isascii() and text.isdecimal() and len(text) < 12):
            raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text[:80]!r}")
        inputs.epoch = int(text)


def image_form(request: BuildRequest, epoch: int | None, output: Output | None = None) -> ImageForm:
    """What the request and one output of it ask of the image."""
    output = output or request.outputs[0]
    layers = output.form
    if output.rewrite:
        if epoch is None:
            raise InvalidArgument("rewrite-timestamp needs SOURCE_DATE_EPOCH")
        layers = replace(layers, epoch=epoch)
    return ImageForm(layers, epoch, {**request.annotations, **output.annotations}, squash=request.squash)


def _chain(vertex: Vertex) -> list[Vertex]:
    chain = [vertex]
    while chain[-1].parent is not None:
        chain.append(chain[-1].parent)
    return chain[::-1]


def _located(error: WherryError, dockerfile: ins.Dockerfile) -> WherryError:
    """The same error, with the Dockerfile's lines below it where they are known."""
    if isinstance(error, DockerfileError):
        return error if "\n" in error.message else error.within(dockerfile.name, dockerfile.source)
    return error


def _hide_ignored(context: Context, name: str) -> None:
    """Clients send the Dockerfile and ``.dockerignore`` always; COPY sees them only if they are not
    ignored.
    """
    for ignore in (f"{name}.dockerignore", ".dockerignore"):
        data = context.read(ignore)
        if data is not None:
            patterns = Patterns(read(data.decode("utf-8", "replace")))
            for one in (name, ".dockerignore", ignore):
                if patterns.excluded(one):
                    context.tree.hide(one.encode())
            return
