"""Running builds by the ref that their client chose. Requests about a build may arrive before the build
itself."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from wherry.buildkit.client import SessionClient
from wherry.buildkit.policy import BuildPolicy
from wherry.buildkit.proto import control_pb2, gateway_pb2
from wherry.buildkit.sessions import PATIENCE, ClientSession
from wherry.buildkit.status import BuildKitReport, StatusLog
from wherry.buildkit.tasks import cancel_once, ended
from wherry.engine.builds.held import Solved
from wherry.engine.builds.onebuild import Build, CachedTree
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.model.oci import Platform

_ENDED = 512
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class Held:
    """The object behind a result's ref: one platform of a solved build, or files from elsewhere."""

    solved: Solved | None = None
    platform: Platform | None = None
    tree: CachedTree | None = None


class SolveJob:
    """One ``Control.Solve`` under way."""

    def __init__(self, request: control_pb2.SolveRequest) -> None:
        self.ref, self.request = request.Ref, request
        self.log = StatusLog()
        self.report = BuildKitReport(request.Ref, self.log)
        self.results: dict[str, Held] = {}
        self.clients: list[SessionClient] = []
        loop = asyncio.get_running_loop()
        self.build: asyncio.Future[Build] = loop.create_future()
        """Set once the build has begun; an error if it could not."""
        self.returned: asyncio.Future[gateway_pb2.ReturnRequest] = loop.create_future()
        self._session: ClientSession | None = None
        self._policy: BuildPolicy | None = None
        self.asking: set[asyncio.Task[object]] = set()
        """Calls that work for this build; they are cancelled when it ends."""

    @property
    def session(self) -> ClientSession | None:
        """The session of the build's client, once it is connected."""
        return self._session

    @property
    def policy(self) -> BuildPolicy | None:
        return self._policy

    def found_client(self, session: ClientSession, policy: BuildPolicy | None) -> None:
        """The client's session has connected, and the policy for the build's sources is known."""
        self._session, self._policy = session, policy

    def hold(self, held: Held) -> str:
        """Keep a result under a new ref."""
        ref = secrets.token_hex(16)
        self.results[ref] = held
        return ref

    def result(self, ref: str) -> Held:
        """:raises NotFound: there is none."""
        found = self.results.get(ref)
        if found is None:
            raise NotFound(f"no such ref: {ref[:100]}")
        return found

    def begun(self, build: Build) -> None:
        self.build.set_result(build)

    async def stop(self) -> None:
        """Cancel the calls that work for it, and wait for their end."""
        asking = list(self.asking)
        for task in asking:
            cancel_once(task)
        await ended(*asking)

    async def end(self, error: BaseException | None = None) -> None:
        """End the job: wake all that wait for its build."""
        if not self.build.done():
            self.build.set_exception(error or Conflict("the build has ended"))
            self.build.exception()  # nobody may ask for this exception
        await self.stop()
        for client in self.clients:
            await client.release()
        self.clients.clear()
        self.log.end()


class Jobs:
    """Used on the loop."""

    def __init__(self) -> None:
        self._all: dict[str, SolveJob] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED)
        self._came = asyncio.Condition()

    async def begin(self, request: control_pb2.SolveRequest) -> SolveJob:
        """:raises InvalidArgument: an invalid ref. :raises Conflict: a build with that ref is running."""
        if not _REF.fullmatch(request.Ref):
            raise InvalidArgument(f"invalid ref {request.Ref[:100]!r}")
        if request.Ref in self._all:
            raise Conflict(f"job {request.Ref} already exists")
        job = self._all[request.Ref] = SolveJob(request)
        async with self._came:
            self._came.notify_all()
        return job

    async def end(self, job: SolveJob, error: BaseException | None) -> None:
        self._all.pop(job.ref, None)
        self._ended.append(job.ref)
        await job.end(error)

    def has_ended(self, ref: str) -> bool:
        """Whether a build with that ref ended recently, so that waiting for it is useless."""
        return ref in self._ended and ref not in self._all

    def running(self) -> Mapping[str, SolveJob]:
        return self._all

    async def get(self, ref: str) -> SolveJob:
        """Wait a while for a build. :raises NotFound: it did not start, or has ended."""
        if self.has_ended(ref):
            raise NotFound(f"no such job {ref[:100]}: it has ended")
        try:
            async with asyncio.timeout(PATIENCE), self._came:
                await self._came.wait_for(lambda: ref in self._all)
                return self._all[ref]
        except TimeoutError as e:
            raise NotFound(f"no such job {ref[:100]}") from e
