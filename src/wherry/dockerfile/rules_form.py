"""Build checks that look at how a Dockerfile is written: casing, names, forms.

The texts are those of docs.docker.com/reference/build-checks.
"""

from __future__ import annotations

import re

from wherry.dockerfile.checktypes import CheckContext, CheckRule, Found, each_instruction
from wherry.dockerfile.instructions import (
    Arg,
    Cmd,
    CommandLine,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    Workdir,
)
from wherry.solver.graph import Location


def _written(context: CheckContext, location: Location) -> list[str]:
    """The words in an instruction's first line."""
    return context.dockerfile.source.split("\n")[location.first - 1].split()


def _stage_name_casing(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        if stage.written_name != stage.name:
            yield stage.location, f"Stage name '{stage.written_name}' should be lowercase"


def _from_as_casing(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        words = _written(context, stage.location)
        if not stage.name or len(words) < 3:
            continue
        keyword, as_ = words[0], words[-2]
        if as_.lower() == "as" and keyword.isupper() != as_.isupper():
            yield stage.location, f"'{as_}' and '{keyword}' keywords' casing do not match"


def _no_empty_continuation(context: CheckContext) -> Found:
    for location in context.dockerfile.empty_continuations:
        yield location, "Empty continuation line"


def _consistent_instruction_casing(context: CheckContext) -> Found:
    file = context.dockerfile
    places = [a.location for a in file.global_args]
    for stage in file.stages:
        places += [stage.location, *(i.location for i in stage.instructions)]
    written = [(where, words[0]) for where in places if (words := _written(context, where))]
    lower = sum(w.islower() for _, w in written)
    upper = sum(w.isupper() for _, w in written)
    wanted = "lowercase" if lower > upper else "uppercase"
    for where, word in written:
        if not (word.islower() if lower > upper else word.isupper()):
            yield where, f"Command '{word}' should match the case of the command majority ({wanted})"


def _duplicate_stage_name(context: CheckContext) -> Found:
    seen: set[str] = set()
    for stage in context.dockerfile.stages:
        if stage.name and stage.name in seen:
            yield stage.location, f'Duplicate stage name "{stage.name}", stage names should be unique'
        seen.add(stage.name)


def _reserved_stage_name(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        if stage.name in ("scratch", "context"):
            detail = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield stage.location, detail


def _json_args_recommended(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        if any(isinstance(i, Shell) for i in stage.instructions):
            continue  # A command that names a shell uses it on purpose.
        for i in stage.instructions:
            if isinstance(i, Cmd | Entrypoint) and i.shell and i.words:
                yield (
                    i.location,
                    f"JSON arguments recommended for {i.keyword} to prevent unintended behavior "
                    "related to OS signals",
                )


def _maintainer_deprecated(context: CheckContext) -> Found:
    for i in each_instruction(context):
        if isinstance(i, Maintainer):
            yield i.location, "Maintainer instruction is deprecated in favor of using label"


def _multiple_instructions_disallowed(context: CheckContext) -> Found:
    for stage in context.dockerfile.stages:
        last: dict[type[CommandLine], Instruction] = {}
        for i in stage.instructions:
            if not isinstance(i, Cmd | Entrypoint | Healthcheck):
                continue
            if (before := last.get(type(i))) is not None:
                yield (
                    before.location,
                    f"Multiple {i.keyword} instructions should not be used in the same stage because only "
                    "the last one will be used",
                )
            last[type(i)] = i


def _legacy_key_value_format(context: CheckContext) -> Found:
    for i in each_instruction(context):
        if isinstance(i, Env | Label) and i.legacy:
            yield (
                i.location,
                f'"{i.keyword} key=value" should be used instead of legacy "{i.keyword} key value" format',
            )


_SECRET = re.compile(
    r"(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:^|_)public(?:_|$)", re.IGNORECASE)


def _secrets_used_in_arg_or_env(context: CheckContext) -> Found:
    for i in (*context.dockerfile.global_args, *each_instruction(context)):
        if not isinstance(i, Arg | Env):
            continue
        for name, _value in i.pairs:
            if _SECRET.search(name) and not _PUBLIC.search(name):
                detail = f'Do not use ARG or ENV instructions for sensitive data ({i.keyword} "{name}")'
                yield i.location, detail


def _workdir_relative_path(context: CheckContext) -> Found:
    absolute: set[str] = set()
    for stage in context.dockerfile.stages:
        known = stage.base.lower() in absolute
        for i in stage.instructions:
            if not isinstance(i, Workdir):
                continue
            if i.path.startswith(("/", "$", '"/', "'/")):
                known = True
            elif not known:
                yield (
                    i.location,
                    f'Relative workdir "{i.path}" can have unexpected results if the base image changes',
                )
        if known:
            absolute |= {stage.name, str(stage.index)} - {""}


def _expose_proto_casing(context: CheckContext) -> Found:
    for i in each_instruction(context):
        for port in i.ports if isinstance(i, Expose) else ():
            _number, slash, protocol = port.partition("/")
            if slash and protocol != protocol.lower() and "$" not in protocol:
                yield (
                    i.location,
                    f"Defined protocol '{port}' in EXPOSE instruction should be lowercase",
                )


def _expose_invalid_format(context: CheckContext) -> Found:
    for i in each_instruction(context):
        for port in i.ports if isinstance(i, Expose) else ():
            if ":" in port and "$" not in port:
                yield (
                    i.location,
                    "EXPOSE instruction should not define an IP address or host-port mapping, "
                    f"found '{port}'",
                )


RULES = (
    CheckRule("StageNameCasing", "Stage names should be lowercase", _stage_name_casing),
    CheckRule(
        "FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", _from_as_casing
    ),
    CheckRule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        _no_empty_continuation,
    ),
    CheckRule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        _consistent_instruction_casing,
    ),
    CheckRule("DuplicateStageName", "Stage names should be unique", _duplicate_stage_name),
    CheckRule("ReservedStageName", "Reserved words should not be used as stage names", _reserved_stage_name),
    CheckRule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        _json_args_recommended,
    ),
    CheckRule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        _maintainer_deprecated,
    ),
    CheckRule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        _multiple_instructions_disallowed,
    ),
    CheckRule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        _legacy_key_value_format,
    ),
    CheckRule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        _secrets_used_in_arg_or_env,
    ),
    CheckRule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have "
        "unexpected results if the base image changes",
        _workdir_relative_path,
    ),
    CheckRule(
        "ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", _expose_proto_casing
    ),
    CheckRule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will "
        "become an error in a future release",
        _expose_invalid_format,
    ),
)
