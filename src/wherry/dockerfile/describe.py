"""Describe a Dockerfile: its targets, and the arguments, secrets and mounts of one target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wherry.dockerfile.instructions import Arg, Copy, Dockerfile, Run, Stage
from wherry.errors import InvalidArgument
from wherry.solver.graph import Location


@dataclass(frozen=True)
class TargetDescription:
    """``name`` is the stage's number if it has no name."""

    name: str
    default: bool
    description: str
    base: str
    platform: str
    location: Location


@dataclass(frozen=True)
class Argument:
    """``value`` is the request's or the default; None without either."""

    name: str
    value: str | None
    description: str
    location: Location


@dataclass(frozen=True)
class Needed:
    """A secret, an agent or a cache that RUN mounts."""

    name: str
    required: bool
    location: Location


@dataclass(frozen=True)
class Outline:
    target: TargetDescription
    arguments: tuple[Argument, ...]
    secrets: tuple[Needed, ...]
    ssh: tuple[Needed, ...]
    caches: tuple[Needed, ...]


def targets(dockerfile: Dockerfile) -> list[TargetDescription]:
    last = len(dockerfile.stages) - 1
    return [
        TargetDescription(
            name=stage.written_name or str(stage.index),
            default=stage.index == last,
            description=stage.comment,
            base=stage.base,
            platform=stage.platform,
            location=stage.location,
        )
        for stage in dockerfile.stages
    ]


def find_stage(dockerfile: Dockerfile, target: str) -> Stage:
    """The stage named ``target`` (or of that number), the last one for ``""``.

    :raises InvalidArgument: there is none.
    """
    if not target:
        return dockerfile.stages[-1]
    for stage in reversed(dockerfile.stages):
        if stage.name == target.lower():
            return stage
    if target.isascii() and target.isdigit() and int(target) < len(dockerfile.stages):
        return dockerfile.stages[int(target)]
    raise InvalidArgument(f'target stage "{target}" could not be found')


def outline(dockerfile: Dockerfile, target: str = "", build_args: Mapping[str, str] | None = None) -> Outline:
    """The inputs of ``target``; only those of the stages that it needs.

    :raises InvalidArgument: no such target.
    """
    stage = find_stage(dockerfile, target)
    needed = list(_needed(dockerfile, stage))
    mounts = [(m, i.location) for s in needed for i in s.instructions if isinstance(i, Run) for m in i.mounts]
    return Outline(
        target=targets(dockerfile)[stage.index],
        arguments=tuple(_arguments(dockerfile, needed, build_args or {})),
        secrets=_mounted(
            [(m.id or m.source or m.target, m.required, w) for m, w in mounts if m.type == "secret"]
        ),
        ssh=_mounted([(m.id or "default", m.required, w) for m, w in mounts if m.type == "ssh"]),
        caches=_mounted([(m.id or m.target, False, w) for m, w in mounts if m.type == "cache"]),
    )


def _mounted(found: list[tuple[str, bool, Location]]) -> tuple[Needed, ...]:
    """Each name once, required if any of its mounts requires it."""
    merged: dict[str, Needed] = {}
    for name, required, location in found:
        before = merged.get(name)
        required = required or (before is not None and before.required)
        merged[name] = Needed(name, required, before.location if before else location)
    return tuple(merged.values())


def _needed(dockerfile: Dockerfile, stage: Stage) -> Iterator[Stage]:
    """``stage`` and those it is based on, copies from or mounts, in the file's order."""
    wanted = {stage.index}
    for candidate in reversed(dockerfile.stages[: stage.index + 1]):
        if candidate.index not in wanted:
            continue
        names = {candidate.base}
        for i in candidate.instructions:
            if isinstance(i, Copy) and i.from_:
                names.add(i.from_)
            elif isinstance(i, Run):
                names |= {m.from_ for m in i.mounts if m.from_}
        earlier = dockerfile.stages[: candidate.index]
        for name in names:
            found = [s.index for s in earlier if s.name and s.name == name.lower()]
            if found:
                wanted.add(found[-1])
            elif name.isascii() and name.isdigit() and int(name) < candidate.index:
                wanted.add(int(name))
    return (s for s in dockerfile.stages if s.index in wanted)


def _arguments(
    dockerfile: Dockerfile, stages: list[Stage], build_args: Mapping[str, str]
) -> Iterator[Argument]:
    args: list[Arg] = list(dockerfile.global_args)
    for stage in stages:
        args += [i for i in stage.instructions if isinstance(i, Arg)]
    merged: dict[str, Argument] = {}
    for arg in args:
        comment = dockerfile.descriptions.get(arg.location, "")
        for name, default in arg.pairs:
            described = [c for c in comment.split("\n") if c.lower().startswith(f"{name.lower()} ")]
            description = described[0][len(name) :].strip() if described else ""
            before = merged.get(name)
            value = build_args.get(name, default)
            if before is not None:
                value = before.value if value is None else value
                description = description or before.description
            location = before.location if before is not None else arg.location
            merged[name] = Argument(name, value, description, location)
    return iter(merged.values())
