"""Plan one stage, instruction by instruction: each one changes the configuration or becomes a vertex."""

from __future__ import annotations

import posixpath
from dataclasses import replace as with_fields
from typing import Protocol

from msgspec.structs import replace

from wherry.dockerfile import configs, historywords, runs
from wherry.dockerfile import instructions as ins
from wherry.dockerfile.args import EPOCH, Arguments
from wherry.dockerfile.errors import DockerfileError, readable
from wherry.dockerfile.expand import expand
from wherry.dockerfile.parse import parse_trigger
from wherry.dockerfile.requests import PlanRequest
from wherry.dockerfile.urls import filename_of, is_git_url, is_url, literal
from wherry.errors import InvalidArgument
from wherry.model.oci import ImageConfig, Platform
from wherry.solver.graph import (
    CopyOp,
    CopyPart,
    FetchOp,
    HistoryStep,
    ImageOp,
    Location,
    MakeDirectoryOp,
    ScratchOp,
    StagePlan,
    Vertex,
)


class StageSurroundings(Protocol):
    """The parts of the plan that a stage needs."""

    dockerfile: ins.Dockerfile
    request: PlanRequest
    arguments: Arguments

    async def source(self, name: str, location: Location) -> Vertex:
        """The vertex for ``--from=name``; the main context for ``""``."""

    def is_fresh(self, stage: ins.Stage) -> bool:
        """Whether its steps ignore the cache."""


class StageBuilder:
    """Plans one stage."""

    def __init__(
        self,
        plan: StageSurroundings,
        stage: ins.Stage,
        vertex: Vertex,
        config: ImageConfig,
        platform: Platform,
        base: StagePlan | None,
    ) -> None:
        """:param base: the stage that this one is based on; it inherits that stage's arguments."""
        self._plan, self._stage, self._base = plan, stage, base
        self._vertex, self._image = vertex, config
        self._config = config.config
        self._platform = platform
        self._history: list[HistoryStep] = []
        self._steps: list[tuple[str, Vertex | None]] = [(stage.text, vertex)]
        self._args: dict[str, str] = dict(base.args) if base is not None else {}
        self._over: dict[str, str] = dict(base.over) if base is not None else {}
        self._commanded = False
        self._fresh = plan.is_fresh(stage)
        self._name = stage.name or f"stage-{stage.index}"
        self._author = config.author

    async def run(self) -> StagePlan:
        if isinstance(self._vertex.op, ImageOp) and not configs.environment(self._config).get("PATH"):
            self._config = configs.with_env(self._config, {"PATH": configs.DEFAULT_PATH})
        if isinstance(self._vertex.op, ScratchOp):
            self._config = configs.with_env(self._config, {"PATH": configs.DEFAULT_PATH})
        triggers, self._config = self._config.on_build or [], replace(self._config, on_build=None)
        for trigger in triggers:
            found = parse_trigger(trigger, escape=self._plan.dockerfile.escape)
            await self._apply(with_fields(found, location=self._stage.location))
        for instruction in self._stage.instructions:
            await self._apply(instruction)
        self._add_labels()
        image = replace(
            self._image,
            config=self._config,
            author=self._author,
            architecture=self._platform.architecture,
            os=self._platform.os,
            variant=self._platform.variant,
        )
        return StagePlan(
            self._stage.index,
            self._name,
            self._vertex,
            image,
            tuple(self._history),
            tuple(self._steps),
            self._base,
            self._args,
            self._over,
        )

    def _add_labels(self) -> None:
        labels = self._plan.request.labels
        if labels:
            self._config = replace(self._config, labels={**(self._config.labels or {}), **labels})

    @property
    def _env(self) -> dict[str, str]:
        """The current values of variables: the later of ENV and ARG counts."""
        return {**configs.environment(self._config), **self._over}

    async def _apply(self, instruction: ins.Instruction) -> None:
        if isinstance(instruction, ins.Arg):
            self._declare(instruction)
            return
        expanded = expand(instruction, self._env, escape=self._plan.dockerfile.escape)
        try:
            changed = configs.apply(self._config, expanded, commanded=self._commanded)
            if changed is not None:
                self._configure(expanded, changed)
            elif isinstance(expanded, ins.Workdir):
                self._workdir(expanded)
            elif isinstance(expanded, ins.Run):
                await self._run(expanded)
            elif isinstance(expanded, ins.Transfer):
                await self._transfer(expanded)
            else:
                raise InvalidArgument(f"{expanded.keyword} is not known here")
        except DockerfileError:
            raise
        except InvalidArgument as e:
            raise DockerfileError(e.message, expanded.location) from e

    def _configure(self, instruction: ins.Instruction, changed: object) -> None:
        if isinstance(instruction, ins.Env):
            for name, _ in instruction.pairs:
                self._over.pop(name, None)
        if isinstance(instruction, ins.Maintainer):
            self._author = instruction.name
        self._commanded = self._commanded or isinstance(instruction, ins.Cmd)
        self._config = changed  # type: ignore[assignment]
        self._note(instruction, None)

    def _declare(self, instruction: ins.Arg) -> None:
        for pair in instruction.pairs:
            name, value = self._plan.arguments.declare(pair, instruction, self._env)
            if value is not None:
                self._args[name] = self._over[name] = value
        self._note(instruction, None)

    def _note(self, instruction: ins.Instruction, vertex: Vertex | None, ran: str = "") -> None:
        """:param ran: the command of a RUN, with its arguments."""
        words = historywords.run(ran) if ran else historywords.buildkit(instruction, self._config)
        legacy = ran or historywords.legacy(instruction, self._config)
        self._history.append(HistoryStep(words, vertex, legacy))
        self._steps.append((instruction.text, vertex))

    def _add(
        self, instruction: ins.Instruction, op: object, sources: tuple[Vertex, ...], *, ran: str = ""
    ) -> None:
        vertex = Vertex(
            op,  # type: ignore[arg-type]
            self._vertex,
            sources,
            instruction.text,
            self._name,
            str(self._platform),
            instruction.location,
            self._fresh,
        )
        self._vertex = vertex
        self._note(instruction, vertex, ran)

    # ---- steps ---------------------------------------------------------------------------------------------

    def _workdir(self, instruction: ins.Workdir) -> None:
        path = configs.workdir(self._config, instruction.path)
        self._config = replace(self._config, working_dir=path)
        if path == "/":
            self._note(instruction, None)
            return
        self._add(instruction, MakeDirectoryOp(path, self._config.user), ())

    async def _run(self, instruction: ins.Run) -> None:
        request = self._plan.request
        sources: list[Vertex] = []
        indexes: dict[str, int] = {}
        for mount in instruction.mounts:
            if mount.type == "bind" or mount.from_:
                name = mount.from_.lower()
                if name not in indexes:
                    indexes[name] = len(sources)
                    sources.append(await self._plan.source(mount.from_, instruction.location))
        op = runs.operation(
            instruction,
            self._config,
            args=self._over,
            proxies=self._plan.arguments.proxies,
            sources=indexes,
            network=request.network,
            entitlements=request.entitlements,
            epoch=request.epoch,
        )
        shown = {name: self._env.get(name, value) for name, value in self._args.items()}
        self._add(instruction, op, tuple(sources), ran=runs.history(op, shown, EPOCH))

    async def _transfer(self, instruction: ins.Transfer) -> None:
        sources: list[Vertex] = []
        parts: list[CopyPart] = []
        if isinstance(instruction, ins.Add):
            _check_add(instruction)
        here: int | None = None
        name = instruction.from_ if isinstance(instruction, ins.Copy) else ""
        for source in instruction.sources:
            if isinstance(instruction, ins.Add) and is_url(source):
                parts.append(self._fetched(instruction, source, sources))
                continue
            if here is None:
                here = len(sources)
                sources.append(await self._plan.source(name, instruction.location))
            unpack = isinstance(instruction, ins.Add) and instruction.unpack is not False
            if parts and parts[-1].source == here:
                parts[-1] = CopyPart(here, (*parts[-1].paths, source), unpack)
            else:
                parts.append(CopyPart(here, (source,), unpack))
        count = len(instruction.sources) + len(instruction.heredocs)
        written = instruction.destination
        if (
            count > 1
            and not written.endswith("/")
            and written not in (".", "..")
            and not written.endswith("/.")
        ):
            raise InvalidArgument(
                f"When using {instruction.keyword} with more than one source file, "
                "the destination must be a directory and end with a /"
            )
        into = written.endswith(("/", "/.", "/..")) or written in (".", "..", "")
        from_elsewhere = isinstance(instruction, ins.Copy) and bool(instruction.from_)
        op = CopyOp(
            parts=tuple(parts),
            destination=configs.clean(posixpath.join(self._config.working_dir or "/", written)),
            into=into or instruction.parents,
            files=tuple((heredoc.name, heredoc.content) for heredoc in instruction.heredocs),
            chown=instruction.chown,
            chmod=instruction.chmod,
            link=instruction.link,
            parents=instruction.parents,
            exclude=instruction.exclude,
            owners=from_elsewhere and not instruction.chown,
        )
        self._add(instruction, op, tuple(sources))

    def _fetched(self, instruction: ins.Add, source: str, sources: list[Vertex]) -> CopyPart:
        """A vertex for a remote source of ADD. It is only unpacked on request."""
        git = is_git_url(source)
        name = filename_of(source)
        if not git and not name and instruction.destination.endswith("/"):
            raise InvalidArgument(f"cannot determine filename from url: {source}")
        op = FetchOp(
            "git" if git else "http",
            source,
            instruction.checksum,
            name or "download",
            instruction.keep_git_dir,
        )
        sources.append(Vertex(op, text=readable(source), stage=self._name, location=instruction.location))
        path = "/" if git else f"/{literal(name or 'download')}"
        return CopyPart(len(sources) - 1, (path,), bool(instruction.unpack) and not git)


def _check_add(instruction: ins.Add) -> None:
    remote = [source for source in instruction.sources if is_url(source)]
    if instruction.checksum and (len(instruction.sources) != 1 or len(remote) != 1):
        raise InvalidArgument("checksum requires exactly one remote source")
    if instruction.keep_git_dir and not any(map(is_git_url, remote)):
        raise InvalidArgument("keep-git-dir is for git repositories only")
