"""Turn a Dockerfile into a graph: only the stages that the target needs are planned.

Names are looked up in this order: a stage, a named context, an image. A stage's base decides its
configuration, so images are resolved while planning, all needed ones in parallel.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Protocol

from wherry.dockerfile import instructions as ins
from wherry.dockerfile.args import Arguments
from wherry.dockerfile.errors import DockerfileError, located
from wherry.dockerfile.expand import expand_from
from wherry.dockerfile.requests import NamedContext, PlanRequest
from wherry.dockerfile.stages import StageBuilder
from wherry.errors import InvalidArgument, WherryError
from wherry.model import oci
from wherry.model.oci import ImageConfig, ImageRunConfig, Platform, RootFS
from wherry.solver.graph import (
    BaseImage,
    FetchOp,
    ImageOp,
    LocalOp,
    Location,
    Plan,
    ScratchOp,
    StagePlan,
    Vertex,
)

SCRATCH = "scratch"


class Resolver(Protocol):
    """Resolves images; the engine pulls missing ones."""

    async def image(self, name: str, platform: Platform) -> BaseImage:
        """:raises WherryError: it does not exist, or cannot be pulled."""


async def plan(dockerfile: ins.Dockerfile, request: PlanRequest, resolver: Resolver) -> Plan:
    """:raises DockerfileError: with the faulty lines. :raises WherryError: an image cannot be pulled."""
    try:
        return await Planner(dockerfile, request, resolver).run()
    except DockerfileError as e:
        raise e if "\n" in e.message else e.within(dockerfile.name, dockerfile.source) from e


class Planner:
    """Makes one plan."""

    def __init__(self, dockerfile: ins.Dockerfile, request: PlanRequest, resolver: Resolver) -> None:
        self.dockerfile, self.request = dockerfile, request
        self._resolver = resolver
        self.arguments = Arguments(dockerfile, request.build_args, request.platform)
        self._plans: dict[int, StagePlan] = {}
        self._begun: set[int] = set()
        self._images: dict[tuple[str, str], asyncio.Task[BaseImage]] = {}
        self._sources: dict[str, Vertex] = {}

    async def run(self) -> Plan:
        target = self._find_target()
        order = self._needed(target)
        try:
            for index in order:
                self._begin_images(self.dockerfile.stages[index])
            for index in order:
                await self._stage_plan(index, self.dockerfile.stages[index].location)
        finally:
            for task in self._images.values():
                task.cancel()
            await asyncio.gather(*self._images.values(), return_exceptions=True)
        return Plan(
            self._plans[target],
            tuple(self._plans[index] for index in sorted(self._plans)),
            tuple(self.arguments.unused(self.request.valueless_args)),
        )

    # which stages

    def _find_target(self) -> int:
        wanted = self.request.target
        if not wanted:
            return len(self.dockerfile.stages) - 1
        found = self.find_stage(wanted)
        if found is None:
            raise InvalidArgument(f'target stage "{wanted}" could not be found')
        return found

    def find_stage(self, name: str, before: int | None = None) -> int | None:
        """Find a stage by its name or number; with ``before`` only a stage above that one."""
        stages = self.dockerfile.stages[: before if before is not None else None]
        for stage in reversed(stages):
            if stage.name and stage.name == name.lower():
                return stage.index
        number = _number(name)
        return number if number is not None and 0 <= number < len(stages) else None

    def _needed(self, target: int) -> list[int]:
        """The stages that ``target`` needs, each after those it needs itself. :raises DockerfileError:
        a circle.
        """
        order: list[int] = []
        state: dict[int, bool] = {}

        def visit(index: int, path: tuple[int, ...]) -> None:
            if state.get(index):
                return
            stage = self.dockerfile.stages[index]
            if index in path:
                raise DockerfileError(
                    f"circular dependency detected on stage: {stage.name or index}", stage.location
                )
            for other in self._references(stage):
                visit(other, (*path, index))
            state[index] = True
            order.append(index)

        visit(target, ())
        return order

    def _references(self, stage: ins.Stage) -> list[int]:
        base, _ = self._expand_from(stage)
        names: list[tuple[str, int | None]] = [(base, stage.index)]
        for instruction in stage.instructions:
            names += [(name, None) for name in references(instruction)]
        found = [self.find_stage(name, before) for name, before in names if not self._is_context(name)]
        return [index for index in found if index is not None]

    def _is_context(self, name: str) -> bool:
        return name.lower() in self.request.contexts

    def _expand_from(self, stage: ins.Stage) -> tuple[str, str]:
        return expand_from(stage, self.arguments.global_values, escape=self.dockerfile.escape)

    # images

    def _begin_images(self, stage: ins.Stage) -> None:
        base, platform = self._expand_from(stage)
        if base != SCRATCH and self.find_stage(base, stage.index) is None and not self._is_context(base):
            self._image_task(base, self._platform(stage, platform))
        for instruction in stage.instructions:
            for name in references(instruction):
                if self._is_context(name) or name == SCRATCH or _number(name) is not None:
                    continue
                if self.find_stage(name) is None:
                    self._image_task(name, self.request.platform)

    def _platform(self, stage: ins.Stage, text: str) -> Platform:
        if not text:
            return self.request.platform
        try:
            return oci.parse_platform(text)
        except InvalidArgument as e:
            raise DockerfileError(f"failed to parse platform {text}: {e.message}", stage.location) from e

    def _image_task(self, name: str, platform: Platform) -> asyncio.Task[BaseImage]:
        key = (name, str(platform))
        if key not in self._images:
            self._images[key] = asyncio.ensure_future(self._resolver.image(name, platform))
        return self._images[key]

    async def image(self, name: str, platform: Platform, location: Location) -> BaseImage:
        try:
            return await self._image_task(name, platform)
        except DockerfileError:
            raise
        except WherryError as e:
            raise located(e, self.dockerfile.name, self.dockerfile.source, location) from e

    # sources of COPY and mounts

    async def source(self, name: str, location: Location) -> Vertex:
        """The vertex for ``--from=name`` in a stage; the main context for ``""``."""
        key = name.lower()
        if key in self._sources:
            return self._sources[key]
        if name and not self._is_context(name):
            if (found := self.find_stage(name)) is not None:
                return (await self._stage_plan(found, location)).vertex
            if _number(name) is not None:
                raise DockerfileError(f"invalid stage index {name}", location)
        if not name:
            vertex = Vertex(LocalOp(""), text="load build context")
        elif name == SCRATCH and not self._is_context(name):
            vertex = Vertex(ScratchOp(), text="FROM scratch", location=location)
        elif self._is_context(name):
            vertex = await self._context(name, self.request.contexts[key], location)
        else:
            image = await self.image(name, self.request.platform, location)
            vertex = Vertex(ImageOp(image), text=f"FROM {image.name}", location=location)
        self._sources[key] = vertex
        return vertex

    async def _context(self, name: str, context: NamedContext, location: Location) -> Vertex:
        if context.kind == "local":
            return Vertex(LocalOp(name.lower()), text=f"load context {name}")
        if context.kind in ("http", "git"):
            return Vertex(
                FetchOp(context.kind, context.value), text=f"load context {name}", location=location
            )
        if context.kind == "target":
            found = self.find_stage(context.value)
            if found is None:
                raise DockerfileError(
                    f"build context {name}: no stage {context.value} to take it from", location
                )
            return (await self._stage_plan(found, location)).vertex
        image = await self.image(context.value, self.request.platform, location)
        return Vertex(ImageOp(image), text=f"FROM {image.name}", location=location)

    # stages

    async def _stage_plan(self, index: int, location: Location) -> StagePlan:
        """The plan of a stage. It may only be made now: an image's ONBUILD triggers can need further stages.
        :raises DockerfileError: a circle."""
        if index not in self._plans:
            stage = self.dockerfile.stages[index]
            if index in self._begun:
                raise DockerfileError(
                    f"circular dependency detected on stage: {stage.name or index}", location
                )
            self._begun.add(index)
            await self._stage(stage)
        return self._plans[index]

    async def _stage(self, stage: ins.Stage) -> None:
        base_name, platform_text = self._expand_from(stage)
        platform = self._platform(stage, platform_text)
        base: StagePlan | None = None
        if base_name == SCRATCH:
            vertex, config = Vertex(ScratchOp(), text=stage.text), empty_config(platform)
        elif (found := self.find_stage(base_name, stage.index)) is not None:
            base = await self._stage_plan(found, stage.location)
            vertex, config = base.vertex, base.config
        else:
            context = self.request.contexts.get(base_name.lower())
            if context is not None and context.kind == "local":
                vertex = await self.source(base_name, stage.location)
                raise DockerfileError(
                    f"FROM {base_name}: a directory is no image to start from", stage.location
                )
            name = context.value if context is not None else base_name
            image = await self.image(name, platform, stage.location)
            vertex = Vertex(
                ImageOp(image),
                text=stage.text,
                stage=stage.name or f"stage-{stage.index}",
                platform=str(platform),
                location=stage.location,
            )
            config = image.config
        builder = StageBuilder(self, stage, vertex, config, platform, base)
        self._plans[stage.index] = await builder.run()

    def is_fresh(self, stage: ins.Stage) -> bool:
        return "*" in self.request.fresh or bool({stage.name, str(stage.index)} & self.request.fresh - {""})


def references(instruction: ins.Instruction) -> Sequence[str]:
    """The names of the sources of an instruction, except the main context."""
    if isinstance(instruction, ins.Copy):
        return [instruction.from_] if instruction.from_ else []
    if isinstance(instruction, ins.Run):
        return [mount.from_ for mount in instruction.mounts if mount.from_]
    return []


def _number(name: str) -> int | None:
    """The number in a name: it always means a stage, never an image."""
    return int(name) if re.fullmatch(r"[+-]?[0-9]{1,9}", name) else None


def empty_config(platform: Platform) -> ImageConfig:
    """The configuration of ``FROM scratch``."""
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os or "linux",
        variant=platform.variant,
        config=ImageRunConfig(),
        rootfs=RootFS(diff_ids=[]),
    )
