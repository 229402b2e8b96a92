"""From a Dockerfile to a graph: what the target needs is planned, and nothing else is looked at.

Names are looked up in this order: a stage, a named context, an image. A stage's base decides its
configuration, so images are resolved while planning, all that are needed at once.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wherry.build import instructions as ins
from wherry.build.args import Arguments
from wherry.build.errors import DockerfileError
from wherry.build.expand import expand_from
from wherry.build.graph import (
    BaseImage,
    FetchOp,
    ImageOp,
    LocalOp,
    Plan,
    ScratchOp,
    StagePlan,
    Vertex,
)
from wherry.build.stages import StageBuilder
from wherry.errors import InvalidArgument, WherryError
from wherry.model import oci
from wherry.model.oci import ImageConfig, ImageRunConfig, Platform, RootFS

SCRATCH = "scratch"
_GIT_URL = re.compile(r"(?:git://|git@[^/]+:|ssh://|(?:https?://)[^#?]+\.git(?:[#?]|$))", re.ASCII)


class Resolver(Protocol):
    """Where images come from; the engine pulls what is not here."""

    async def image(self, name: str, platform: Platform) -> BaseImage:
        """:raises WherryError: it cannot be had."""


@dataclass(frozen=True)
class NamedContext:
    """``--build-context``: ``kind`` is image, local, http, git or target; ``value`` is its name or
    address.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class PlanRequest:
    """What the client asks for. ``fresh`` are stages that leave the cache out, ``*`` for all of them."""

    target: str = ""
    platform: Platform = field(default_factory=oci.host)
    build_args: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, NamedContext] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    network: str = "default"
    entitlements: frozenset[str] = frozenset()
    epoch: int | None = None


async def plan(dockerfile: ins.Dockerfile, request: PlanRequest, resolver: Resolver) -> Plan:
    """:raises DockerfileError: with the lines that are wrong. :raises WherryError: an image cannot be had."""
    try:
        return await Planner(dockerfile, request, resolver).run()
    except DockerfileError as e:
        raise e if "\n" in e.message else e.within(dockerfile.name, dockerfile.source) from e


class Planner:
    """One plan in the making."""

    def __init__(self, dockerfile: ins.Dockerfile, request: PlanRequest, resolver: Resolver) -> None:
        self.dockerfile, self.request = dockerfile, request
        self._resolver = resolver
        self.arguments = Arguments(dockerfile, request.build_args, request.platform)
        self._plans: dict[int, StagePlan] = {}
        self._images: dict[tuple[str, str], asyncio.Task[BaseImage]] = {}
        self._sources: dict[str, Vertex] = {}

    async def run(self) -> Plan:
        target = self._find_target()
        order = self._needed(target)
        try:
            for index in order:
                self._begin_images(self.dockerfile.stages[index])
            for index in order:
                await self._stage(self.dockerfile.stages[index])
        finally:
            for task in self._images.values():
                task.cancel()
            await asyncio.gather(*self._images.values(), return_exceptions=True)
        return Plan(
            self._plans[target],
            tuple(self._plans[index] for index in sorted(self._plans)),
            tuple(self.arguments.unused()),
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
        """A stage by its name or number; with ``before`` only one above that."""
        stages = self.dockerfile.stages[: before if before is not None else None]
        for stage in reversed(stages):
            if stage.name and stage.name == name.lower():
                return stage.index
        if name.isdecimal() and name.isascii() and int(name) < len(stages):
            return int(name)
        return None

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
                if name != SCRATCH and self.find_stage(name) is None and not self._is_context(name):
                    self._image_task(name, self.request.platform)

    def _platform(self, stage: ins.Stage, text: str) -> Platform:
        if not text:
            return self.request.platform
        try:
            return oci.parse_platform(text)
        except InvalidArgument as e:
            raise DockerfileError(e.message, stage.location) from e

    def _image_task(self, name: str, platform: Platform) -> asyncio.Task[BaseImage]:
        key = (name, str(platform))
        if key not in self._images:
            self._images[key] = asyncio.ensure_future(self._resolver.image(name, platform))
        return self._images[key]

    async def image(self, name: str, platform: Platform, location: ins.Location) -> BaseImage:
        try:
            return await self._image_task(name, platform)
        except DockerfileError:
            raise
        except WherryError as e:
            shown = DockerfileError(e.message, location).within(self.dockerfile.name, self.dockerfile.source)
            raise type(e)(f"{e.message}\n{shown.message.partition(chr(10))[2]}") from e

    # sources of COPY and mounts

    async def source(self, name: str, location: ins.Location) -> Vertex:
        """What ``--from=name`` means in a stage; the main context for ``""``."""
        key = name.lower()
        if key in self._sources:
            return self._sources[key]
        if name and not self._is_context(name) and (found := self.find_stage(name)) is not None:
            if found not in self._plans:
                raise DockerfileError(f"stage {name} is not above the one that needs it", location)
            return self._plans[found].vertex
        if not name:
            vertex = Vertex(LocalOp(""), text="load build context")
        elif self._is_context(name):
            vertex = await self._context(name, self.request.contexts[key], location)
        else:
            image = await self.image(name, self.request.platform, location)
            vertex = Vertex(ImageOp(image), text=f"FROM {image.name}", location=location)
        self._sources[key] = vertex
        return vertex

    async def _context(self, name: str, context: NamedContext, location: ins.Location) -> Vertex:
        if context.kind == "local":
            return Vertex(LocalOp(name.lower()), text=f"load context {name}")
        if context.kind in ("http", "git"):
            return Vertex(
                FetchOp(context.kind, context.value), text=f"load context {name}", location=location
            )
        if context.kind == "target":
            found = self.find_stage(context.value)
            if found is None or found not in self._plans:
                raise DockerfileError(
                    f"build context {name}: no stage {context.value} to take it from", location
                )
            return self._plans[found].vertex
        image = await self.image(context.value, self.request.platform, location)
        return Vertex(ImageOp(image), text=f"FROM {image.name}", location=location)

    # stages

    async def _stage(self, stage: ins.Stage) -> None:
        base_name, platform_text = self._expand_from(stage)
        platform = self._platform(stage, platform_text)
        base: StagePlan | None = None
        if base_name == SCRATCH:
            vertex, config = Vertex(ScratchOp(), text=stage.text), empty_config(platform)
        elif (found := self.find_stage(base_name, stage.index)) is not None:
            base = self._plans[found]
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
    """Names that an instruction takes files from, besides the main context."""
    if isinstance(instruction, ins.Copy):
        return [instruction.from_] if instruction.from_ else []
    if isinstance(instruction, ins.Run):
        return [mount.from_ for mount in instruction.mounts if mount.from_]
    return []


def empty_config(platform: Platform) -> ImageConfig:
    """What ``FROM scratch`` starts with."""
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os or "linux",
        variant=platform.variant,
        config=ImageRunConfig(),
        rootfs=RootFS(diff_ids=[]),
    )


def is_git_url(url: str) -> bool:
    """Whether ADD fetches a repository: ``git://…``, ``git@host:…``, ``https://….git``."""
    return _GIT_URL.match(url) is not None


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) or is_git_url(text)


def filename_of(url: str) -> str:
    """What a fetched file is called in a destination that is a directory."""
    return posixpath.basename(url.partition("#")[0].partition("?")[0].rstrip("/"))
