"""Who carries vertices out: files by confined children, commands by the runner, results into the cache."""

from __future__ import annotations

import asyncio
import platform as machine
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from wherry.build.graph import (
    CopyOp,
    FetchOp,
    LocalOp,
    MakeDirectoryOp,
    MountOp,
    RunOp,
    Vertex,
)
from wherry.build.solve import Log, Result
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.fetching import Fetched, Fetcher
from wherry.engine.builds.mounts import MountMaker, scratch_overlay
from wherry.engine.builds.runner import Limits, Networks, Runner
from wherry.engine.builds.threads import T, in_thread
from wherry.errors import InvalidArgument, NotFound
from wherry.model import oci
from wherry.model.mount import Mount
from wherry.storage import build_files, selection
from wherry.storage.build_files import CopyJob, MissingSource, Part
from wherry.storage.children import Ending
from wherry.storage.contexts import Context
from wherry.storage.leases import Lease
from wherry.storage.selection import NotThere, Wanted

_NOT_SENT = "file not found in build context or excluded by .dockerignore: "


@dataclass
class Inputs:
    """What one build brings along. Secrets are bytes by id, agents paths of sockets by id."""

    contexts: dict[str, Context] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    epoch: int | None = None
    dockerfile: bytes | None = None


class BuildWorker:
    """See :class:`wherry.build.solve.Worker`; for one build."""

    def __init__(
        self,
        *,
        cache: BuildCache,
        runner: Runner,
        mounts: CacheMounts,
        fetcher: Fetcher,
        threads: ThreadPoolExecutor,
        inputs: Inputs,
        lease: Lease,
        networks: Networks,
    ) -> None:
        self._cache, self._runner, self._mounts, self._fetcher = cache, runner, mounts, fetcher
        self._threads, self._inputs, self._lease, self._networks = threads, inputs, lease, networks
        self._fetched: dict[FetchOp, Fetched] = {}
        self._held: list[str] = []

    def close(self) -> None:
        """Let go of what the build held. Blocks."""
        self._cache.release(self._held)
        self._cache.rows.touch(self._held)

    # ---- what is known -------------------------------------------------------------------------------------

    def local(self, name: str, op: CopyOp, part: int) -> str:
        try:
            context = self._context(name)
            return selection.checksum(context.tree, _wanted(op, part, context.hidden), owners=False)
        except NotThere as e:
            raise MissingSource(str(e), _NOT_SENT) from e

    def local_at(self, name: str, path: str) -> str:
        tree = self._context(name).tree
        real = tree.find(path.strip("/").encode("utf-8", "surrogateescape"))
        if real is None or tree.node(real) is None:
            raise MissingSource(path, _NOT_SENT)
        wanted = Wanted(["/" + real.decode("utf-8", "surrogateescape")], into=False)
        return selection.checksum(tree, wanted, owners=False)

    def _context(self, name: str) -> Context:
        try:
            return self._inputs.contexts[name]
        except KeyError as e:
            raise InvalidArgument(f"no build context {name or 'was sent'}") from e

    def fetched(self, op: FetchOp) -> str:
        return self._fetched[op].digest

    async def prepare(self, vertices: Sequence[Vertex]) -> None:
        wanted = list(dict.fromkeys(v.op for v in vertices if isinstance(v.op, FetchOp)))
        found = await asyncio.gather(*(self._fetcher.fetch(op) for op in wanted), return_exceptions=True)
        for op, one in zip(wanted, found, strict=True):
            if isinstance(one, Fetched):
                self._fetched[op] = one
                self._held.append(one.record)
        for one in found:
            if isinstance(one, BaseException):
                raise one

    # ---- the cache -----------------------------------------------------------------------------------------

    def find(self, keys: Sequence[str]) -> Result | None:
        row = self._cache.find(keys)
        if row is None:
            return None
        self._cache.hold(row.id)
        self._held.append(row.id)
        return Result(keys[0], record=row.id, created=row.created)

    def hold(self, result: Result) -> None:
        """A record that was made for this build elsewhere is let go of with the others."""
        self._held.append(result.record)

    def join(self, result: Result) -> None:
        if result.record:
            self._cache.hold(result.record)
            self._held.append(result.record)

    def also(self, key: str, result: Result) -> None:
        self._cache.rows.point(key, result.record)

    async def checksum(self, vertex: Vertex, number: int, source: Result) -> str:
        op = vertex.op

        def work(ending: Ending) -> str:
            with ExitStack() as undo:
                key, mount = self._cache.view(source)
                undo.callback(self._cache.discard, key)
                if isinstance(op, CopyOp):
                    wanted = _wanted(op, number)
                    return build_files.checksum(
                        mount, wanted, owners=op.owners, what=vertex.text, ending=ending
                    )
                assert isinstance(op, RunOp)
                path = op.mounts[number].path
                return build_files.checksum_at(mount, path, what=vertex.text, ending=ending)[0]

        return await self._in_thread(work)

    # ---- doing ---------------------------------------------------------------------------------------------

    async def execute(
        self, vertex: Vertex, parent: Result | None, sources: Sequence[Result], keys: Sequence[str], log: Log
    ) -> Result:
        op = vertex.op
        if isinstance(op, FetchOp):
            return Result(keys[0], record=self._fetched[op].record)
        if isinstance(op, RunOp):
            _check_platform(vertex.platform)
        key, mount = await self._in_thread(lambda _ending: self._cache.prepare(parent))
        try:
            if isinstance(op, RunOp):
                await self._run(op, vertex, mount, sources, log)
                changed = True
            else:
                changed = await self._in_thread(lambda ending: self._files(vertex, mount, sources, ending))
            return await self._in_thread(lambda _ending: self._keep(vertex, key, parent, keys, changed))
        except BaseException:
            await asyncio.shield(self._in_thread(lambda _ending: self._drop(key)))
            raise

    def _keep(
        self, vertex: Vertex, key: str, parent: Result | None, keys: Sequence[str], changed: bool
    ) -> Result:
        description = f"[{vertex.stage}] {vertex.text}"
        if not changed:
            result = self._cache.adopt(
                self._cache.snapshot_of(parent) if parent is not None else None, parent, keys, description
            )
            self._held.append(result.record)
            self._cache.discard(key)
            return result
        result = self._cache.commit(key, parent, keys, description, self._lease.keep_snapshot)
        self._held.append(result.record)
        return result

    def _drop(self, key: str) -> None:
        try:
            self._cache.discard(key)
        except NotFound:
            return  # it was committed before the build was broken off

    def _files(self, vertex: Vertex, mount: Mount, sources: Sequence[Result], ending: Ending) -> bool:
        op = vertex.op
        if isinstance(op, MakeDirectoryOp):
            return build_files.make_directory(mount, op.path, op.owner, what=vertex.text, ending=ending)
        assert isinstance(op, CopyOp)
        with ExitStack() as undo:
            parts = [
                Part(
                    self._source(vertex.sources[part.source], sources[part.source], undo),
                    _wanted(op, number, self._hidden(vertex.sources[part.source])),
                )
                for number, part in enumerate(op.parts)
            ]
            job = CopyJob(
                path=op.destination,
                into=op.into,
                parts=parts,
                files=op.files,
                chown=op.chown,
                chmod=op.chmod,
                owners=op.owners,
                unpack=op.unpack,
                strict=op.link,
                mtime=(self._inputs.epoch or 0) * 10**9,
            )
            build_files.copy(mount, job, what=vertex.text, ending=ending)
        return True

    def _hidden(self, vertex: Vertex) -> Sequence[str]:
        return self._context(vertex.op.name).hidden if isinstance(vertex.op, LocalOp) else ()

    def _source(self, vertex: Vertex, result: Result, undo: ExitStack) -> Mount:
        """For reading."""
        if isinstance(vertex.op, LocalOp):
            return self._context(vertex.op.name).mount
        if isinstance(vertex.op, FetchOp):
            return Mount("bind", str(self._fetched[vertex.op].directory), ("rbind",))
        key, mount = self._cache.view(result)
        undo.callback(self._cache.discard, key)
        return mount

    async def _run(
        self, op: RunOp, vertex: Vertex, mount: Mount, sources: Sequence[Result], log: Log
    ) -> None:
        def source(index: int, writable: bool, undo: ExitStack) -> Mount:
            found, result = vertex.sources[index], sources[index]
            if not writable:
                return self._source(found, result, undo)
            if isinstance(found.op, LocalOp | FetchOp):
                lower = self._source(found, result, undo).source
                return scratch_overlay(self._cache.root, lower, undo)
            key, writable_mount = self._cache.prepare(result)
            undo.callback(self._cache.discard, key)
            return writable_mount

        async with self._mounts.locked(op) as chosen:

            def cache(one: MountOp, undo: ExitStack) -> Path:
                first = None
                if one.source >= 0:
                    first = lambda: self._source(vertex.sources[one.source], sources[one.source], undo)  # noqa: E731
                return chosen.directory(one, first)

            maker = MountMaker(
                source=source, cache=cache, secrets_=self._inputs.secrets, agents=self._inputs.agents
            )
            await self._runner.run(
                op,
                mount,
                maker=maker,
                platform=vertex.platform,
                networks=self._networks,
                limits=self._inputs.limits,
                log=log,
            )

    async def _in_thread(self, work: Callable[[Ending], T]) -> T:
        return await in_thread(work, self._threads)


def _wanted(op: CopyOp, part: int, hidden: Sequence[str] = ()) -> Wanted:
    paths = op.parts[part].paths
    return Wanted(paths, into=op.into, parents=op.parents, exclude=op.exclude, hidden=hidden)


def _check_platform(text: str) -> None:
    """:raises InvalidArgument: this host cannot run programs of that architecture, and nothing translates."""
    wanted = oci.parse_platform(text) if text else oci.host()
    if wanted.architecture in (oci.host().architecture, "386" if machine.machine() == "x86_64" else ""):
        return
    names = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}
    handler = Path("/proc/sys/fs/binfmt_misc") / f"qemu-{names.get(wanted.architecture, wanted.architecture)}"
    if not handler.exists():
        raise InvalidArgument(
            f"cannot run programs of {wanted}: this host is {oci.host()}, and no binfmt_misc handler "
            f"({handler.name}) translates"
        )
