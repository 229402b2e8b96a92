"""Build checks that look at expanded values: platforms, bases, variables, ignored files.

The texts are those of docs.docker.com/reference/build-checks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from wherry.dockerfile import expand as expansion
from wherry.dockerfile.checktypes import CheckContext, CheckRule, Found, each_instruction
from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.instructions import Add, Arg, Copy, Env, Instruction, Stage, Transfer
from wherry.dockerfile.suggestions import closest
from wherry.errors import InvalidArgument
from wherry.model import reference
from wherry.model.ignore import wildcard

PLATFORM_ARGS = (
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
)
PROXY_ARGS = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


def _redundant_target_platform(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        if stage.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            yield (
                stage.location,
                f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the "
                "default behavior",
            )


def _from_platform_flag_const_disallowed(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        platform = stage.platform
        if not platform or "$" in platform:
            continue
        # A stage whose name contains the platform has it on purpose.
        if stage.name and any(part and part in stage.name for part in platform.split("/")):
            continue
        yield stage.location, f'FROM --platform flag should not use constant value "{platform}"'


def _global_values(context: CheckContext, *, requested: bool) -> dict[str, str]:
    """Values of the arguments before the first FROM, and the automatic ones."""
    values = dict.fromkeys(PLATFORM_ARGS, "x")
    for arg in context.dockerfile.global_args:
        for name, default in arg.pairs:
            if requested and name in context.build_args:
                values[name] = context.build_args[name]
            elif default is not None:
                values[name] = expansion.expand_text(
                    default, values, arg.location, escape=context.dockerfile.escape
                )
            else:
                values.setdefault(name, "")
    return values


def _undefined_arg_in_from(context: CheckContext) -> Found:
    values = _global_values(context, requested=True)
    for stage in context.dockerfile.stages:
        seen = expansion.Seen()
        for text in (stage.base, stage.platform):
            expansion.expand_text(text, values, stage.location, escape=context.dockerfile.escape, seen=seen)
        for name in sorted(seen.unset):
            yield stage.location, f"FROM argument '{name}' is not declared{_suggestion(name, values)}"


def _is_reference(text: str) -> bool:
    try:
        reference.parse(text)
    except InvalidArgument:
        return False
    return True


def _invalid_default_arg_in_from(context: CheckContext) -> Found:
    values = _global_values(context, requested=False)
    stages: set[str] = set()
    for stage in context.dockerfile.stages:
        base = expansion.expand_text(stage.base, values, stage.location, escape=context.dockerfile.escape)
        undeclared = expansion.Seen()
        expansion.expand_text(
            stage.base, values, stage.location, escape=context.dockerfile.escape, seen=undeclared
        )
        # An undeclared variable has no default: another check reports it.
        hopeless = "$" in stage.base and not undeclared.unset and base.lower() not in stages
        if hopeless and not _is_reference(base):
            yield (
                stage.location,
                f"Default value for ARG {stage.base} results in empty or invalid base image name",
            )
        stages |= {stage.name, str(stage.index)} - {""}


def _inherited(
    context: CheckContext, stage: Stage, values: Mapping[str, str], env_of: Mapping[str, set[str] | None]
) -> set[str] | None:
    base = expansion.expand_text(stage.base, values, stage.location, escape=context.dockerfile.escape)
    if base.lower() in env_of:
        env = env_of[base.lower()]
        return None if env is None else set(env)
    if base == "scratch":
        return {"PATH"}
    known = context.image_env(base)
    return None if known is None else {"PATH", *known}


def _undefined(context: CheckContext, stage: Stage, env: set[str] | None) -> Found:
    """The variables that the stage uses but that are not set. The stage's own variables are added to ``env``;
    None: those of an unknown image."""
    args: set[str] = set(PROXY_ARGS)
    for i in stage.instructions:
        # A pair of ARG sees the pairs before it.
        for part in [replace(i, pairs=(pair,)) for pair in i.pairs] if isinstance(i, Arg) else [i]:
            have = args | (env or set())
            if env is not None:
                for name in sorted(_unset(part, have, context)):
                    yield i.location, f"Usage of undefined variable '${name}'{_suggestion(name, have, '$')}"
            if isinstance(part, Arg):
                args.add(part.pairs[0][0])
        if isinstance(i, Env) and env is not None:
            env |= {name for name, _ in i.pairs}


def _unset(i: Instruction, have: Collection[str], context: CheckContext) -> set[str]:
    seen = expansion.Seen()
    try:
        expansion.expand(i, dict.fromkeys(have, "x"), escape=context.dockerfile.escape, seen=seen)
    except DockerfileError:
        pass  # the values are unknown here, so the expanded text may be invalid
    return seen.unset


def _suggestion(name: str, known: Collection[str], sign: str = "") -> str:
    meant = closest(name, sorted(known))
    return f" (did you mean {sign}{meant}?)" if meant else ""


def _undefined_var(context: CheckContext) -> Found:
    env_of: dict[str, set[str] | None] = {}
    values = _global_values(context, requested=True)
    for stage in context.dockerfile.stages:
        env = _inherited(context, stage, values, env_of)
        yield from _undefined(context, stage, env)
        for key in {stage.name, str(stage.index)} - {""}:
            env_of[key] = env


def _copy_ignored_file(context: CheckContext) -> Found:
    if context.ignored is None:
        return
    for i in each_instruction(context):
        if not isinstance(i, Transfer) or (isinstance(i, Copy) and i.from_):
            continue
        for source in i.sources:
            path = source.removeprefix("./").strip("/")
            fetched = isinstance(i, Add) and ("://" in source or source.startswith("git@"))
            if fetched or "$" in source or path in ("", ".") or wildcard(path) is not None:
                continue
            if context.ignored.excluded(path):
                verb = i.keyword.capitalize()
                yield i.location, f'Attempting to {verb} file "{source}" that is excluded by .dockerignore'


def _invalid_definition_description(context: CheckContext) -> Found:
    file = context.dockerfile
    named = [(s.location, s.name, "stage") for s in file.stages if s.name]
    named += [(a.location, a.pairs[0][0], "argument") for a in file.global_args]
    named += [
        (i.location, i.pairs[0][0], "argument") for i in each_instruction(context) if isinstance(i, Arg)
    ]
    for location, name, what in named:
        comment = file.comments.get(location)
        if comment and not any(line.lower().startswith(f"{name.lower()} ") for line in comment.split("\n")):
            kind = "build stage" if what == "stage" else "argument"
            yield location, f"Comment for {kind} should follow the format: `# {name} <description>`"


RULES = (
    CheckRule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        _redundant_target_platform,
    ),
    CheckRule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        _from_platform_flag_const_disallowed,
    ),
    CheckRule("UndefinedArgInFrom", "FROM command must use declared ARGs", _undefined_arg_in_from),
    CheckRule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        _invalid_default_arg_in_from,
    ),
    CheckRule("UndefinedVar", "Variables should be defined before their use", _undefined_var),
    CheckRule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        _copy_ignored_file,
        experimental=True,
    ),
    CheckRule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> "
        "<description>`. If this is not intended to be a description comment, add an empty "
        "line or comment between the instruction and the comment.",
        _invalid_definition_description,
        experimental=True,
    ),
)
