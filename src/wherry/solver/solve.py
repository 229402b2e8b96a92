"""Solve a graph: take each vertex's result from the cache or execute it; independent vertices run in
parallel.

If two builds reach the same step at the same time, they share it (:class:`Inflight`): it runs once, both
receive its output, and it is cancelled only when both have gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wherry import threads
from wherry.errors import WherryError
from wherry.solver.graph import ImageOp, LocalOp, ScratchOp, Vertex, walk
from wherry.solver.keys import Keys, Known, uses

Log = Callable[[bytes], None]
_KEPT = 1 << 20
"""A build that joins a running step receives at most this many bytes of its earlier output."""


@dataclass(frozen=True)
class Result:
    """The result of a vertex. ``identity`` represents its content in keys.

    The files belong to a cache record (``record``) or to an image (``snapshot``). A fetched source has a
    ``record``; a context has neither. ``created`` in nanoseconds since the epoch.
    """

    identity: str
    record: str = ""
    snapshot: str | None = None
    created: int = 0


class Worker(Known, Protocol):
    """Executes vertices, and knows the cache."""

    async def prepare(self, vertices: Sequence[Vertex]) -> None:
        """Fetch a source: its digest is part of keys."""

    def find(self, keys: Sequence[str]) -> Result | None:
        """Look a key up in the cache; what is found is held until the build ends."""

    def join(self, result: Result) -> None:
        """Hold a result, of this build or another one, until this build ends."""

    def also(self, key: str, result: Result) -> None:
        """Register another key for a result."""

    async def checksum(self, vertex: Vertex, number: int, source: Result) -> str:
        """Checksum of exactly those files that a step's part or mount ``number`` reads of a
        finished source."""

    async def execute(
        self, vertex: Vertex, parent: Result | None, sources: Sequence[Result], keys: Sequence[str], log: Log
    ) -> Result:
        """Execute it and store the result under ``keys``."""


class Progress(Protocol):
    """Receives the progress."""

    def started(self, vertex: Vertex) -> None: ...

    def cached(self, vertex: Vertex, result: Result) -> None: ...

    def log(self, vertex: Vertex, data: bytes) -> None: ...

    def finished(self, vertex: Vertex, result: Result) -> None: ...

    def failed(self, vertex: Vertex, error: BaseException) -> None: ...


class _Work:
    def __init__(self) -> None:
        self.task: asyncio.Task[Result] | None = None
        self.listeners: list[Log] = []
        self._said = bytearray()

    def log(self, data: bytes) -> None:
        if len(self._said) < _KEPT:
            self._said += data
        for listener in list(self.listeners):
            listener(data)

    async def follow(self, log: Log) -> Result:
        assert self.task is not None
        if self._said:
            log(bytes(self._said))
        self.listeners.append(log)
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if len(self.listeners) == 1 and not self.task.done():
                self.task.cancel()
                await asyncio.wait([self.task])
            raise
        finally:
            self.listeners.remove(log)


class Inflight:
    """The steps that are running, of all builds."""

    def __init__(self, parallel: int) -> None:
        """:param parallel: how many steps run at the same time."""
        self._working: dict[str, _Work] = {}
        self._slots = asyncio.Semaphore(parallel)

    async def share(self, key: str, run: Callable[[Log], Awaitable[Result]], log: Log) -> Result:
        """Run a step, or follow the build that already runs it."""
        while True:
            work = self._working.get(key)
            if work is None:
                work = self._working[key] = _Work()
                work.task = asyncio.create_task(self._run(key, work, run))
            try:
                return await work.follow(log)
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                # the build that ran it left at the same moment: start over

    async def _run(self, key: str, work: _Work, run: Callable[[Log], Awaitable[Result]]) -> Result:
        try:
            async with self._slots:
                return await run(work.log)
        finally:
            if self._working.get(key) is work:
                del self._working[key]


class Solver:
    """Solves one build's graph."""

    def __init__(self, worker: Worker, progress: Progress, inflight: Inflight, *, salt: str = "") -> None:
        """:param salt: makes the keys of steps that must not use the cache differ from those
        of other builds."""
        self._worker, self._progress, self._inflight = worker, progress, inflight
        self._keys = Keys(worker)
        self._salt = salt
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self.results: dict[Vertex, Result] = {}

    async def solve(self, targets: Sequence[Vertex]) -> list[Result]:
        """The results of ``targets``. If one step fails, the others are cancelled.

        :raises WherryError: the error of the step that failed first.
        """
        order = list(walk(targets))
        await self._worker.prepare(order)
        for vertex in order:
            await self._define(vertex)
        try:
            return list(await asyncio.gather(*(self._result(target) for target in targets)))
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _define(self, vertex: Vertex) -> None:
        """Its key. Files that a context lacks are reported here, before anything runs."""
        try:
            if any(isinstance(one.op, LocalOp) for one in vertex.sources):
                await threads.short(self._keys.definition, vertex)
            else:
                self._keys.definition(vertex)
        except WherryError as e:
            self._progress.failed(vertex, e)
            raise

    def note_cached(self, vertices: Sequence[Vertex]) -> None:
        """Report the steps that were skipped because a later step was found in the cache."""
        for vertex in vertices:
            if vertex not in self.results and not vertex.is_source:
                found = self._worker.find([self._keys.definition(vertex)])
                if found is not None:
                    self.results[vertex] = found
                    self._progress.cached(vertex, found)

    async def _result(self, vertex: Vertex) -> Result:
        key = self._keys.definition(vertex) + ("!" if vertex.fresh else "")
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._resolve(vertex))
        result = await asyncio.shield(task)
        self.results[vertex] = result
        return result

    async def _resolve(self, vertex: Vertex) -> Result:
        definition = self._keys.definition(vertex)
        op = vertex.op
        if isinstance(op, ImageOp):
            self._progress.cached(vertex, result := Result(definition, snapshot=op.image.snapshot))
            return result
        if isinstance(op, ScratchOp | LocalOp):
            return Result(definition)
        if not vertex.fresh and (found := self._worker.find([definition])) is not None:
            self._progress.cached(vertex, found)
            return found
        count = len(vertex.inputs)
        read = [
            (number, index)
            for number, index, _ in uses(op)
            if not vertex.sources[index].is_source or isinstance(vertex.sources[index].op, ImageOp)
        ]
        # The files of a source are checked as soon as it is finished, even if the parent is not.
        found_all = await _together(
            *(self._result(one) for one in vertex.inputs),
            *(self._read(vertex, number, index) for number, index in read),
        )
        inputs = [one for one in found_all[:count] if isinstance(one, Result)]
        known = {number: str(one) for (number, _), one in zip(read, found_all[count:], strict=True)}
        parent = inputs[0] if vertex.parent is not None else None
        sources = inputs[1:] if vertex.parent is not None else inputs
        try:
            return await self._step(vertex, definition, parent, sources, known)
        except BaseException as e:
            self._progress.failed(vertex, e)
            raise

    async def _read(self, vertex: Vertex, number: int, index: int) -> str:
        """The checksum of the files that a step reads of a source; waits until the source is finished."""
        source = await self._result(vertex.sources[index])
        return await self._worker.checksum(vertex, number, source)

    async def _step(
        self,
        vertex: Vertex,
        definition: str,
        parent: Result | None,
        sources: Sequence[Result],
        known: Mapping[int, str],
    ) -> Result:
        identity = parent.identity if parent is not None else ""
        content = self._keys.step(vertex, identity, {**self._keys.sources(vertex), **known})
        if not vertex.fresh and (found := self._worker.find([content])) is not None:
            self._worker.also(definition, found)
            self._progress.cached(vertex, found)
            return found
        self._progress.started(vertex)

        async def run(log: Log) -> Result:
            # Another build may have finished the same step since the lookup.
            if not vertex.fresh and (made := self._worker.find([content])) is not None:
                return made
            return await self._worker.execute(vertex, parent, sources, [definition, content], log)

        shared = content + (self._salt if vertex.fresh else "")
        result = await self._inflight.share(shared, run, lambda data: self._progress.log(vertex, data))
        self._worker.join(result)
        self._progress.finished(vertex, result)
        return result


async def _together(*work: Coroutine[Any, Any, Result | str]) -> list[Result | str]:
    """Run all in parallel. If one fails, cancel the others, wait for their end, and raise the failure."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


__all__ = ["Inflight", "Log", "Progress", "Result", "Solver", "Worker"]
