"""A Dockerfile's logical lines: directives, comments, continuations and here-documents taken apart.

What an instruction's words mean is :mod:`wherry.build.dockerfile`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from wherry.build import words
from wherry.build.errors import DockerfileError
from wherry.build.instructions import Heredoc, Location
from wherry.errors import InvalidArgument

SIZE_MAX = 4 << 20
"""Bytes of a Dockerfile."""
DIRECTIVES = ("escape", "syntax", "check")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)")
_MAY_HAVE_HEREDOCS = frozenset(("RUN", "COPY", "ADD"))
_HEREDOCS_MAX = 256


@dataclass(frozen=True)
class Line:
    """One instruction as written. ``keyword`` in capitals, ``flags`` the words with ``--`` in front of the
    rest, ``rest`` what follows them. ``comments`` stand directly above it."""

    keyword: str
    written_keyword: str
    flags: tuple[str, ...]
    rest: str
    text: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()


@dataclass
class Source:
    """``empty_continuations`` are the instructions with an empty line in the middle."""

    text: str
    directives: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    empty_continuations: list[Location] = field(default_factory=list)

    @property
    def escape(self) -> str:
        return self.directives.get("escape", "\\")


def decode(source: bytes | str) -> str:
    """The text of a Dockerfile. :raises DockerfileError: it is too large, or no text."""
    if len(source) > SIZE_MAX:
        raise DockerfileError(f"the Dockerfile is larger than {SIZE_MAX} bytes", None)
    text = source if isinstance(source, str) else source.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise DockerfileError("the Dockerfile is not a text file", None)
    return text.removeprefix("\ufeff")


def read(source: bytes | str) -> Source:
    """:raises DockerfileError: a directive said twice, a here-document without its end, no instruction."""
    text = decode(source)
    result = Source(text)
    # Only newlines end lines: other separators that Python knows may stand inside of them.
    physical = text.split("\n")
    if physical[-1] == "":
        physical.pop()
    at = _read_directives(physical, result)
    _Reader(physical, at, result).read()
    if not result.lines:
        raise DockerfileError("file with no instructions", Location(1, max(1, len(physical))))
    return result


def _read_directives(physical: list[str], result: Source) -> int:
    """Directives stand before everything else, one a line; the first that is none ends them."""
    for number, line in enumerate(physical):
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None or found[1].lower() not in DIRECTIVES:
            return number
        name, value = found[1].lower(), found[2]
        where = Location(number + 1, number + 1)
        if name in result.directives:
            raise DockerfileError(f"only one {name} parser directive can be used", where)
        if name == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{value}' does not match ` or \\", where)
        result.directives[name] = value
    return len(physical)


class _Reader:
    def __init__(self, physical: list[str], at: int, result: Source) -> None:
        self._physical, self._at, self._result = physical, at, result
        escape = re.escape(result.escape)
        # An escaped escape character at the end is one character, not a continuation.
        self._continued = re.compile(rf"(^|[^{escape}]){escape}[ \t\r]*$")

    def read(self) -> None:
        comments: list[str] = []
        while self._at < len(self._physical):
            first = self._at
            line = self._physical[first].strip()
            if not line:
                self._at += 1
                comments = []
            elif line.startswith("#"):
                self._at += 1
                comment = line[1:].strip()
                comments = [*comments, comment] if comment else []
            else:
                self._instruction(comments)
                comments = []

    def _logical(self) -> str:
        """Join an instruction's lines; comments between them go, the white space they begin with stays."""
        first, empty = self._at, False
        parts: list[str] = []
        while self._at < len(self._physical):
            line = self._physical[self._at].removesuffix("\r")
            self._at += 1
            if parts:
                if line.lstrip().startswith("#"):
                    continue
                if not line.strip():
                    empty = True
                    continue
            else:
                line = line.lstrip()
            found = self._continued.search(line)
            parts.append(line[: found.start() + len(found[1])] if found else line)
            if not found:
                break
        if empty:
            self._result.empty_continuations.append(Location(first + 1, self._at))
        return "".join(parts)

    def _instruction(self, comments: list[str]) -> None:
        first = self._at
        text = self._logical().strip()
        where = Location(first + 1, self._at)
        if not text:  # nothing but an escape character
            return
        try:
            line = split_line(text, where)
            heredocs = tuple(self._heredocs(line))
        except DockerfileError:
            raise
        except InvalidArgument as e:
            raise DockerfileError(e.message, where) from e
        self._result.lines.append(
            Line(
                keyword=line.keyword,
                written_keyword=line.written_keyword,
                flags=line.flags,
                rest=line.rest,
                text=line.text,
                location=Location(first + 1, self._at),
                heredocs=heredocs,
                comments=tuple(comments),
            )
        )

    def _heredocs(self, line: Line) -> Iterator[Heredoc]:
        """The contents that follow, in the order in which the instruction names them."""
        rest, keyword = line.rest, line.keyword
        if keyword == "ONBUILD":
            inner = split_line(rest, line.location) if rest else None
            keyword, rest = (inner.keyword, inner.rest) if inner else ("", "")
        if keyword not in _MAY_HAVE_HEREDOCS or "<<" not in rest or rest.startswith("["):
            return
        for number, mark in enumerate(heredoc_marks(rest)):
            if number >= _HEREDOCS_MAX:
                raise DockerfileError(f"more than {_HEREDOCS_MAX} here-documents", line.location)
            yield Heredoc(
                name=mark.name,
                content=self._content(mark, line.location),
                expand=mark.expand,
                strip_tabs=mark.strip_tabs,
                descriptor=mark.descriptor,
            )

    def _content(self, mark: Heredoc, where: Location) -> str:
        lines: list[str] = []
        while self._at < len(self._physical):
            line = self._physical[self._at]
            self._at += 1
            if mark.strip_tabs:
                line = line.lstrip("\t")
            if line.removesuffix("\r") == mark.name:
                return "".join(lines)
            lines.append(line + "\n")
        raise DockerfileError("unterminated heredoc", where)


def heredoc_marks(rest: str) -> list[Heredoc]:
    """The here-documents that a line names, with no content yet: ``<<EOF``, ``<<-EOF``, ``3<<"EOF"``."""
    return [mark for word in words.split(rest) if (mark := heredoc_mark(word)) is not None]


def heredoc_mark(word: str) -> Heredoc | None:
    """The here-document that ``word`` names, None where it is no such mark."""
    found = _HEREDOC.fullmatch(word)
    if found is None:
        return None
    try:
        name = words.expand(found[3], {}).text
    except InvalidArgument:
        return None
    if not name or "$" in found[3]:
        name = found[3]
    return Heredoc(
        name=name,
        content="",
        expand=not any(c in found[3] for c in "'\"\\"),
        strip_tabs=bool(found[2]),
        descriptor=int(found[1] or 0),
    )


_BLANKS = re.compile(r"[\t\v\f\r ]+")


def split_line(text: str, where: Location) -> Line:
    """An instruction's keyword, flags and rest. :raises InvalidArgument: a flag's quote lacks its end."""
    parts = _BLANKS.split(text.strip(), maxsplit=1)
    written = parts[0]
    rest = parts[1] if len(parts) > 1 else ""
    shown = f"{written.upper()} {rest}".strip()
    flags, rest = _flags(rest)
    return Line(written.upper(), written, tuple(flags), rest.strip(), shown, where)


def _flags(rest: str) -> tuple[list[str], str]:
    """Words that begin with ``--``, up to the first that does not. Their quotes and escapes are taken off;
    the escape character is always the backslash here, as with Docker."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(rest) and rest[at].isspace():
            at += 1
        if not rest.startswith("--", at):
            return flags, rest[at:]
        word, quote, begin = "", "", at
        while at < len(rest) and (quote or not rest[at].isspace()):
            char = rest[at]
            at += 1
            if char == "\\" and quote != "'" and at < len(rest):
                word += rest[at]
                at += 1
            elif quote:
                quote, word = ("", word) if char == quote else (quote, word + char)
            elif char in "'\"":
                quote = char
            else:
                word += char
        if quote:
            raise InvalidArgument(f"unexpected end of statement: a quote without its end in {rest[begin:]!r}")
        if word == "--":
            return flags, rest[at:].lstrip()
        flags.append(word)
