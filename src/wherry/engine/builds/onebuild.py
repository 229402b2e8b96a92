"""One build: solve any number of requests, then make the outputs.

    solve(request)      read and check the Dockerfile, make a plan for each platform, carry it out
    finish(solved)      make images, archives, pushes and caches from the result, and deliver them

Between the two the results are held: a client may inspect them or build on them. :meth:`Build.close` releases
everything.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from wherry import threads
from wherry.dockerfile import instructions as ins
from wherry.dockerfile.args import EPOCH
from wherry.dockerfile.errors import DockerfileError, located
from wherry.dockerfile.parse import parse
from wherry.dockerfile.plan import plan
from wherry.dockerfile.requests import PlanRequest
from wherry.engine.builds import attest, describing
from wherry.engine.builds.agents import Agents, agents_of
from wherry.engine.builds.bases import Bases, Held
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.clients import BuildClient, GivenDockerfile, Source
from wherry.engine.builds.debugging import command_of, debug_image, failed_vertex
from wherry.engine.builds.exchange import Exchange
from wherry.engine.builds.fetching import SourceFetcher
from wherry.engine.builds.finishing import Finished, Finisher
from wherry.engine.builds.held import HeldResults, Solved
from wherry.engine.builds.ignored import ignored_of
from wherry.engine.builds.remote import from_archive, is_archive, remote_context, remote_operation
from wherry.engine.builds.reports import Report
from wherry.engine.builds.requests import DOCKER, IMAGE, OCI, BuildRequest
from wherry.engine.builds.results import PlatformResult
from wherry.engine.builds.runner import NamespacePool, Runner
from wherry.engine.builds.trees import CachedTree
from wherry.engine.builds.worker import BuildWorker, Inputs, source_of
from wherry.engine.images.pulls import PullService
from wherry.errors import InvalidArgument, NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.linux import cgroups
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.oci import Platform
from wherry.solver.graph import FetchOp, LocalOp, Plan, Vertex, walk
from wherry.solver.solve import Inflight, Solver
from wherry.storage.contexts import BuildContext
from wherry.storage.leases import Lease


@dataclass(frozen=True)
class Parts:
    """What all builds share."""

    images: ImageStore
    cache: BuildCache
    runner: Runner
    fetcher: SourceFetcher
    pulls: PullService
    mounts: CacheMounts
    inflight: Inflight
    exchange: Exchange
    finisher: Finisher
    held: HeldResults
    run: Path


@dataclass(frozen=True)
class Read:
    """A parsed Dockerfile.

    :ivar ignore: the ``.dockerignore``. :ivar context: the main one, if it was needed for this.
    :ivar hidden: paths of the main context that COPY must not see.
    """

    request: BuildRequest
    dockerfile: ins.Dockerfile
    ignore: bytes | None
    context: BuildContext | None
    hidden: tuple[str, ...] = ()


class Build:
    """Used on the loop."""

    def __init__(
        self, parts: Parts, identifier: str, client: BuildClient, report: Report, *, started: int
    ) -> None:
        """:param started: nanoseconds since the epoch."""
        self._parts, self.id, self.client, self.report = parts, identifier, client, report
        self.started = started
        self.finished = Finished()
        self.request: BuildRequest | None = None
        self._stack = AsyncExitStack()
        self._names: list[str] = []
        self._lease: Lease | None = None
        self._agents: Agents | None = None

    async def open(self) -> None:
        self._lease = self._stack.enter_context(self._parts.images.leases.hold("build"))
        self._agents = await self._stack.enter_async_context(agents_of(self._parts.run, self.client))

    async def close(self) -> None:
        """Release everything; held results are gone."""
        for name in self._names:
            self._parts.held.drop(name)
        await self._stack.aclose()

    # ---- reading -------------------------------------------------------------------------------------------

    async def read(self, request: BuildRequest, client: BuildClient | None = None) -> Read:
        """:param client: the client to use instead of the build's.

        :raises InvalidArgument: there is no Dockerfile. :raises DockerfileError: it is not a valid one."""
        client = client or self.client
        name = request.dockerfile or "Dockerfile"
        written = GivenDockerfile(request.text) if request.text is not None else await client.dockerfile(name)
        context: BuildContext | None = None
        if request.remote:
            await self._check_source(remote_operation(request), client)
            changed, context = await self._stack.enter_async_context(
                remote_context(request, self._parts.fetcher, self._parts.cache)
            )
            if changed.text is not None and written is None:
                request, written = changed, GivenDockerfile(changed.text)
        elif written is None:
            context = await client.files("")
        if written is None:
            written = await threads.disk(_of_context, context, name)
        elif context is not None:
            ignored = await threads.disk(ignored_of, context, name)
            written = replace(written, hidden=ignored.hidden)
        if not written.text.strip():
            raise InvalidArgument(f"The Dockerfile ({name}) cannot be empty")
        dockerfile = await threads.disk(parse, written.text, name=name)
        return Read(request, dockerfile, written.ignore, context, written.hidden)

    # ---- solving -------------------------------------------------------------------------------------------

    async def solve(
        self,
        request: BuildRequest,
        *,
        held: Mapping[str, str] | None = None,
        client: BuildClient | None = None,
    ) -> Solved:
        """Carry out a request up to its files; no outputs are made.

        :param held: held results, by the image names that stand for them in the request.
        :param client: the client to use instead of the build's, if a build has several requests.
        :raises DockerfileError: with the faulty lines. :raises WherryError: from the step that failed.
        """
        assert self._lease is not None
        assert self._agents is not None
        cgroups.check_parent(request.limits.host.cgroup_parent)
        self.request = self.request or request
        client = client or self.client
        inputs = Inputs(
            client,
            self._agents,
            limits=request.limits,
            epoch=_epoch(request),
            layered=any(one.kind in (IMAGE, OCI, DOCKER) and one.form.is_remade for one in request.outputs),
        )
        found = await self.read(request, client)
        request, dockerfile = found.request, found.dockerfile
        inputs.hidden[""] = found.hidden
        if found.context is not None:
            inputs.contexts[""] = found.context
        bases = Bases(
            images=self._parts.images,
            pulls=self._parts.pulls,
            lease=self._lease,
            client=client,
            always_pull=request.pull,
            report=self.report,
            held={name: self._held_image(one) for name, one in (held or {}).items()},
        )
        platforms = request.platforms or (oci.host(),)
        plans = [await plan(dockerfile, _plan_request(request, inputs, one), bases) for one in platforms]
        await threads.disk(self._check, found, bases.variables.get)
        networks = self._parts.runner.networks()
        worker = self._worker(inputs, networks)
        self._stack.push_async_callback(threads.disk, worker.close)
        try:
            results = await self._carry_out(request, dockerfile, inputs, platforms, plans, bases, worker)
        finally:
            await asyncio.shield(threads.disk(networks.close))
        return Solved(request, dockerfile, inputs, results, worker)

    async def _carry_out(
        self,
        request: BuildRequest,
        dockerfile: ins.Dockerfile,
        inputs: Inputs,
        platforms: Sequence[Platform],
        plans: Sequence[Plan],
        bases: Bases,
        worker: BuildWorker,
    ) -> list[PlatformResult]:
        assert self._lease is not None
        await self._parts.exchange.load(request, inputs.client, worker, self.report, self._lease)
        self.report.begin(plans, bases.found)
        await self._contexts(inputs, plans)
        solver = Solver(worker, self.report, self._parts.inflight, salt=secrets.token_hex(8))
        try:
            await _solve_all(solver, plans)
        except WherryError as e:
            if request.debug:
                await self._keep_state(solver, plans, bases)
            found = _located(e, dockerfile, self.report)
            if found is e:
                raise
            raise found from e
        if any(one.get("mode") == "max" for one in request.cache_to):
            for planned in plans:
                solver.note_cached([v for stage in planned.stages for v in stage.vertex.chain()])
        self.report.end()
        return [
            PlatformResult(one.normalised(), planned, solver.results, bases.found)
            for one, planned in zip(platforms, plans, strict=True)
        ]

    def hold(self, name: str, solved: Solved) -> None:
        """Let other builds use a result until this build ends."""
        assert self._lease is not None
        self._parts.held.keep(name, solved, self._lease)
        self._names.append(name)

    # ---- files that clients look at ------------------------------------------------------------------------

    async def fetch(self, op: FetchOp, client: BuildClient) -> CachedTree:
        """Fetch a source and hold it until the build ends. :raises Forbidden: a policy denies it."""
        held = await self._check_source(op, client)
        found = await self._parts.fetcher.fetch(op)
        held.append(found.record)
        return CachedTree(found.directory)

    async def _check_source(self, op: FetchOp, client: BuildClient) -> list[str]:
        """Check policies; returns the list of records that the build holds.
        :raises Forbidden: a policy denies it."""
        source = source_of(op)
        held: list[str] = []
        self._stack.callback(self._parts.cache.release, held)

        async def more() -> Source:
            found = await self._parts.fetcher.fetch(op)
            held.append(found.record)
            return replace(source, checksum=found.commit or f"sha256:{found.digest}")

        await client.check(source, more)
        return held

    async def unpacked(self, tree: CachedTree, name: str) -> CachedTree:
        """The files inside an archive that the tree contains; the tree itself if it contains none."""
        path = tree.directory / name
        if not await threads.short(lambda: path.is_file() and is_archive(path)):
            return tree
        context = await threads.child(from_archive, path, self._parts.cache)
        self._stack.push_async_callback(threads.disk, context.release)
        return CachedTree(context.directory / "files")

    def _held_image(self, name: str) -> Held:
        async def image(platform: Platform) -> object:
            return await self._parts.held.image(name, platform)

        return image  # type: ignore[return-value]

    async def _contexts(self, inputs: Inputs, plans: Sequence[Plan]) -> None:
        """Fetch those files from the client that a step reads."""
        wanted = {
            vertex.op.name
            for vertex in walk([stage.vertex for planned in plans for stage in planned.stages])
            if isinstance(vertex.op, LocalOp)
        }

        async def one(name: str) -> None:
            self.report.receiving(name)
            inputs.contexts[name] = await inputs.client.files(name)
            self.report.received(name)

        await asyncio.gather(*(one(name) for name in sorted(wanted - set(inputs.contexts))))

    def _worker(self, inputs: Inputs, networks: NamespacePool) -> BuildWorker:
        assert self._lease is not None
        return BuildWorker(
            cache=self._parts.cache,
            layers=self._parts.finisher.assembler.layers,
            runner=self._parts.runner,
            mounts=self._parts.mounts,
            fetcher=self._parts.fetcher,
            inputs=inputs,
            lease=self._lease,
            networks=networks,
        )

    async def _keep_state(self, solver: Solver, plans: Sequence[Plan], bases: Bases) -> None:
        """Keep the state before the failed step as an image, so that a shell can inspect it."""
        assert self._lease is not None
        vertex = failed_vertex(self.report)
        if vertex is None or vertex.parent is None:
            return
        await _complete(solver, vertex.parent)
        assembler, images = self._parts.finisher.assembler, self._parts.images
        image = await threads.child(
            debug_image, vertex, plans[0], solver.results, bases.found, assembler, images, self._lease
        )
        self.report.tell({"aux": {"Debug": {"Image": image, "Command": command_of(vertex)}}})

    def _check(self, found: Read, variables: describing.Variables) -> None:
        """Report the results of the checks as warnings, unless the Dockerfile says that they are errors."""
        dockerfile, request = found.dockerfile, found.request
        findings = describing.findings(dockerfile, request, found.ignore, variables)
        self.report.found(findings, dockerfile)
        if findings and describing.options_of(dockerfile, request).error:
            rules = ", ".join(sorted({one.rule for one in findings}))
            reason = f"lint violation found for rules: {rules}: {findings[0].detail}"
            raise DockerfileError(reason, findings[0].location).within(dockerfile.name, dockerfile.source)

    # ---- finishing -----------------------------------------------------------------------------------------

    async def finish(self, solved: Solved, request: BuildRequest | None = None) -> Finished:
        """Make the requested outputs from a result.

        :param request: replaces the solved request, if its outputs were not known then.
        """
        assert self._lease is not None
        wanted = request or solved.request
        facts = attest.BuildFacts(wanted, solved.dockerfile, self.id, self.started, solved.inputs.epoch)
        self.finished = await self._parts.finisher.finish(
            self.id, wanted, solved.inputs.client, solved.results, self._lease, self.report, facts
        )
        told = await self._parts.exchange.store(
            self.id, wanted, solved.inputs.client, solved.results, self._lease, self.report
        )
        self.finished = replace(
            self.finished,
            metadata={**self.finished.metadata, **told},
            provenance=self._provenance(facts, solved),
        )
        return self.finished

    def _provenance(self, facts: attest.BuildFacts, solved: Solved) -> dict[str, dict[str, Any]]:
        """Predicates by platform, for the history."""
        found: dict[str, dict[str, Any]] = {}
        for one in solved.results:
            predicate = attest.provenance(facts, one, time.time_ns())
            text = msgspec.json.encode(predicate)
            found[str(one.platform)] = {
                "digest": digests.of(text),
                "size": len(text),
                "text": text.decode(),
            }
        return found


def _plan_request(request: BuildRequest, inputs: Inputs, platform: Platform) -> PlanRequest:
    fresh = frozenset({"*"}) if request.no_cache else request.no_cache_filter
    return PlanRequest(
        target=request.target,
        platform=platform.normalised(),
        build_args=request.build_args,
        valueless_args=request.valueless_args,
        contexts=request.contexts,
        labels=request.labels,
        fresh=fresh,
        network=request.network or "default",
        entitlements=request.entitlements,
        epoch=inputs.epoch,
    )


async def _solve_all(solver: Solver, plans: Sequence[Plan]) -> None:
    """Solve the targets, and then every step below them, because images contain all of them."""
    await solver.solve([planned.target.vertex for planned in plans])
    for planned in plans:
        await _complete(solver, planned.target.vertex)


async def _complete(solver: Solver, vertex: Vertex) -> None:
    """Add the results of everything below a vertex."""
    chain = vertex.chain()
    solver.note_cached(chain)
    missing = [one for one in chain if one not in solver.results]
    if missing:
        await solver.solve(missing)


def _epoch(request: BuildRequest) -> int | None:
    """:raises InvalidArgument: SOURCE_DATE_EPOCH is not a number of seconds."""
    text = request.build_args.get(EPOCH, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text[:80]!r}")
    return int(text) if text else None


def _located(error: WherryError, dockerfile: ins.Dockerfile, report: Report) -> WherryError:
    """The same error with the lines of the Dockerfile appended, if they are known."""
    if isinstance(error, DockerfileError):
        return error if "\n" in error.message else error.within(dockerfile.name, dockerfile.source)
    location = report.location_of(error)
    if location is None or not isinstance(error, InvalidArgument | NotFound):
        return error
    return located(error, dockerfile.name, dockerfile.source, location)


def _of_context(context: BuildContext | None, name: str) -> GivenDockerfile:
    """The Dockerfile among the context's files, and the ``.dockerignore``."""
    text = context.read(name) if context is not None else None
    if text is None and name == "Dockerfile" and context is not None:
        text = context.read("dockerfile")
    if text is None or context is None:
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
    ignored = ignored_of(context, name)
    return GivenDockerfile(text, ignored.text, ignored.hidden)


__all__ = ["Build", "CachedTree", "FetchOp", "Parts", "Read"]
