"""One stage, instruction by instruction: what changes the configuration, and what becomes a vertex."""

from __future__ import annotations

import posixpath
from dataclasses import replace as with_fields
from typing import TYPE_CHECKING

from msgspec.structs import replace

from wherry.build import configs, runs
from wherry.build import instructions as ins
from wherry.build.args import EPOCH
from wherry.build.dockerfile import parse_trigger
from wherry.build.errors import DockerfileError
from wherry.build.expand import expand
from wherry.build.graph import (
    CopyOp,
    CopyPart,
    FetchOp,
    HistoryStep,
    ImageOp,
    MakeDirectoryOp,
    ScratchOp,
    StagePlan,
    Vertex,
)
from wherry.errors import InvalidArgument
from wherry.model.oci import ImageConfig, Platform

if TYPE_CHECKING:
    from wherry.build.plan import Planner


class StageBuilder:
    """A stage in the making."""

    def __init__(
        self,
        planner: Planner,
        stage: ins.Stage,
        vertex: Vertex,
        config: ImageConfig,
        platform: Platform,
        base: StagePlan | None,
    ) -> None:
        self._planner, self._stage, self._base = planner, stage, base
        self._vertex, self._image = vertex, config
        self._config = config.config
        self._platform = platform
        self._history: list[HistoryStep] = []
        self._steps: list[tuple[str, Vertex | None]] = [(stage.text, vertex)]
        self._args: dict[str, str] = {}
        self._commanded = False
        self._fresh = planner.is_fresh(stage)
        self._name = stage.name or f"stage-{stage.index}"
        self._author = config.author

    async def run(self) -> StagePlan:
        if isinstance(self._vertex.op, ImageOp) and not configs.environment(self._config).get("PATH"):
            self._config = configs.with_env(self._config, {"PATH": configs.DEFAULT_PATH})
        if isinstance(self._vertex.op, ScratchOp):
            self._config = configs.with_env(self._config, {"PATH": configs.DEFAULT_PATH})
        triggers, self._config = self._config.on_build or [], replace(self._config, on_build=None)
        for trigger in triggers:
            found = parse_trigger(trigger, escape=self._planner.dockerfile.escape)
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
        )

    def _add_labels(self) -> None:
        labels = self._planner.request.labels
        if labels:
            self._config = replace(self._config, labels={**(self._config.labels or {}), **labels})

    @property
    def _env(self) -> dict[str, str]:
        """What variables mean here: ENV before ARG."""
        return {**self._args, **configs.environment(self._config)}

    async def _apply(self, instruction: ins.Instruction) -> None:
        escape = self._planner.dockerfile.escape
        expanded = expand(instruction, self._env, escape=escape)
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
        if isinstance(instruction, ins.Arg):
            for name, default in instruction.pairs:
                value = self._planner.arguments.declare(name, default)
                if value is not None:
                    self._args[name] = value
        if isinstance(instruction, ins.Maintainer):
            self._author = instruction.name
        self._commanded = self._commanded or isinstance(instruction, ins.Cmd)
        self._config = changed  # type: ignore[assignment]
        self._note(instruction, None)

    def _note(self, instruction: ins.Instruction, vertex: Vertex | None, created_by: str = "") -> None:
        self._history.append(HistoryStep(created_by or instruction.text, vertex))
        self._steps.append((instruction.text, vertex))

    def _add(
        self, instruction: ins.Instruction, op: object, sources: tuple[Vertex, ...], *, created_by: str = ""
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
        self._note(instruction, vertex, created_by)

    # ---- steps ---------------------------------------------------------------------------------------------

    def _workdir(self, instruction: ins.Workdir) -> None:
        path = configs.workdir(self._config, instruction.path)
        self._config = replace(self._config, working_dir=path)
        if path == "/":
            self._note(instruction, None)
            return
        self._add(instruction, MakeDirectoryOp(path, self._config.user), (), created_by=f"WORKDIR {path}")

    async def _run(self, instruction: ins.Run) -> None:
        request = self._planner.request
        sources: list[Vertex] = []
        indexes: dict[str, int] = {}
        for mount in instruction.mounts:
            if mount.type == "bind" or mount.from_:
                name = mount.from_.lower()
                if name not in indexes:
                    indexes[name] = len(sources)
                    sources.append(await self._planner.source(mount.from_, instruction.location))
        op = runs.operation(
            instruction,
            self._config,
            args=self._args,
            proxies=self._planner.arguments.proxies,
            sources=indexes,
            network=request.network,
            entitlements=request.entitlements,
            epoch=request.epoch,
        )
        self._add(instruction, op, tuple(sources), created_by=runs.history(op, self._args, EPOCH))

    async def _transfer(self, instruction: ins.Transfer) -> None:
        sources: list[Vertex] = []
        local: list[str] = []
        parts: list[CopyPart] = []
        unpack = False
        if isinstance(instruction, ins.Add):
            unpack = instruction.unpack is not False
            local = self._fetched(instruction, sources, parts)
        else:
            local = list(instruction.sources)
        if local:
            name = instruction.from_ if isinstance(instruction, ins.Copy) else ""
            parts.append(CopyPart(len(sources), tuple(local)))
            sources.append(await self._planner.source(name, instruction.location))
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
            unpack=unpack,
            owners=from_elsewhere and not instruction.chown,
        )
        self._add(instruction, op, tuple(sources))

    def _fetched(self, instruction: ins.Add, sources: list[Vertex], parts: list[CopyPart]) -> list[str]:
        """Sources of ADD that come from elsewhere, as vertices; returns those that are local."""
        from wherry.build.plan import filename_of, is_git_url, is_url

        local: list[str] = []
        remote = [source for source in instruction.sources if is_url(source)]
        if instruction.checksum and (len(instruction.sources) != 1 or len(remote) != 1):
            raise InvalidArgument("checksum requires exactly one remote source")
        if instruction.keep_git_dir and not any(map(is_git_url, remote)):
            raise InvalidArgument("keep-git-dir is for git repositories only")
        for source in instruction.sources:
            if not is_url(source):
                local.append(source)
                continue
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
            parts.append(CopyPart(len(sources), ("/",) if git else (f"/{name or 'download'}",)))
            sources.append(Vertex(op, text=source, stage=self._name, location=instruction.location))
        return local
