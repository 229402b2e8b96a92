"""Graphs carried out, without files or containers, and without a language that makes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from wherry.errors import Internal
from wherry.model import digest as digests
from wherry.model.oci import ImageConfig, ImageRunConfig, RootFS
from wherry.solver.graph import BaseImage, CopyOp, CopyPart, FetchOp, ImageOp, LocalOp, RunOp, Vertex
from wherry.solver.solve import Inflight, Log, Result, Solver


def image() -> Vertex:
    """The same wherever it is asked for."""
    config = ImageConfig(
        architecture="amd64", os="linux", config=ImageRunConfig(), rootfs=RootFS(diff_ids=[])
    )
    digest = digests.of(b"x")
    return Vertex(ImageOp(BaseImage("x", digest, digest, config)), text="FROM x")


def run(command: str) -> Vertex:
    op = RunOp(args=("/bin/sh", "-c", command), env=(), cwd="/", user="")
    return Vertex(op, image(), text=f"RUN {command}")


def parallel(a: str = "a", b: str = "b") -> Vertex:
    """Two commands that do not need each other, and what both make copied together."""
    target = image()
    for name, source in (("a", run(a)), ("b", run(b))):
        op = CopyOp((CopyPart(0, ("/",)),), f"/{name}", into=False)
        target = Vertex(op, target, (source,), text=f"COPY {name}")
    return target


class Known:
    """Contexts whose checksums are what they are told to be."""

    def __init__(self, files: str = "1") -> None:
        self.files = files

    def local(self, name: str, op: CopyOp, part: int) -> str:
        return f"{self.files} {op.parts[part].paths}"

    def local_at(self, name: str, path: str) -> str:
        return f"{self.files} {path}"

    def fetched(self, op: FetchOp) -> str:
        return op.url


class Worker(Known):
    """Carries steps out by writing them down. ``gate`` holds every step until it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.cache: dict[str, Result] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most = 0
        self.content = ""

    async def prepare(self, vertices: Sequence[Vertex]) -> None: ...

    def find(self, keys: Sequence[str]) -> Result | None:
        return next((self.cache[key] for key in keys if key in self.cache), None)

    def also(self, key: str, result: Result) -> None:
        self.cache[key] = result

    def join(self, result: Result) -> None: ...

    async def checksum(self, vertex: Vertex, number: int, source: Result) -> str:
        return self.content or source.identity

    async def execute(
        self, vertex: Vertex, parent: Result | None, sources: Sequence[Result], keys: Sequence[str], log: Log
    ) -> Result:
        self.running += 1
        self.most = max(self.most, self.running)
        log(b"output")
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if "fail" in vertex.text:
            raise Internal("it failed")
        self.made.append(vertex.text)
        result = Result(keys[-1], record=keys[-1][:8])
        self.cache |= dict.fromkeys(keys, result)
        return result


class Told:
    """What a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, vertex: Vertex) -> None:
        self.lines.append(f"started {vertex.text}")

    def cached(self, vertex: Vertex, result: Result) -> None:
        self.lines.append(f"cached {vertex.text}")

    def log(self, vertex: Vertex, data: bytes) -> None:
        self.lines.append(f"{vertex.text}: {data.decode()}")

    def finished(self, vertex: Vertex, result: Result) -> None:
        self.lines.append(f"finished {vertex.text}")

    def failed(self, vertex: Vertex, error: BaseException) -> None:
        self.lines.append(f"failed {vertex.text}")


async def solved(target: Vertex, worker: Worker, inflight: Inflight | None = None) -> Told:
    told = Told()
    await Solver(worker, told, inflight or Inflight(4)).solve([target])
    return told


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until it is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


def test_independent_steps_run_at_once_and_only_once() -> None:
    async def scenario() -> None:
        worker = Worker()
        worker.gate.clear()
        building = asyncio.create_task(solved(parallel(), worker))
        await until(lambda: worker.running == 2)
        worker.gate.set()
        await building
        assert worker.most == 2 and len(worker.made) == 4
        again = await solved(parallel(), worker)
        assert len(worker.made) == 4 and all(line.startswith("cached") for line in again.lines)

    asyncio.run(scenario())


def test_the_files_of_a_context_are_looked_at_once_and_not_on_the_loop() -> None:
    """There may be a million."""
    looked: list[bool] = []

    class Watched(Worker):
        def local(self, name: str, op: CopyOp, part: int) -> str:
            looked.append(threading.current_thread() is threading.main_thread())
            return super().local(name, op, part)

    context = Vertex(LocalOp(""), text="context")
    copy = Vertex(CopyOp((CopyPart(0, ("/",)),), "/x", into=False), image(), (context,), text="COPY . /x")
    asyncio.run(solved(copy, Watched()))
    assert looked == [False]


def test_a_source_that_came_out_the_same_keeps_what_stands_on_it() -> None:
    async def scenario() -> None:
        worker = Worker()
        worker.content = "always the same"
        await solved(parallel(), worker)
        await solved(parallel(a="other"), worker)
        assert worker.made.count("COPY a") == 1 and "RUN other" in worker.made

    asyncio.run(scenario())


def test_two_builds_share_a_step_and_the_last_to_leave_ends_it() -> None:
    async def scenario() -> None:
        worker, inflight = Worker(), Inflight(4)
        worker.gate.clear()
        builds = [asyncio.create_task(solved(run("slow"), worker, inflight)) for _ in range(3)]
        await until(lambda: worker.running == 1 and len(inflight._working) == 1)
        builds[0].cancel()
        await asyncio.wait([builds[0]])
        assert worker.running == 1, "the others need it still"
        worker.gate.set()
        for told in await asyncio.gather(*builds[1:]):
            assert "RUN slow: output" in told.lines
        assert worker.made == ["RUN slow"]
        worker.gate.clear()
        alone = asyncio.create_task(solved(run("alone"), worker, inflight))
        await until(lambda: worker.running == 1)
        alone.cancel()
        await asyncio.wait([alone])
        assert worker.running == 0 and not inflight._working

    asyncio.run(scenario())


def test_a_failure_ends_what_runs_beside_it() -> None:
    async def scenario() -> None:
        worker = Worker()
        with pytest.raises(Internal, match="it failed"):
            await solved(parallel(b="fail"), worker)
        assert worker.running == 0

    asyncio.run(scenario())
