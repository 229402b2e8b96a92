"""Expand variables in instructions. The language defines which words may contain them
(docs.docker.com/reference/dockerfile, "Environment replacement"). Other words stay as written: in RUN, CMD
and ENTRYPOINT the shell expands variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import singledispatch

from wherry.dockerfile import runmounts, words
from wherry.dockerfile.errors import DockerfileError
from wherry.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Run,
    RunMount,
    Stage,
    Stopsignal,
    Transfer,
    User,
    Volume,
    Workdir,
)
from wherry.errors import InvalidArgument
from wherry.solver.graph import Location

Word = Callable[[str], str]


class Seen:
    """The names of unset variables that were used, for the checks."""

    def __init__(self) -> None:
        self.unset: set[str] = set()


def expand(
    instruction: Instruction, env: Mapping[str, str], *, escape: str = "\\", seen: Seen | None = None
) -> Instruction:
    """``instruction`` with its variables replaced by their values in ``env``.

    All pairs of ENV and ARG see ``env`` as it was before the instruction.
    :raises DockerfileError: an invalid substitution, with the instruction's lines.
    """

    def word(text: str) -> str:
        return _word(text, env, escape, seen)

    try:
        if isinstance(instruction, Expose):
            # The only instruction whose words are split after the expansion.
            ports = [w for p in instruction.ports for w in words.expand(p, env, escape=escape).words]
            for port in instruction.ports:
                word(port)
            return replace(instruction, ports=tuple(ports))
        if isinstance(instruction, Transfer):
            instruction = replace(
                instruction, heredocs=tuple(_heredoc(h, env, seen) for h in instruction.heredocs)
            )
        return _expanded(instruction, word)
    except InvalidArgument as e:
        raise DockerfileError(e.message, instruction.location) from e


def expand_text(
    text: str, env: Mapping[str, str], location: Location, *, escape: str = "\\", seen: Seen | None = None
) -> str:
    """Expand one word, such as in FROM. :raises DockerfileError: with ``location``."""
    try:
        return _word(text, env, escape, seen)
    except InvalidArgument as e:
        raise DockerfileError(e.message, location) from e


def expand_from(stage: Stage, global_args: Mapping[str, str], *, escape: str = "\\") -> tuple[str, str]:
    """A stage's base and platform.

    :param global_args: the values of ARG before the first FROM, and the automatic platform arguments.
    :raises DockerfileError: an invalid substitution, or the base's name becomes empty.
    """
    base = expand_text(stage.base, global_args, stage.location, escape=escape)
    platform = expand_text(stage.platform, global_args, stage.location, escape=escape)
    if not base:
        raise DockerfileError(f"base name ({stage.base}) should not be blank", stage.location)
    if stage.platform and not platform:
        raise DockerfileError(f"empty platform value from expression {stage.platform}", stage.location)
    return base, platform


def _word(text: str, env: Mapping[str, str], escape: str, seen: Seen | None) -> str:
    found = words.expand(text, env, escape=escape)
    if seen is not None:
        seen.unset |= found.unset
    return found.text


def _heredoc(heredoc: Heredoc, env: Mapping[str, str], seen: Seen | None) -> Heredoc:
    """The quotes are part of the file; a backslash escapes the next character, whatever the escape directive
    says."""
    if not heredoc.expand:
        return heredoc
    found = words.expand(heredoc.content, env, quotes=False)
    if seen is not None:
        seen.unset |= found.unset
    return replace(heredoc, content=found.text)


@singledispatch
def _expanded(instruction: Instruction, word: Word) -> Instruction:
    return instruction


@_expanded.register
def _(instruction: Env | Label, word: Word) -> Instruction:
    return replace(instruction, pairs=tuple((word(k), word(v)) for k, v in instruction.pairs))


@_expanded.register
def _(instruction: Arg, word: Word) -> Instruction:
    pairs = tuple((word(k), None if v is None else word(v)) for k, v in instruction.pairs)
    return replace(instruction, pairs=pairs)


def _transfer(instruction: Transfer, word: Word) -> Transfer:
    return replace(
        instruction,
        sources=tuple(word(s) for s in instruction.sources),
        destination=word(instruction.destination),
        chown=word(instruction.chown),
        chmod=word(instruction.chmod),
        exclude=tuple(word(e) for e in instruction.exclude),
    )


@_expanded.register
def _(instruction: Copy, word: Word) -> Instruction:
    return _transfer(instruction, word)


@_expanded.register
def _(instruction: Add, word: Word) -> Instruction:
    done = _transfer(instruction, word)
    assert isinstance(done, Add)
    return replace(done, checksum=word(done.checksum))


@_expanded.register
def _(instruction: Workdir, word: Word) -> Instruction:
    return replace(instruction, path=word(instruction.path))


@_expanded.register
def _(instruction: User, word: Word) -> Instruction:
    return replace(instruction, user=word(instruction.user))


@_expanded.register
def _(instruction: Stopsignal, word: Word) -> Instruction:
    return replace(instruction, signal=word(instruction.signal))


@_expanded.register
def _(instruction: Volume, word: Word) -> Instruction:
    return replace(instruction, paths=tuple(word(p) for p in instruction.paths))


@_expanded.register
def _(instruction: Healthcheck, word: Word) -> Instruction:
    return replace(
        instruction,
        interval=word(instruction.interval),
        timeout=word(instruction.timeout),
        start_period=word(instruction.start_period),
        start_interval=word(instruction.start_interval),
        retries=word(instruction.retries),
    )


@_expanded.register
def _(instruction: Run, word: Word) -> Instruction:
    return replace(instruction, mounts=tuple(_mount(m, word) for m in instruction.mounts))


def _mount(mount: RunMount, word: Word) -> RunMount:
    """``from`` may not contain variables, as in COPY."""
    fields = tuple(
        (key, value if value is None or key == "from" else word(value)) for key, value in mount.fields
    )
    return runmounts.make(fields)
