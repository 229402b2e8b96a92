"""Turn one logical line of a Dockerfile into an instruction: flags, arguments, forms
(docs.docker.com/reference/dockerfile).

Errors use Docker's words. To add an instruction, add a reader to ``_READERS``; to add a flag, add its name to
the reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wherry.dockerfile import lines, runmounts, words
from wherry.dockerfile.errors import DockerfileError, is_text, printable
from wherry.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from wherry.dockerfile.lines import Line
from wherry.dockerfile.suggestions import closest
from wherry.errors import InvalidArgument

BLANKS = re.compile(r"[\t\v\f\r ]+")


def read_instruction(line: Line, *, escape: str = "\\") -> Instruction:
    """:raises DockerfileError: an unknown keyword or flag, missing or too many arguments."""
    reader = _READERS.get(line.keyword)
    if reader is None:
        hint = _suggestion(line.keyword.upper(), (*_READERS, "FROM"))
        raise DockerfileError(f"unknown instruction: {printable(line.written_keyword)}{hint}", line.location)
    _check_text(line)
    try:
        return reader(line, escape)
    except DockerfileError:
        raise
    except InvalidArgument as e:
        raise DockerfileError(e.message, line.location) from e


def _check_text(line: Line) -> None:
    """Names and contents of files are bytes; everything else is stored in documents, which contain only text.

    A here-document of RUN may be a file (``#!``); otherwise :mod:`wherry.dockerfile.runs` refuses it.
    """
    parts = list(line.flags)
    if line.keyword not in ("COPY", "ADD"):
        parts.append(line.rest)
    if line.keyword not in ("COPY", "ADD", "RUN"):
        parts += [heredoc.content for heredoc in line.heredocs]
    if not all(map(is_text, parts)):
        raise DockerfileError(f"{line.keyword} has bytes that are not valid UTF-8", line.location)


def _suggestion(word: str, known: Iterable[str]) -> str:
    meant = closest(word, known)
    return f" (did you mean {meant}?)" if meant else ""


class Flags:
    """The flags of a line, checked against those of its instruction."""

    def __init__(
        self,
        line: Line,
        *,
        strings: tuple[str, ...] = (),
        booleans: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
    ) -> None:
        self._values: dict[str, list[str]] = {}
        for flag in line.flags:
            name, equals, value = flag[2:].partition("=")
            if name not in (*strings, *booleans, *lists):
                hint = _suggestion(name, (*strings, *booleans, *lists))
                raise DockerfileError(f"unknown flag: --{name}{hint}", line.location)
            if name in self._values and name not in lists:
                raise DockerfileError(f"duplicate flag specified: {name}", line.location)
            if name in booleans:
                value = value.lower() if equals else "true"
                if value not in ("true", "false"):
                    raise DockerfileError(
                        f"expecting boolean value for flag {name}, not: {value}", line.location
                    )
            elif not equals:
                raise DockerfileError(f"missing a value on flag: {name}", line.location)
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[0]

    def boolean(self, name: str) -> bool:
        return self.text(name) == "true"

    def several(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))


def _json_words(rest: str) -> tuple[str, ...] | None:
    """The words of an exec form; None for the shell form, which includes malformed JSON.

    :raises InvalidArgument: an array with elements that are not strings.
    """
    if not rest.startswith("["):
        return None
    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise InvalidArgument("when using JSON array syntax, arrays must be comprised of strings only")
    # JSON can contain half of a surrogate pair, which is not a character.
    return tuple(word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in found)


def _command(line: Line) -> dict[str, Any]:
    """The fields of :class:`Command`."""
    found = _json_words(line.rest)
    if found is not None:
        return {**_base(line), "words": found, "shell": False}
    return {**_base(line), "words": (line.rest,) if line.rest else (), "shell": True}


def _base(line: Line) -> dict[str, Any]:
    return {"location": line.location, "text": line.text}


def _list(line: Line) -> tuple[str, ...]:
    found = _json_words(line.rest)
    return found if found is not None else tuple(a for a in BLANKS.split(line.rest) if a)


def _no_flags(line: Line) -> None:
    Flags(line)


def _one(line: Line) -> str:
    _no_flags(line)
    if not line.rest:
        raise InvalidArgument(f"{line.keyword} requires exactly one argument")
    return line.rest


def _pairs(line: Line, escape: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """``key=value …``, or the old ``key value``; the second result says which."""
    _no_flags(line)
    found = words.split(line.rest, escape=escape)
    if not found:
        raise InvalidArgument(f"{line.keyword} requires at least one argument")
    if "=" not in found[0]:
        parts = BLANKS.split(line.rest, maxsplit=1)
        if len(parts) < 2:
            raise InvalidArgument(f"{line.keyword} must have two arguments")
        return ((parts[0], parts[1]),), True
    pairs = []
    for word in found:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise InvalidArgument(f"{line.keyword} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs), False


def _env(line: Line, escape: str) -> Env:
    pairs, legacy = _pairs(line, escape)
    return Env(**_base(line), pairs=pairs, legacy=legacy)


def _label(line: Line, escape: str) -> Label:
    pairs, legacy = _pairs(line, escape)
    return Label(**_base(line), pairs=pairs, legacy=legacy)


def _arg(line: Line, escape: str) -> Arg:
    _no_flags(line)
    found = words.split(line.rest, escape=escape)
    if not found:
        raise InvalidArgument("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in found:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidArgument("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(**_base(line), pairs=tuple(pairs))


def _run(line: Line, _escape: str) -> Run:
    flags = Flags(line, strings=("network", "security"), lists=("mount", "device"))
    network = flags.text("network", "default")
    if network not in ("default", "none", "host"):
        raise InvalidArgument(f'unsupported network mode "{network}"')
    security = flags.text("security", "sandbox")
    if security not in ("sandbox", "insecure"):
        raise InvalidArgument(f'security "{security}" is not valid')
    command = _command(line)
    if not command["words"]:
        raise InvalidArgument("RUN requires at least one argument")
    return Run(
        **command,
        mounts=tuple(runmounts.parse(m) for m in flags.several("mount")),
        network=network,
        security=security,
        devices=flags.several("device"),
        heredocs=line.heredocs,
    )


def _cmd(line: Line, _escape: str) -> Cmd:
    _no_flags(line)
    return Cmd(**_command(line))


def _entrypoint(line: Line, _escape: str) -> Entrypoint:
    _no_flags(line)
    return Entrypoint(**_command(line))


_HEALTH_FLAGS = ("interval", "timeout", "start-period", "start-interval", "retries")


def _healthcheck(line: Line, _escape: str) -> Healthcheck:
    kind, *others = BLANKS.split(line.rest, maxsplit=1)
    if not kind:
        raise InvalidArgument("HEALTHCHECK requires at least one argument")
    rest = others[0] if others else ""
    if kind.upper() == "NONE":
        _no_flags(line)
        if rest:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(**_base(line), words=(), shell=False, none=True)
    if kind.upper() != "CMD":
        raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    flags = Flags(line, strings=_HEALTH_FLAGS)
    found = _json_words(rest)
    if not rest or found == ():
        raise InvalidArgument("Missing command after HEALTHCHECK CMD")
    return Healthcheck(
        **_base(line),
        words=(rest,) if found is None else found,
        shell=found is None,
        interval=flags.text("interval"),
        timeout=flags.text("timeout"),
        start_period=flags.text("start-period"),
        start_interval=flags.text("start-interval"),
        retries=flags.text("retries"),
    )


def _transfer(line: Line) -> dict[str, Any]:
    """The sources and the destination of COPY and ADD."""
    found = tuple(lines.line_words(line.rest)) if line.heredocs else _list(line)
    if len(found) < 2:
        raise InvalidArgument(
            f"{line.keyword} requires at least two arguments, but only {'one was' if found else 'none were'} "
            "provided. Destination could not be determined"
        )
    if line.heredocs and lines.heredoc_mark(found[-1]) is not None:
        raise InvalidArgument(f"{line.keyword} cannot accept a heredoc as a destination")
    sources = [s for s in found[:-1] if not line.heredocs or lines.heredoc_mark(s) is None]
    return {
        **_base(line),
        "sources": tuple(sources),
        "destination": found[-1],
        "heredocs": line.heredocs,
    }


def _copy(line: Line, _escape: str) -> Copy:
    flags = Flags(line, strings=("from", "chown", "chmod"), booleans=("link", "parents"), lists=("exclude",))
    return Copy(
        **_transfer(line), **_common(flags), from_=flags.text("from"), parents=flags.boolean("parents")
    )


def _add(line: Line, _escape: str) -> Add:
    flags = Flags(
        line,
        strings=("chown", "chmod", "checksum"),
        booleans=("link", "keep-git-dir", "unpack"),
        lists=("exclude",),
    )
    return Add(
        **_transfer(line),
        **_common(flags),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack") if flags.text("unpack") else None,
    )


def _common(flags: Flags) -> dict[str, Any]:
    return {
        "chown": flags.text("chown"),
        "chmod": flags.text("chmod"),
        "link": flags.boolean("link"),
        "exclude": flags.several("exclude"),
    }


def _workdir(line: Line, _escape: str) -> Workdir:
    return Workdir(**_base(line), path=_one(line))


def _user(line: Line, _escape: str) -> User:
    return User(**_base(line), user=_one(line))


def _stopsignal(line: Line, _escape: str) -> Stopsignal:
    return Stopsignal(**_base(line), signal=_one(line))


def _maintainer(line: Line, _escape: str) -> Maintainer:
    return Maintainer(**_base(line), name=_one(line))


def _expose(line: Line, _escape: str) -> Expose:
    _no_flags(line)
    ports = tuple(a for a in BLANKS.split(line.rest) if a)
    if not ports:
        raise InvalidArgument("EXPOSE requires at least one argument")
    return Expose(**_base(line), ports=ports)


def _volume(line: Line, _escape: str) -> Volume:
    _no_flags(line)
    paths = _list(line)
    if not paths:
        raise InvalidArgument("VOLUME requires at least one argument")
    if not all(p.strip() for p in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    return Volume(**_base(line), paths=tuple(p.strip() for p in paths))


def _shell(line: Line, _escape: str) -> Shell:
    _no_flags(line)
    found = _json_words(line.rest)
    if found is None:
        raise InvalidArgument("SHELL requires the arguments to be in JSON form")
    if not found:
        raise InvalidArgument("SHELL requires at least one argument")
    return Shell(**_base(line), words=found)


def _onbuild(line: Line, escape: str) -> Onbuild:
    _no_flags(line)
    if not line.rest:
        raise InvalidArgument("ONBUILD requires at least one argument")
    inner = lines.split_line(line.rest, line.location)
    check_trigger(inner)
    trigger = line.rest
    for heredoc in line.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    read_instruction(
        Line(
            inner.keyword,
            inner.written_keyword,
            inner.flags,
            inner.rest,
            inner.text,
            line.location,
            line.heredocs,
        ),
        escape=escape,
    )
    return Onbuild(**_base(line), trigger=trigger)


def check_trigger(line: Line) -> None:
    """:raises DockerfileError: an instruction that ONBUILD does not take."""
    if line.keyword == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", line.location)
    if line.keyword in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{line.keyword} isn't allowed as an ONBUILD trigger", line.location)


_READERS: Mapping[str, Callable[[Line, str], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
