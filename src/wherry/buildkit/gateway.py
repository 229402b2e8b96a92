"""``LLBBridge``: requests of a client that drives a build itself, within a ``Control.Solve``."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from wherry import threads
from wherry.buildkit import attributes, calls, capabilities, definitions, filesync
from wherry.buildkit.attributes import AskedBuild
from wherry.buildkit.client import SessionClient
from wherry.buildkit.errors import failure
from wherry.buildkit.jobs import Held, Jobs, SolveJob
from wherry.buildkit.proto import fsutil_pb2, gateway_pb2, ops_pb2
from wherry.buildkit.proto.gateway_rpc import LLBBridge
from wherry.buildkit.sessions import ClientSessions
from wherry.buildkit.tasks import to_end
from wherry.buildkit.worker import BuildkitWorker
from wherry.engine.builds.held import Solved
from wherry.engine.builds.onebuild import Build, CachedTree
from wherry.engine.builds.service import BuildService
from wherry.engine.builds.trees import Looked
from wherry.errors import InvalidArgument, NotImplemented_, WherryError
from wherry.rpc.server import Route, ServerCall, on
from wherry.rpc.status import RpcError

A = TypeVar("A")
_BUILD = "buildkit-controlapi-buildid"


class Gateway:
    """Used on the loop."""

    def __init__(
        self, builds: BuildService, jobs: Jobs, sessions: ClientSessions, worker: BuildkitWorker
    ) -> None:
        self._builds, self._jobs, self._sessions, self._worker = builds, jobs, sessions, worker

    def routes(self) -> list[Route]:
        return [
            on(LLBBridge.Ping, self.ping),
            on(LLBBridge.Solve, self.solve),
            on(LLBBridge.Return, self.give_back),
            on(LLBBridge.Evaluate, self.evaluate),
            on(LLBBridge.Inputs, self.inputs),
            on(LLBBridge.Warn, self.warn),
            on(LLBBridge.ReadFile, self.read_file),
            on(LLBBridge.ReadDir, self.read_dir),
            on(LLBBridge.StatFile, self.stat_file),
        ]

    async def _job(self, call: ServerCall[Any, Any]) -> SolveJob:
        return await self._jobs.get(call.metadata.get(_BUILD))

    async def _within(self, job: SolveJob, work: Callable[[], Awaitable[A]]) -> A:
        """Run work for a build; it is cancelled when the build ends."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work())
        job.asking.add(task)
        task.add_done_callback(job.asking.discard)
        try:
            return await to_end(task)
        except RpcError:
            raise
        except WherryError as e:
            raise failure(e, job.report.failed_vertex(e)) from e

    # ---- the build -----------------------------------------------------------------------------------------

    async def ping(
        self,
        _request: gateway_pb2.PingRequest,
        call: ServerCall[gateway_pb2.PingRequest, gateway_pb2.PongResponse],
    ) -> gateway_pb2.PongResponse:
        await self._job(call)
        answer = gateway_pb2.PongResponse(Workers=[self._worker.record()])
        for name in capabilities.FRONTEND:
            answer.FrontendAPICaps.add(ID=name, Enabled=True)
        for name in capabilities.LLB:
            answer.LLBCaps.add(ID=name, Enabled=True)
        return answer

    async def solve(
        self,
        request: gateway_pb2.SolveRequest,
        call: ServerCall[gateway_pb2.SolveRequest, gateway_pb2.SolveResponse],
    ) -> gateway_pb2.SolveResponse:
        job = await self._job(call)

        async def work() -> gateway_pb2.Result:
            return await self.result(
                job, request.Definition, request.Frontend, request.FrontendOpt, request.FrontendInputs
            )

        return gateway_pb2.SolveResponse(result=await self._within(job, work))

    async def result(
        self,
        job: SolveJob,
        definition: ops_pb2.Definition,
        frontend: str,
        options: Mapping[str, str],
        inputs: Mapping[str, ops_pb2.Definition],
    ) -> gateway_pb2.Result:
        """Carry a request out. :raises WherryError: the request is invalid, or a step failed."""
        build = await job.build
        if not frontend:
            return await self._evaluate(job, build, definition)
        if frontend == "gateway.v0":
            if not attributes.is_ours(options.get("source", "")):
                raise NotImplemented_(
                    f"frontend gateway.v0 is not supported: {options.get('source', '')[:200]!r} cannot be run"
                )
        elif frontend != "dockerfile.v0":
            raise NotImplemented_(f"frontend {frontend[:100]} is not supported: dockerfile.v0 is")
        held = {name: definitions.held_by(one) for name, one in inputs.items()}
        asked = attributes.asked(options, job.request.Entitlements, held)
        client = self.client(job, asked)
        if asked.call:
            return await self._called(build, asked, client)
        wanted = attributes.with_exports(asked.request, job.request)
        solved = await build.solve(wanted, held=asked.held, client=client)
        return self._shown(job, build, solved)

    def client(self, job: SolveJob, asked: AskedBuild) -> SessionClient:
        assert job.session is not None
        client = SessionClient(job.session, self._sessions, self._builds.cache, job.report, asked, job.policy)
        job.clients.append(client)
        return client

    async def _called(self, build: Build, asked: AskedBuild, client: SessionClient) -> gateway_pb2.Result:
        found = await build.read(asked.request, client)
        answer = await threads.disk(calls.answer, asked.call, found, self._builds.variables)
        result = gateway_pb2.Result(ref=gateway_pb2.Ref())
        for name, data in answer.items():
            result.metadata[name] = data
        return result

    def _shown(self, job: SolveJob, build: Build, solved: Solved) -> gateway_pb2.Result:
        result = gateway_pb2.Result()
        several = len(solved.results) > 1
        platforms: list[dict[str, Any]] = []
        for one in solved.results:
            ref = job.hold(Held(solved, one.platform))
            build.hold(ref, solved)
            config = msgspec.json.encode(one.plan.target.config)
            made = gateway_pb2.Ref(id=ref, definition=definitions.opaque(ref))
            text = str(one.platform)
            if several:
                result.refs.refs[text].CopyFrom(made)
                result.metadata[f"containerimage.config/{text}"] = config
            else:
                result.ref.CopyFrom(made)
                result.metadata["containerimage.config"] = config
            shown = {"architecture": one.platform.architecture, "os": one.platform.os or "linux"}
            if one.platform.variant:
                shown["variant"] = one.platform.variant
            platforms.append({"ID": text, "Platform": shown})
        if several:
            result.metadata["refs.platforms"] = msgspec.json.encode({"Platforms": platforms})
        return result

    async def _evaluate(
        self, job: SolveJob, build: Build, definition: ops_pb2.Definition
    ) -> gateway_pb2.Result:
        if not definition.ops:
            return gateway_pb2.Result(ref=gateway_pb2.Ref())
        known = definitions.held_by(definition)
        if known:
            self._builds.held.get(known)
            return gateway_pb2.Result(ref=gateway_pb2.Ref(id=known, definition=definition))
        client = self.client(job, attributes.asked({}))
        tree = await definitions.Evaluator(build, client).run(definition)
        ref = job.hold(Held(tree=tree))
        return gateway_pb2.Result(ref=gateway_pb2.Ref(id=ref, definition=definition))

    async def give_back(
        self,
        request: gateway_pb2.ReturnRequest,
        call: ServerCall[gateway_pb2.ReturnRequest, gateway_pb2.ReturnResponse],
    ) -> gateway_pb2.ReturnResponse:
        job = await self._job(call)
        if job.returned.done():
            raise InvalidArgument("the build has been returned already")
        job.returned.set_result(request)
        return gateway_pb2.ReturnResponse()

    async def evaluate(
        self,
        request: gateway_pb2.EvaluateRequest,
        call: ServerCall[gateway_pb2.EvaluateRequest, gateway_pb2.EvaluateResponse],
    ) -> gateway_pb2.EvaluateResponse:
        (await self._job(call)).result(request.Ref)  # it was evaluated when it was solved
        return gateway_pb2.EvaluateResponse()

    async def inputs(
        self,
        _request: gateway_pb2.InputsRequest,
        call: ServerCall[gateway_pb2.InputsRequest, gateway_pb2.InputsResponse],
    ) -> gateway_pb2.InputsResponse:
        job = await self._job(call)
        answer = gateway_pb2.InputsResponse()
        for name, definition in job.request.FrontendInputs.items():
            answer.Definitions[name].CopyFrom(definition)
        return answer

    async def warn(
        self,
        request: gateway_pb2.WarnRequest,
        call: ServerCall[gateway_pb2.WarnRequest, gateway_pb2.WarnResponse],
    ) -> gateway_pb2.WarnResponse:
        job = await self._job(call)
        job.report.warned(request)
        return gateway_pb2.WarnResponse()

    # ---- files ---------------------------------------------------------------------------------------------

    async def read_file(
        self,
        request: gateway_pb2.ReadFileRequest,
        call: ServerCall[gateway_pb2.ReadFileRequest, gateway_pb2.ReadFileResponse],
    ) -> gateway_pb2.ReadFileResponse:
        tree = _tree(await self._job(call), request.Ref)
        wanted = request.Range
        data = await threads.child(tree.read, request.FilePath, wanted.Offset, wanted.Length)
        return gateway_pb2.ReadFileResponse(Data=data)

    async def read_dir(
        self,
        request: gateway_pb2.ReadDirRequest,
        call: ServerCall[gateway_pb2.ReadDirRequest, gateway_pb2.ReadDirResponse],
    ) -> gateway_pb2.ReadDirResponse:
        tree = _tree(await self._job(call), request.Ref)
        if request.IncludePattern:
            raise NotImplemented_("reading a directory by a pattern is not supported")
        found = await threads.child(tree.names, request.DirPath)
        return gateway_pb2.ReadDirResponse(entries=[_stat(one) for one in found])

    async def stat_file(
        self,
        request: gateway_pb2.StatFileRequest,
        call: ServerCall[gateway_pb2.StatFileRequest, gateway_pb2.StatFileResponse],
    ) -> gateway_pb2.StatFileResponse:
        tree = _tree(await self._job(call), request.Ref)
        return gateway_pb2.StatFileResponse(stat=_stat(await threads.child(tree.stat, request.Path)))


def _stat(one: Looked) -> fsutil_pb2.Stat:
    kind = {stat.S_IFDIR: filesync.GO_DIRECTORY, stat.S_IFLNK: filesync.GO_SYMLINK}.get(
        stat.S_IFMT(one.mode), 0
    )
    return fsutil_pb2.Stat(
        path=one.name, mode=one.mode & 0o777 | kind, size=one.size, modTime=one.mtime, linkname=one.link
    )


def _tree(job: SolveJob, ref: str) -> CachedTree:
    tree = job.result(ref).tree
    if tree is None:
        raise NotImplemented_("reading files of a result of steps is not supported")
    return tree


def refs_of(result: gateway_pb2.Result) -> Sequence[str]:
    """The refs in a result; those of several platforms are sorted by name."""
    kind = result.WhichOneof("result")
    if kind == "ref":
        return [result.ref.id] if result.ref.id else []
    if kind == "refs":
        return [result.refs.refs[name].id for name in sorted(result.refs.refs) if result.refs.refs[name].id]
    return []


def encoded(value: Any) -> str:
    """A document in an exporter's response."""
    return base64.b64encode(msgspec.json.encode(value)).decode()
