"""Carrying a graph out: what the cache has is taken from it, the rest runs, independent vertices at once.

Two builds that come to the same step at the same time share it (:class:`Inflight`): it runs once, both follow
its output, and it is broken off when the last of them has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wherry.build.graph import ImageOp, LocalOp, ScratchOp, Vertex, walk
from wherry.build.keys import Keys, Known, uses
from wherry.errors import WherryError

Log = Callable[[bytes], None]
_KEPT = 1 << 20
"""Bytes of a step's output that one who joins late is told."""


@dataclass(frozen=True)
class Result:
    """What a vertex became. ``identity`` stands for its content in keys.

    Files are a cache record's (``record``), an image's (``snapshot``), or a source's own (``record`` of a
    fetched one, nothing for a context). ``created`` in nanoseconds since the epoch.
    """

    identity: str
    record: str = ""
    snapshot: str | None = None
    created: int = 0


class Worker(Known, Protocol):
    """Who does it."""

    async def prepare(self, vertices: Sequence[Vertex]) -> None:
        """Fetch what comes from elsewhere, as its digest is part of keys."""

    def find(self, keys: Sequence[str]) -> Result | None:
        """The cache's answer; what it finds stays until the build ends."""

    def join(self, result: Result) -> None:
        """What another build made, or this one, stays until this one ends."""

    def also(self, key: str, result: Result) -> None:
        """A further key leads to a result."""

    async def checksum(self, vertex: Vertex, number: int, source: Result) -> str:
        """Of exactly what a step's part or mount ``number`` reads of a source that is made."""

    async def execute(
        self, vertex: Vertex, parent: Result | None, sources: Sequence[Result], keys: Sequence[str], log: Log
    ) -> Result:
        """Do it and keep the result under ``keys``."""


class Progress(Protocol):
    """Who is told."""

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
    """Steps under way, of all builds."""

    def __init__(self, parallel: int) -> None:
        """:param parallel: how many steps run at the same time."""
        self._working: dict[str, _Work] = {}
        self._slots = asyncio.Semaphore(parallel)

    async def share(self, key: str, run: Callable[[Log], Awaitable[Result]], log: Log) -> Result:
        """Run a step, or follow whoever is at it."""
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
                # the one who began it left in the same moment: begin again

    async def _run(self, key: str, work: _Work, run: Callable[[Log], Awaitable[Result]]) -> Result:
        try:
            async with self._slots:
                return await run(work.log)
        finally:
            if self._working.get(key) is work:
                del self._working[key]


class Solver:
    """One build's graph being carried out."""

    def __init__(self, worker: Worker, progress: Progress, inflight: Inflight, *, salt: str = "") -> None:
        """:param salt: keeps steps that must run anew from being shared with other builds."""
        self._worker, self._progress, self._inflight = worker, progress, inflight
        self._keys = Keys(worker)
        self._salt = salt
        self._tasks: dict[str, asyncio.Task[Result]] = {}
        self.results: dict[Vertex, Result] = {}

    async def solve(self, targets: Sequence[Vertex]) -> list[Result]:
        """The results of ``targets``. A step that fails ends the others.

        :raises WherryError: of the step that failed first.
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
        """Its key. What a context lacks is known here, before anything runs."""
        try:
            if any(isinstance(one.op, LocalOp) for one in vertex.sources):
                await asyncio.to_thread(self._keys.definition, vertex)
            else:
                self._keys.definition(vertex)
        except WherryError as e:
            self._progress.failed(vertex, e)
            raise

    def note_cached(self, vertices: Sequence[Vertex]) -> None:
        """Tell of steps that nobody had to look at, as what is built on them was there."""
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
        # What is read of a source is looked at as soon as that is there, whatever the parent is still at.
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
        """The checksum of what a step reads of a source, once that is there."""
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
            # Another build may have come to its end with it since we looked.
            if not vertex.fresh and (made := self._worker.find([content])) is not None:
                return made
            return await self._worker.execute(vertex, parent, sources, [definition, content], log)

        shared = content + (self._salt if vertex.fresh else "")
        result = await self._inflight.share(shared, run, lambda data: self._progress.log(vertex, data))
        self._worker.join(result)
        self._progress.finished(vertex, result)
        return result


async def _together(*work: Coroutine[Any, Any, Result | str]) -> list[Result | str]:
    """All at once; a failure ends the others, and is raised when they have ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


__all__ = ["Inflight", "Log", "Progress", "Result", "Solver", "Worker"]
