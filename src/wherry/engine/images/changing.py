"""Instructions of a Dockerfile, applied to an image's configuration; ``changes`` imports it at need."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from wherry.dockerfile import configs
from wherry.dockerfile import instructions as ins
from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.expand import expand
from wherry.dockerfile.parse import parse_instructions
from wherry.errors import InvalidArgument
from wherry.model.oci import ImageRunConfig

_CHANGES = (
    ins.Cmd,
    ins.Entrypoint,
    ins.Env,
    ins.Expose,
    ins.Healthcheck,
    ins.Label,
    ins.Onbuild,
    ins.Stopsignal,
    ins.User,
    ins.Volume,
    ins.Workdir,
)


def apply_changes(changes: Sequence[str], base: ImageRunConfig) -> ImageRunConfig:
    """See :func:`wherry.engine.images.changes.parse_changes`."""
    config = base
    try:
        commanded = False
        for instruction in parse_instructions("\n".join(changes)):
            config = _applied(config, instruction, commanded=commanded)
            commanded = commanded or isinstance(instruction, ins.Cmd)
    except DockerfileError as e:
        unknown = e.reason.partition("unknown instruction: ")[2].partition(" (")[0]
        raise InvalidArgument(f"{unknown} is not a valid change command" if unknown else e.reason) from e
    return config


def _applied(config: ImageRunConfig, instruction: ins.Instruction, *, commanded: bool) -> ImageRunConfig:
    if not isinstance(instruction, _CHANGES):
        raise InvalidArgument(f"{instruction.keyword} is not a valid change command")
    if isinstance(instruction, ins.Cmd | ins.Entrypoint) and not instruction.words:
        raise InvalidArgument(f"{instruction.keyword} requires at least one argument")
    expanded = expand(instruction, configs.environment(config))
    if isinstance(expanded, ins.Workdir):
        return replace(config, working_dir=configs.workdir(config, expanded.path))
    changed = configs.apply(config, expanded, commanded=commanded)
    assert changed is not None
    return changed
