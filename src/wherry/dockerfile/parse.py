"""Parse a Dockerfile's text into instructions (docs.docker.com/reference/dockerfile).

:mod:`wherry.dockerfile.lines` finds the lines, :mod:`wherry.dockerfile.readers` reads each, and they are put
together here as stages. Errors use Docker's words. Nothing is expanded or looked up here:
:mod:`wherry.dockerfile.expand` does that.
"""

from __future__ import annotations

import re

from wherry.dockerfile import lines
from wherry.dockerfile.errors import DockerfileError, is_text, printable, readable
from wherry.dockerfile.instructions import Arg, Dockerfile, Instruction, Stage
from wherry.dockerfile.lines import Line
from wherry.dockerfile.readers import BLANKS, Flags, check_trigger, read_instruction
from wherry.solver.graph import Location

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_STAGES_MAX = 1000
FRONTENDS = ("docker/dockerfile", "docker/dockerfile-upstream")
"""The frontend that ``# syntax=`` may name, with any tag or digest: its language is built in."""


def parse(source: bytes | str, *, name: str = "Dockerfile") -> Dockerfile:
    """Read a whole Dockerfile.

    :param name: its name in the excerpts of errors.
    :raises DockerfileError: it breaks a rule of the language; the text shows the lines.
    """
    try:
        return _parse(source, name)
    except DockerfileError as e:
        raise e.within(name, lines.decode(source) if len(source) <= lines.SIZE_MAX else "") from e


def parse_trigger(text: str, *, escape: str = "\\") -> Instruction:
    """Read one instruction, as stored by ONBUILD in an image. Here-documents follow it after a newline.

    :raises DockerfileError: it breaks a rule of the language, or is FROM, MAINTAINER or ONBUILD.
    """
    prefix = "# escape=`\n" if escape == "`" else ""
    try:
        found = lines.read(prefix + text)
        if len(found.lines) != 1:
            raise DockerfileError(f"an ONBUILD trigger is one instruction, not {len(found.lines)}", None)
        line = found.lines[0]
        check_trigger(line)
        return read_instruction(line, escape=escape)
    except DockerfileError as e:
        raise DockerfileError(f"invalid ONBUILD trigger {text[:200]!r}: {e.reason}", None) from e


def parse_instructions(text: str) -> list[Instruction]:
    """Parse instructions outside a stage. :raises DockerfileError: one breaks the language's rules."""
    found = lines.read(text)
    return [read_instruction(line, escape=found.escape) for line in found.lines]


def _parse(source: bytes | str, name: str) -> Dockerfile:
    found = lines.read(source)
    check_syntax(found.directives.get("syntax", ""))
    global_args: list[Arg] = []
    stages: list[tuple[Line, list[Instruction]]] = []
    for line in found.lines:
        if line.keyword == "FROM":
            if len(stages) == _STAGES_MAX:
                raise DockerfileError(f"more than {_STAGES_MAX} stages", line.location)
            stages.append((line, []))
            continue
        instruction = read_instruction(line, escape=found.escape)
        if stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", line.location)
    if not stages:
        raise DockerfileError("no build stage in current context", found.lines[-1].location)
    comments = {line.location: "\n".join(line.comments) for line in found.lines if line.comments}
    descriptions = {line.location: "\n".join(line.described) for line in found.lines if line.described}
    return Dockerfile(
        name=name,
        source=readable(found.text),
        escape=found.escape,
        syntax=found.directives.get("syntax", ""),
        check=found.directives.get("check", ""),
        global_args=tuple(global_args),
        stages=tuple(_stage(number, line, body) for number, (line, body) in enumerate(stages)),
        comments=comments,
        descriptions=descriptions,
        empty_continuations=tuple(found.empty_continuations),
    )


def check_syntax(syntax: str) -> None:
    """:raises DockerfileError: ``# syntax=`` names a frontend that is not the one built in."""
    if not syntax:
        return
    image = syntax.split()[0].partition("@")[0]
    repository = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
    for prefix in ("docker.io/", "index.docker.io/"):
        repository = repository.removeprefix(prefix)
    if repository not in FRONTENDS:
        raise DockerfileError(
            f"frontend {syntax} is not supported: the Dockerfile frontend is built in ({FRONTENDS[0]})",
            Location(1, 1),
        )


def _stage(index: int, line: Line, body: list[Instruction]) -> Stage:
    if not all(map(is_text, (*line.flags, line.rest))):
        raise DockerfileError("FROM has bytes that are not valid UTF-8", line.location)
    flags = Flags(line, strings=("platform",))
    arguments = [a for a in BLANKS.split(line.rest) if a]
    written = ""
    if len(arguments) == 3 and arguments[1].lower() == "as":
        written = arguments[2]
        if not _STAGE_NAME.fullmatch(written.lower()):
            raise DockerfileError(
                f'invalid name for build stage: "{printable(written)}", '
                "name can't start with a number or contain symbols",
                line.location,
            )
    elif len(arguments) != 1:
        raise DockerfileError("FROM requires either one or three arguments", line.location)
    name = written.lower()
    described = [c for c in line.described if name and c.lower().startswith(f"{name} ")]
    return Stage(
        index=index,
        name=name,
        written_name=written,
        base=arguments[0],
        platform=flags.text("platform"),
        location=line.location,
        text=line.text,
        instructions=tuple(body),
        comment=described[0][len(name) :].strip() if described else "",
    )
