"""Carries out vertices: files by confined children, commands by the runner; results go into the cache."""

from __future__ import annotations

import asyncio
import platform as machine
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from wherry import threads
from wherry.engine.builds import git
from wherry.engine.builds.agents import Agents
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.cachemounts import CacheMounts
from wherry.engine.builds.clients import BuildClient, Source
from wherry.engine.builds.fetching import Fetched, SourceFetcher
from wherry.engine.builds.layers import Layers
from wherry.engine.builds.mounts import MountMaker, scratch_overlay
from wherry.engine.builds.runner import BuildLimits, NamespacePool, Runner
from wherry.errors import InvalidArgument, NotFound
from wherry.model import oci, paths
from wherry.model.mount import Mount
from wherry.solver.graph import (
    CopyOp,
    FetchOp,
    LocalOp,
    MakeDirectoryOp,
    MountOp,
    RunOp,
    Vertex,
)
from wherry.solver.solve import Log, Result
from wherry.storage import selection
from wherry.storage.confined import build_files
from wherry.storage.confined.build_files import CopyJob, MissingSource, Part
from wherry.storage.confined.children import Ending
from wherry.storage.contexts import BuildContext
from wherry.storage.leases import Lease
from wherry.storage.selection import NotThere, Wanted

_NOT_SENT = "file not found in build context or excluded by .dockerignore: "


@dataclass
class Inputs:
    """What one solve works with: the contexts that have arrived, and the client to ask for others.

    :ivar hidden: files that were sent but are hidden from COPY, by the context's name.
    :ivar layered: the result becomes an image with plain layers.
    """

    client: BuildClient
    agents: Agents
    contexts: dict[str, BuildContext] = field(default_factory=dict)
    hidden: dict[str, Sequence[str]] = field(default_factory=dict)
    limits: BuildLimits = field(default_factory=BuildLimits)
    epoch: int | None = None
    layered: bool = False


T = TypeVar("T")


class BuildWorker:
    """See :class:`wherry.solver.solve.Worker`; for one build."""

    def __init__(
        self,
        *,
        cache: BuildCache,
        layers: Layers,
        runner: Runner,
        mounts: CacheMounts,
        fetcher: SourceFetcher,
        inputs: Inputs,
        lease: Lease,
        networks: NamespacePool,
    ) -> None:
        self._cache, self._runner, self._mounts, self._fetcher = cache, runner, mounts, fetcher
        self._inputs, self._lease, self._networks = inputs, lease, networks
        self._layers, self._described = layers, list[str]()
        self._fetched: dict[FetchOp, Fetched] = {}
        self._held: list[str] = []

    def close(self) -> None:
        """Release what the build held. Blocks."""
        self._layers.forget(self._described)
        self._cache.release(self._held)
        self._cache.rows.touch(self._held)

    # ---- facts about sources -------------------------------------------------------------------------------

    def local(self, name: str, op: CopyOp, part: int) -> str:
        try:
            context = self._context(name)
            return selection.checksum(
                context.tree, _wanted(op, part, self._inputs.hidden.get(name, ())), owners=False
            )
        except NotThere as e:
            raise MissingSource(str(e), _NOT_SENT) from e

    def local_at(self, name: str, path: str) -> str:
        tree = self._context(name).tree
        real = tree.find(path.strip("/").encode("utf-8", "surrogateescape"))
        if real is None or tree.node(real) is None:
            raise MissingSource(path, _NOT_SENT)
        wanted = Wanted(["/" + real.decode("utf-8", "surrogateescape")], into=False)
        return selection.checksum(tree, wanted, owners=False)

    def _context(self, name: str) -> BuildContext:
        try:
            return self._inputs.contexts[name]
        except KeyError as e:
            raise InvalidArgument(f"no build context {name or 'was sent'}") from e

    def fetched(self, op: FetchOp) -> str:
        return self._fetched[op].digest

    async def prepare(self, vertices: Sequence[Vertex]) -> None:
        wanted = list(dict.fromkeys(v.op for v in vertices if isinstance(v.op, FetchOp)))
        await asyncio.gather(*map(self._check, wanted))
        found = await asyncio.gather(*(self._fetcher.fetch(op) for op in wanted), return_exceptions=True)
        for op, one in zip(wanted, found, strict=True):
            if isinstance(one, Fetched):
                self._fetched[op] = one
                self._held.append(one.record)
        for one in found:
            if isinstance(one, BaseException):
                raise one

    async def _check(self, op: FetchOp) -> None:
        source = source_of(op)

        async def more() -> Source:
            found = await self._fetcher.fetch(op)
            self._held.append(found.record)
            checksum = found.commit or f"sha256:{found.digest}"
            return replace(source, checksum=checksum)

        await self._inputs.client.check(source, more)

    # ---- the cache -----------------------------------------------------------------------------------------

    def find(self, keys: Sequence[str]) -> Result | None:
        row = self._cache.find(keys)
        if row is None:
            return None
        self._cache.hold(row.id)
        self._held.append(row.id)
        return Result(keys[0], record=row.id, created=row.created)

    def hold(self, result: Result) -> None:
        """Add a record that was held for this build elsewhere; it is released with the others."""
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

        return await _in_child(work)

    # ---- carrying out --------------------------------------------------------------------------------------

    async def execute(
        self, vertex: Vertex, parent: Result | None, sources: Sequence[Result], keys: Sequence[str], log: Log
    ) -> Result:
        op = vertex.op
        if isinstance(op, FetchOp):
            return Result(keys[0], record=self._fetched[op].record)
        if isinstance(op, RunOp):
            _check_platform(vertex.platform)
        key, mount = await threads.child.to_end(self._cache.prepare, parent)
        try:
            if isinstance(op, RunOp):
                await self._run(op, vertex, mount, sources, log)
                changed = True
            else:
                changed = await _in_child(lambda ending: self._files(vertex, mount, sources, ending))
            return await threads.child.to_end(self._keep, vertex, key, parent, keys, changed)
        except BaseException:
            await asyncio.shield(threads.child(self._drop, key))
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
        early = self._layers.begin(key) if self._inputs.layered else None
        try:
            result = self._cache.commit(key, parent, keys, description, self._lease.keep_snapshot)
        except BaseException:
            if early is not None:
                early.drop()
            raise
        self._held.append(result.record)
        if early is not None and (snapshot := self._cache.snapshot_of(result)) is not None:
            self._layers.expect(snapshot, early)
            self._described.append(snapshot)
        return result

    def _drop(self, key: str) -> None:
        try:
            self._cache.discard(key)
        except NotFound:
            return  # it was committed before the build was cancelled

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
                    part.unpack,
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
                strict=op.link,
                mtime=(self._inputs.epoch or 0) * 10**9,
            )
            build_files.copy(mount, job, what=vertex.text, ending=ending)
        return True

    def _hidden(self, vertex: Vertex) -> Sequence[str]:
        return self._inputs.hidden.get(vertex.op.name, ()) if isinstance(vertex.op, LocalOp) else ()

    def _source(self, vertex: Vertex, result: Result, undo: ExitStack) -> Mount:
        """Mount a source for reading."""
        if isinstance(vertex.op, LocalOp):
            return self._context(vertex.op.name).mount
        if isinstance(vertex.op, FetchOp):
            return Mount("bind", str(self._fetched[vertex.op].directory), ("rbind",))
        key, mount = self._cache.view(result)
        undo.callback(self._cache.discard, key)
        return mount

    def _seed(self, vertex: Vertex, result: Result, mount: MountOp) -> str:
        """The key of the source's files that a cache mount shows."""
        if isinstance(vertex.op, LocalOp):
            return self.local_at(vertex.op.name, mount.path)
        if isinstance(vertex.op, FetchOp):
            return self._fetched[vertex.op].digest
        return result.record or result.snapshot or "nothing"

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

        def seed(one: MountOp) -> str:
            return "" if one.source < 0 else self._seed(vertex.sources[one.source], sources[one.source], one)

        given, agents = await self._asked(op)
        async with self._mounts.locked(op, seed) as chosen:

            def cache(one: MountOp, undo: ExitStack) -> Path:
                first = None
                if one.source >= 0:
                    first = lambda: self._source(vertex.sources[one.source], sources[one.source], undo)  # noqa: E731
                return chosen.directory(one, first)

            maker = MountMaker(source=source, cache=cache, secrets_=given, agents=agents)
            await self._runner.run(
                op,
                mount,
                maker=maker,
                platform=vertex.platform,
                networks=self._networks,
                limits=self._inputs.limits,
                log=log,
            )

    async def _asked(self, op: RunOp) -> tuple[dict[str, bytes], dict[str, str]]:
        """The secrets and agents' sockets that a step's mounts name, as far as the client has them."""
        given: dict[str, bytes] = {}
        agents: dict[str, str] = {}
        for mount in op.mounts:
            if mount.type == "secret" and mount.id not in given:
                value = await self._inputs.client.secret(mount.id)
                if value is not None:
                    given[mount.id] = value
            elif mount.type == "ssh" and mount.id not in agents:
                path = await self._inputs.agents.socket(mount.id)
                if path is not None:
                    agents[mount.id] = path
        return given, agents


async def _in_child(work: Callable[[Ending], T]) -> T:
    """Run a confined child in the given function; if cancelled, the child is ended and waited for."""
    ending = Ending()
    return await threads.child.until(ending.end, work, ending)


def _wanted(op: CopyOp, part: int, hidden: Sequence[str] = ()) -> Wanted:
    paths = op.parts[part].paths
    return Wanted(paths, into=op.into, parents=op.parents, exclude=op.exclude, hidden=hidden)


def source_of(op: FetchOp) -> Source:
    """The source in the form that policies use."""
    if op.kind != "git":
        return Source(op.url, checksum=op.checksum)
    repository = git.parse(op.url)
    rest = repository.address.partition("://")[2] or repository.address.removeprefix("git@").replace(
        ":", "/", 1
    )
    part = repository.ref + (f":{repository.subdir}" if repository.subdir else "")
    return Source(f"git://{rest}" + (f"#{part}" if part else ""), checksum=op.checksum)


def _check_platform(text: str) -> None:
    """:raises InvalidArgument: this host cannot run programs of that architecture, not even by emulation."""
    wanted = oci.parse_platform(text) if text else oci.host()
    if wanted.architecture in (oci.host().architecture, "386" if machine.machine() == "x86_64" else ""):
        return
    names = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}
    name = f"qemu-{names.get(wanted.architecture, wanted.architecture)}"
    handler = paths.below(Path("/proc/sys/fs/binfmt_misc"), name, what="architecture")
    if not handler.exists():
        raise InvalidArgument(
            f"cannot run programs of {wanted}: this host is {oci.host()}, and no binfmt_misc handler "
            f"({handler.name}) translates"
        )
