"""From Dockerfiles to graphs and keys, without files or containers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from wherry.build.dockerfile import parse
from wherry.build.errors import DockerfileError
from wherry.build.graph import BaseImage, CopyOp, FetchOp, Plan, RunOp, Vertex, walk
from wherry.build.keys import Keys
from wherry.build.plan import PlanRequest, plan
from wherry.build.solve import Inflight, Log, Result, Solver
from wherry.errors import Internal, InvalidArgument
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.oci import ImageConfig, ImageRunConfig, Platform, RootFS


class Images:
    """Images of any name; what was asked for is remembered."""

    def __init__(self, **config: object) -> None:
        self.asked: list[str] = []
        self._config = ImageRunConfig(**config)  # type: ignore[arg-type]

    async def image(self, name: str, platform: Platform) -> BaseImage:
        self.asked.append(name)
        digest = digests.of(name.encode())
        config = ImageConfig(
            architecture=platform.architecture, os="linux", config=self._config, rootfs=RootFS(diff_ids=[])
        )
        return BaseImage(name, digest, digest, config)


def planned(text: str, images: Images | None = None, **request: object) -> Plan:
    asked = PlanRequest(platform=oci.host().normalised(), **request)  # type: ignore[arg-type]
    return asyncio.run(plan(parse(text), asked, images or Images()))


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


def key(text: str, known: Known | None = None, **request: object) -> str:
    """Of the target."""
    keys = Keys(known or Known())
    target = planned(text, **request).target.vertex
    for vertex in walk([target]):
        keys.definition(vertex)
    return keys.definition(target)


BASE = "FROM base\nRUN make\nCOPY a b\n"


def test_stages_that_nothing_needs_are_not_looked_at() -> None:
    images = Images()
    found = planned("FROM one AS a\nFROM two AS b\nRUN x\nFROM three\nCOPY --from=a / /\n", images)
    assert sorted(images.asked) == ["one", "three"]
    assert [stage.name for stage in found.stages] == ["a", "stage-2"]
    assert planned("FROM one AS a\nFROM a AS b\nFROM nothing\n", target="b").target.name == "b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM b AS a\nCOPY --from=c / /\nFROM a AS c\n", "circular dependency"),
        ("FROM x\nCOPY a b c\n", "must be a directory"),
        ("FROM x\nRUN --network=host y\n", "network.host is not allowed"),
        ("FROM x\nADD --checksum=sha256:00 a b\n", "checksum"),
        ("FROM x\nEXPOSE 70000\n", "invalid containerPort"),
        ("FROM x\nHEALTHCHECK --interval=1us CMD y\n", "less than 1ms"),
    ],
)
def test_mistakes_are_shown_with_their_lines(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason) as raised:
        planned(text)
    assert ">>>" in raised.value.message


def test_an_unknown_target() -> None:
    with pytest.raises(InvalidArgument, match="could not be found"):
        planned("FROM x\n", target="nope")


def test_configuration_follows_the_instructions() -> None:
    images = Images(env=["PATH=/bin"], cmd=["old"], on_build=["ENV T=1"])
    text = (
        'FROM x\nENV A=1 B=$A\nENTRYPOINT ["e"]\nWORKDIR d\nWORKDIR ../f\nUSER u\nEXPOSE 1-2/udp\nVOLUME /v\n'
    )
    stage = planned(text, images, labels={"l": "m"}).target
    config = stage.config.config
    assert config.env == ["PATH=/bin", "T=1", "A=1", "B="]
    assert (config.entrypoint, config.cmd, config.working_dir, config.user) == (["e"], None, "/f", "u")
    assert config.exposed_ports == {"1/udp": {}, "2/udp": {}} and config.volumes == {"/v": {}}
    assert config.labels == {"l": "m"} and config.on_build is None
    assert [step.vertex is None for step in stage.history].count(False) == 2, "the two directories are files"


def test_arguments_reach_run_and_proxies_stay_out_of_history() -> None:
    text = "ARG V=global\nFROM x:$V\nARG V\nARG W=w\nRUN go\n"
    images = Images()
    stage = planned(text, images, build_args={"W": "given", "HTTP_PROXY": "http://u:p@h", "N": "o"}).target
    op = stage.vertex.op
    assert images.asked == ["x:global"] and isinstance(op, RunOp)
    assert {"V=global", "W=given"} <= set(op.env) and op.secret_env == ("HTTP_PROXY=http://u:p@h",)
    assert stage.history[-1].created_by == "RUN |2 V=global W=given /bin/sh -c go"
    assert planned(text, build_args={"N": "o"}).unused_args == ("N",)


def test_keys_change_with_what_matters_and_nothing_else() -> None:
    first = key(BASE)
    assert key("# a comment\nFROM base AS name\nRUN make\nLABEL a=b\nCOPY a b\n") == first
    assert key("FROM other AS unused\nRUN z\n" + BASE) == first
    assert key(BASE, build_args={"HTTP_PROXY": "http://x"}) == first
    changed = (
        BASE.replace("make", "make -j"),
        BASE.replace("COPY", "COPY --chown=1"),
        BASE.replace("RUN", "ENV A=b\nRUN"),
        BASE.replace("RUN make", "RUN --network=none make"),
        BASE.replace("FROM base", "FROM base2"),
    )
    keys = [key(text) for text in changed]
    assert first not in keys and len(set(keys)) == len(keys)
    assert key(BASE, Known("2")) != first


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


PARALLEL = "FROM x AS a\nRUN a\nFROM x AS b\nRUN b\nFROM x\nCOPY --from=a / /a\nCOPY --from=b / /b\n"


async def solved(text: str, worker: Worker, inflight: Inflight | None = None) -> Told:
    told = Told()
    target = (await plan(parse(text), PlanRequest(), Images())).target.vertex
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
        building = asyncio.create_task(solved(PARALLEL, worker))
        await until(lambda: worker.running == 2)
        worker.gate.set()
        await building
        assert worker.most == 2 and len(worker.made) == 4
        again = await solved(PARALLEL, worker)
        assert len(worker.made) == 4 and all(line.startswith("cached") for line in again.lines)

    asyncio.run(scenario())


def test_a_source_that_came_out_the_same_keeps_what_stands_on_it() -> None:
    async def scenario() -> None:
        worker = Worker()
        worker.content = "always the same"
        await solved(PARALLEL, worker)
        await solved(PARALLEL.replace("RUN a", "RUN other"), worker)
        assert worker.made.count("COPY --from=a / /a") == 1 and "RUN other" in worker.made

    asyncio.run(scenario())


def test_two_builds_share_a_step_and_the_last_to_leave_ends_it() -> None:
    async def scenario() -> None:
        worker, inflight = Worker(), Inflight(4)
        worker.gate.clear()
        text = "FROM x\nRUN slow\n"
        builds = [asyncio.create_task(solved(text, worker, inflight)) for _ in range(3)]
        await until(lambda: worker.running == 1 and len(inflight._working) == 1)
        builds[0].cancel()
        await asyncio.wait([builds[0]])
        assert worker.running == 1, "the others need it still"
        worker.gate.set()
        for told in await asyncio.gather(*builds[1:]):
            assert "RUN slow: output" in told.lines
        assert worker.made == ["RUN slow"]
        worker.gate.clear()
        alone = asyncio.create_task(solved("FROM x\nRUN alone\n", worker, inflight))
        await until(lambda: worker.running == 1)
        alone.cancel()
        await asyncio.wait([alone])
        assert worker.running == 0 and not inflight._working

    asyncio.run(scenario())


def test_a_failure_ends_what_runs_beside_it() -> None:
    async def scenario() -> None:
        worker = Worker()
        with pytest.raises(Internal, match="it failed"):
            await solved(PARALLEL.replace("RUN b", "RUN fail"), worker)
        assert worker.running == 0

    asyncio.run(scenario())
