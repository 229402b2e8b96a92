"""Builds: from a context and a Dockerfile to a result, under one lease; steps are shared and cached."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from wherry import threads
from wherry.engine.builds import agents, describing
from wherry.engine.builds.assembling import Assembler
from wherry.engine.builds.bases import find_here, names_of_variables
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.clients import BuildClient
from wherry.engine.builds.exchange import Exchange
from wherry.engine.builds.fetching import SourceFetcher
from wherry.engine.builds.finishing import Finisher
from wherry.engine.builds.given import Given
from wherry.engine.builds.held import HeldResults
from wherry.engine.builds.layers import Layers
from wherry.engine.builds.onebuild import Build, Parts
from wherry.engine.builds.outputs import OutputStore
from wherry.engine.builds.receiving import receive_archive
from wherry.engine.builds.reports import Report, step_documents
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.runner import Runner
from wherry.engine.builds.sessions import BuildSessions
from wherry.engine.ground import Ground
from wherry.engine.images.wiring import ImageRoom
from wherry.errors import NotFound, WherryError
from wherry.images.store import ImageStore
from wherry.model import oci
from wherry.model.credentials import Credentials
from wherry.solver.solve import Inflight
from wherry.state.builds import HistoryRow

log = logging.getLogger(__name__)

_PARALLEL = 4
_HISTORY = 100


@dataclass(frozen=True)
class Built:
    """``image``: the new image's id, ``""`` if none was requested; ``metadata``: the content for
    ``--metadata-file``.
    """

    build: str
    image: str
    warnings: Sequence[str] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


class BuildService:
    """Used on the loop; may be made on any thread."""

    def __init__(
        self,
        ground: Ground,
        room: ImageRoom,
        *,
        store: ImageStore,
        cache: BuildCache,
        runner: Runner,
        fetcher: SourceFetcher,
        limit: int = 0,
    ) -> None:
        """:param limit: bytes that the cache may have; 0 for the default share of the disk."""
        run = ground.settings.run
        self.cache, self.rows = cache, cache.rows
        self._images, self._limit = store, limit
        self.sessions = BuildSessions(cache)
        self.outputs = OutputStore(cache, store)
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._releasing: set[asyncio.Future[None]] = set()
        self.begun, self.ended = 0, Counter[str]()
        """Builds since the daemon started: all, and by how they ended."""
        self.closed: list[Callable[[HistoryRow], None]] = []
        """Called with the row of each build that has ended."""
        assembler = Assembler(store, cache, Layers(cache, store))
        self.held = HeldResults(assembler)
        exchange = Exchange(
            cache=cache,
            images=store,
            assembler=assembler,
            outputs=self.outputs,
            pulls=room.pulls,
            pushes=room.pushes,
            refetcher=room.refetcher,
        )
        finisher = Finisher(
            images=store,
            assembler=assembler,
            exchange=exchange,
            outputs=self.outputs,
            pushes=room.pushes,
            refetcher=room.refetcher,
            events=ground.events,
        )
        self._parts = Parts(
            images=store,
            cache=cache,
            runner=runner,
            fetcher=fetcher,
            pulls=room.pulls,
            mounts=CacheMounts(cache),
            inflight=Inflight(_PARALLEL),
            exchange=exchange,
            finisher=finisher,
            held=self.held,
            run=run,
        )
        self.noted = News()
        self._trimming: asyncio.Task[None] | None = None
        agents.sweep(run)
        self.rows.end_history()

    # ---- contexts ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def received(self, stream: int, known: Sequence[Credentials]) -> AsyncIterator[Given]:
        """A client that sent its context as one archive; it exists for the time of the build.

        :raises InvalidArgument: the archive is broken or hostile.
        """
        context = await threads.short(self.cache.contexts.once)
        try:
            await receive_archive(context, stream)
            yield Given(contexts={"": context}, known=known)
        finally:
            # Nobody waits for it: removing the files takes as long as a cached build.
            task = asyncio.ensure_future(threads.disk.surely(context.release))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    # ---- building ------------------------------------------------------------------------------------------

    async def describe(self, call: str, request: BuildRequest, client: BuildClient) -> dict[str, Any]:
        """``--call``: describe the Dockerfile without building it."""
        async with self._opened(Build(self._parts, "", client, Report(_nobody), started=0)) as build:
            found = await build.read(request)
            return await threads.disk(
                describing.called, call, found.dockerfile, found.request, found.ignore, self.variables
            )

    def variables(self, name: str) -> frozenset[str] | None:
        """The variables that a local image sets; no image is pulled for this."""
        image = find_here(self._images, name) if name else None
        return None if image is None else names_of_variables(image)

    async def build(self, request: BuildRequest, client: BuildClient, report: Report) -> Built:
        """Build in one call. If cancelled, everything it started is ended and removed.

        :raises DockerfileError: with the faulty lines. :raises WherryError: from the step that failed.
        """
        current = asyncio.current_task()
        assert current is not None
        if request.name:
            self._running[request.name] = current
        try:
            async with self.open(secrets.token_hex(12), client, report, request) as build:
                await build.finish(await build.solve(request))
        finally:
            self._running.pop(request.name, None)
        finished = build.finished
        metadata = {"buildx.build.ref": f"default/default/{build.id}", **finished.metadata}
        return Built(build.id, finished.image, self._warnings(report), metadata)

    @asynccontextmanager
    async def unnoted(self, identifier: str, client: BuildClient, report: Report) -> AsyncIterator[Build]:
        """As :meth:`open`, but without an entry in the history:
        for requests that are not a build of their own."""
        build = Build(self._parts, identifier, client, report, started=time.time_ns())
        async with self._opened(build):
            yield build

    @asynccontextmanager
    async def open(
        self,
        identifier: str,
        client: BuildClient,
        report: Report,
        request: BuildRequest,
        details: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Build]:
        """A build in several calls (:class:`Build`). It is in the history, and its results are held until the
        end of the ``with``. An error inside the ``with`` counts as the build's error.

        :param details: further facts that the face wants to store in the history.
        """
        build = Build(self._parts, identifier, client, report, started=time.time_ns())
        noted = dict(details or {})
        self._note(build, request, 0, "Running", noted)
        status = "Error"
        self.begun += 1
        try:
            async with self._opened(build):
                yield build
            status = "Completed"
        except asyncio.CancelledError:
            status = "Canceled"
            raise
        except WherryError as e:
            noted["Error"] = e.message
            raise
        finally:
            self.ended[status] += 1
            self._note(build, build.request or request, time.time_ns(), status, noted)
            self._keep_said(build)
            self._trim_later(failed=status != "Completed")

    @property
    def under_way(self) -> int:
        return self.begun - self.ended.total()

    @asynccontextmanager
    async def _opened(self, build: Build) -> AsyncIterator[Build]:
        try:
            await build.open()
            yield build
        finally:
            await asyncio.shield(asyncio.ensure_future(build.close()))

    def cancel(self, name: str) -> None:
        """Cancel a build by the name that its client gave it; one that has ended already is none."""
        task = self._running.get(name)
        if task is not None:
            task.cancel()

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
        build: Build,
        request: BuildRequest,
        finished: int,
        status: str,
        details: Mapping[str, Any],
    ) -> None:
        document = {
            **details,
            "Dockerfile": request.dockerfile,
            "Target": request.target,
            "Tags": [tag.familiar() for tag in request.tags],
            "Platform": ",".join(str(one) for one in request.platforms or (oci.host(),)),
            "BuildArgs": sorted(request.build_args),
            "Image": build.finished.image,
            "Steps": step_documents(build.report),
            "Warnings": list(build.report.warnings),
            "Metadata": build.finished.metadata,
            "Provenance": build.finished.provenance,
        }
        row = HistoryRow(build.id, build.started, finished, status, msgspec.json.encode(document).decode())
        try:
            self.rows.put_history(row, keep=_HISTORY)
        except WherryError as e:
            log.warning("cannot note a build: %s", e.message)

        self.noted.publish()
        for told in self.closed if finished else ():
            told(row)

    def _keep_said(self, build: Build) -> None:
        try:
            self.rows.keep_said(build.id, build.report.said)
        except WherryError as e:
            log.warning("cannot keep what a build said: %s", e.message)

    def forget(self, identifier: str) -> None:
        """Remove a build from the history. Blocks. :raises NotFound: there is none with that id."""
        row = self.rows.history_of(identifier)
        self.rows.delete_history(row.id)
        self.noted.publish()

    def history_blob(self, digest: str) -> bytes:
        """The provenance of a build in the history. Blocks. :raises NotFound: no build has that digest."""
        for row in self.rows.history():
            for one in msgspec.json.decode(row.document).get("Provenance", {}).values():
                if one["digest"] == digest:
                    return str(one["text"]).encode()
        raise NotFound(f"content {digest} not found")

    def host_gateway(self) -> str:
        """An address of the host that builds' commands can reach; ``""`` if there is none."""
        return self._parts.runner.host_gateway()

    def _trim_later(self, *, failed: bool) -> None:
        """Trim the cache to its bound in the background; leftovers of a failure are removed too."""

        def work() -> None:
            self.cache.keep_bound(self._limit)
            if failed:
                self._images.collect()

        async def trim() -> None:
            await threads.disk(work)

        if self._trimming is None or self._trimming.done():
            self._trimming = asyncio.create_task(trim())

    async def close(self) -> None:
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._releasing, return_exceptions=True)
        if self._trimming is not None:
            await asyncio.gather(self._trimming, return_exceptions=True)
        await self.outputs.close()


class News:
    """Tells listeners that there is something new. Safe to publish from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: set[asyncio.Event] = set()

    def subscribe(self) -> asyncio.Event:
        self._loop = asyncio.get_running_loop()
        self._listeners.add(event := asyncio.Event())
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        self._listeners.discard(event)

    def publish(self) -> None:
        if self._listeners and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        for event in self._listeners:
            event.set()


def _nobody(_message: dict[str, Any]) -> None:
    """A callback that does nothing."""


__all__ = ["BuildService", "Built", "HistoryRow", "News"]
