"""``Control``: builds, their progress, the builder itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from wherry.buildkit import attributes, details, gateway
from wherry.buildkit.errors import failure
from wherry.buildkit.gateway import Gateway, encoded
from wherry.buildkit.history import BuildHistory
from wherry.buildkit.jobs import Jobs, SolveJob
from wherry.buildkit.policy import BuildPolicy
from wherry.buildkit.proto import control_pb2, gateway_pb2
from wherry.buildkit.proto.control_rpc import Control as Methods
from wherry.buildkit.sessions import ClientSessions
from wherry.buildkit.tasks import to_end
from wherry.buildkit.upkeep import CacheUpkeep
from wherry.buildkit.worker import BuildkitWorker
from wherry.engine.builds.held import Solved
from wherry.engine.builds.onebuild import Build
from wherry.engine.builds.requests import IMAGE
from wherry.engine.builds.service import BuildService
from wherry.errors import InvalidArgument, NotImplemented_, WherryError
from wherry.rpc.client import Client
from wherry.rpc.server import Route, ServerCall, on
from wherry.rpc.status import Code, Detail, RpcError
from wherry.rpc.tunnel import Tunnel

SolveCall = ServerCall[control_pb2.SolveRequest, control_pb2.SolveResponse]
StatusCall = ServerCall[control_pb2.StatusRequest, control_pb2.StatusResponse]
SessionCall = ServerCall[control_pb2.BytesMessage, control_pb2.BytesMessage]
HEADERS = {"id": "x-docker-expose-session-uuid", "key": "x-docker-expose-session-sharedkey"}
METHOD_HEADER = "x-docker-expose-session-grpc-method"


class ControlService:
    """Used on the loop."""

    def __init__(
        self,
        builds: BuildService,
        jobs: Jobs,
        sessions: ClientSessions,
        worker: BuildkitWorker,
        bridge: Gateway,
        history: BuildHistory,
        upkeep: CacheUpkeep,
    ) -> None:
        self._builds, self._jobs, self._sessions, self._worker = builds, jobs, sessions, worker
        self._gateway, self._history, self._upkeep = bridge, history, upkeep

    def routes(self) -> list[Route]:
        return [
            on(Methods.ListWorkers, self.list_workers),
            on(Methods.Info, self.info),
            on(Methods.Solve, self.solve),
            on(Methods.Status, self.status),
            on(Methods.Session, self.session),
            *self._history.routes(),
            *self._upkeep.routes(),
        ]

    async def list_workers(
        self,
        _request: control_pb2.ListWorkersRequest,
        _call: ServerCall[control_pb2.ListWorkersRequest, control_pb2.ListWorkersResponse],
    ) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[self._worker.record()])

    async def info(
        self,
        _request: control_pb2.InfoRequest,
        _call: ServerCall[control_pb2.InfoRequest, control_pb2.InfoResponse],
    ) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse(buildkitVersion=self._worker.version())

    async def session(self, call: SessionCall) -> None:
        """A session as a connection inside this call; its metadata is that of ``POST /session``."""
        identifier, key = call.metadata.get(HEADERS["id"]), call.metadata.get(HEADERS["key"])
        self._sessions.check(identifier)
        tunnel: Tunnel[control_pb2.BytesMessage, control_pb2.BytesMessage] = Tunnel(
            call, lambda data: control_pb2.BytesMessage(data=data), lambda message: message.data
        )
        call.send_headers()
        client = Client.over(tunnel)
        serving = asyncio.ensure_future(
            self._sessions.serve(identifier, key, call.metadata.all(METHOD_HEADER), client)
        )
        try:
            await tunnel.carry()
        finally:
            client.connection.close()
            await asyncio.gather(serving, return_exceptions=True)

    async def status(self, request: control_pb2.StatusRequest, call: StatusCall) -> None:
        """The progress of a build, until it ends; or the recorded progress of one that has ended."""
        if await self._history.replay(request.Ref, self._jobs.running(), call):
            return
        if self._jobs.has_ended(request.Ref):
            return
        job = await self._jobs.get(request.Ref)
        async for message in job.log.follow():
            await call.send(message)

    # ---- building ------------------------------------------------------------------------------------------

    async def solve(self, request: control_pb2.SolveRequest, _call: SolveCall) -> control_pb2.SolveResponse:
        """Carry out one build, up to its last output."""
        job = await self._jobs.begin(request)
        error: BaseException | None = None
        try:
            # The build is a separate task, which is cancelled only once, even if several causes end it.
            response = await to_end(asyncio.ensure_future(self._solve(job)))
            return control_pb2.SolveResponse(ExporterResponse=response)
        except WherryError as e:
            error = failure(e, job.report.failed_vertex(e))
            if error is e:
                raise
            raise error from e
        except BaseException:
            error = RpcError(Code.CANCELLED, "context canceled")
            raise
        finally:
            await asyncio.shield(asyncio.ensure_future(self._jobs.end(job, error)))

    async def _solve(self, job: SolveJob) -> Mapping[str, str]:
        request = job.request
        _check(request)
        client = await self._sessions.get(request.Session)
        policy = None
        deciding = request.SourcePolicySession
        if deciding or request.HasField("SourcePolicy"):
            session = await self._sessions.get(deciding) if deciding else None
            rules = [request.SourcePolicy] if request.HasField("SourcePolicy") else []
            policy = BuildPolicy(session, rules)
        job.found_client(client, policy)
        async with self._while_client_is_there(job), self._open(job) as build:
            job.begun(build)
            try:
                return await self._finish(job, build, await self._result(job))
            finally:
                await job.stop()  # they use resources that are released now

    @asynccontextmanager
    async def _while_client_is_there(self, job: SolveJob) -> AsyncIterator[None]:
        """Cancel the build if its session ends: then its client has gone."""
        assert job.session is not None
        task = asyncio.current_task()
        assert task is not None
        session, gone = job.session, False

        async def watch() -> None:
            nonlocal gone
            await session.ended.wait()
            # A client closes its session as soon as it has the answer, so the answer may still be on its way.
            if not task.cancelling():
                gone = True
                task.cancel()

        watching = asyncio.ensure_future(watch())
        try:
            yield
        except asyncio.CancelledError:
            if gone and task.uncancel() == 0:
                raise RpcError(Code.CANCELLED, "the client's session has ended") from None
            raise
        finally:
            watching.cancel()

    @asynccontextmanager
    async def _open(self, job: SolveJob) -> AsyncIterator[Build]:
        request = job.request
        asked = attributes.asked(request.FrontendAttrs, request.Entitlements)
        client = self._gateway.client(job, asked)
        async with AsyncExitStack() as stack:
            if request.Internal:
                build = await stack.enter_async_context(self._builds.unnoted(job.ref, client, job.report))
            else:
                wanted = attributes.with_exports(asked.request, request)
                noted = details.of(request)
                build = await stack.enter_async_context(
                    self._builds.open(job.ref, client, job.report, wanted, noted)
                )
            yield build

    async def _result(self, job: SolveJob) -> gateway_pb2.Result:
        request = job.request
        if request.Frontend or request.Definition.ops:
            return await self._gateway.result(
                job, request.Definition, request.Frontend, request.FrontendAttrs, request.FrontendInputs
            )
        returned = await asyncio.shield(job.returned)
        if returned.error.code:
            details = [Detail(one.type_url, one.value) for one in returned.error.details]
            # The client's own frontend says that the build failed.
            raise RpcError(_code(returned.error.code), returned.error.message, details).as_expected()
        return returned.result

    async def _finish(self, job: SolveJob, build: Build, result: gateway_pb2.Result) -> Mapping[str, str]:
        refs = gateway.refs_of(result)
        exporters = job.request.Exporters
        if not refs:
            if exporters and not result.metadata:
                raise InvalidArgument("there is no result to export")
            return {}
        held = [job.result(ref) for ref in refs]
        solved = held[0].solved
        if solved is None:
            if exporters:
                raise NotImplemented_("exporting files of an LLB definition is not supported")
            return {}
        if any(one.solved is not solved for one in held):
            raise NotImplemented_("a result put together of several solves is not supported")
        return await self._export(job, build, solved)

    async def _export(self, job: SolveJob, build: Build, solved: Solved) -> Mapping[str, str]:
        wanted = attributes.with_exports(solved.request, job.request)
        finished = await build.finish(solved, wanted)
        response: dict[str, str] = {}
        for key, value in finished.metadata.items():
            if key == "cache.manifest":  # the only document that is not encoded
                response[key] = msgspec.json.encode(value).decode()
            else:
                response[key] = value if isinstance(value, str) else encoded(value)
        if any(output.kind == IMAGE for output in wanted.outputs):
            # If this is present, clients use it as the image's id. Here the index identifies an image;
            # several indexes can have the same configuration, because each build has its own attestations.
            response.pop("containerimage.config.digest", None)
        return response


def _check(request: control_pb2.SolveRequest) -> None:
    """:raises NotImplemented_: a feature that is not supported; the text names it."""
    if request.EnableSessionExporter:
        raise NotImplemented_("exporters of a session (EnableSessionExporter) are not supported")
    if request.ProxyNetwork:
        raise NotImplemented_("a proxy for a build's network (ProxyNetwork) is not supported")
    for one in [*request.Cache.Imports, *request.Cache.Exports]:
        attributes.cache(one.Type, one.Attrs)


def _code(number: int) -> Code:
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN
