"""Split a Dockerfile into logical lines: directives, comments, continuations and here-documents.

:mod:`wherry.dockerfile.parse` interprets an instruction's words. Bytes that are not UTF-8 are kept as
    surrogates, as Python does in file names; :mod:`wherry.dockerfile.readers` decides which instructions may
    contain them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from wherry.dockerfile import words
from wherry.dockerfile.errors import DockerfileError, readable
from wherry.dockerfile.instructions import Heredoc
from wherry.errors import InvalidArgument
from wherry.solver.graph import Location

SIZE_MAX = 4 << 20
"""The maximum size of a Dockerfile in bytes."""
DIRECTIVES = ("escape", "syntax", "check")
_DIRECTIVE = re.compile(r"(?:#|(//))\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+)")
# An escaped escape character at the end is one character, not a continuation.
_CONTINUED = {"\\": re.compile(r"(^|[^\\])\\[ \t\r]*$"), "`": re.compile(r"(^|[^`])`[ \t\r]*$")}
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]+)")
_HEREDOC_SIGN = re.compile(r"\d*<<-?")
_MAY_HAVE_HEREDOCS = frozenset(("RUN", "COPY", "ADD"))
_HEREDOCS_MAX = 256


@dataclass(frozen=True)
class Line:
    """One instruction as written. ``keyword`` in capitals, ``flags`` are the words with ``--`` at its
    beginning, ``rest`` is what follows them, ``text`` is all of it for people. ``comments`` are those
    directly above it, ``described`` those anywhere between it and the one before."""

    keyword: str
    written_keyword: str
    flags: tuple[str, ...]
    rest: str
    text: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    described: tuple[str, ...] = ()


@dataclass
class DockerfileSource:
    """``empty_continuations`` are the instructions with an empty line in the middle."""

    text: str
    directives: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    empty_continuations: list[Location] = field(default_factory=list)

    @property
    def escape(self) -> str:
        return self.directives.get("escape", "\\")


def decode(source: bytes | str) -> str:
    """The text of a Dockerfile. :raises DockerfileError: it is too large, or not text."""
    if len(source) > SIZE_MAX:
        raise DockerfileError(f"the Dockerfile is larger than {SIZE_MAX} bytes", None)
    text = source if isinstance(source, str) else source.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise DockerfileError("the Dockerfile is not a text file", None)
    return text.removeprefix("\ufeff")


def read(source: bytes | str) -> DockerfileSource:
    """:raises DockerfileError: a duplicate directive, a here-document without its end, no instruction."""
    text = decode(source)
    result = DockerfileSource(text)
    # Only newlines end lines: a line may contain other line separators that Python knows.
    physical = text.split("\n")
    if physical[-1] == "":
        physical.pop()
    at = _read_directives(physical, result)
    _Reader(physical, at, result).read()
    if not result.lines:
        raise DockerfileError("file with no instructions", Location(1, max(1, len(physical))))
    return result


def _read_directives(physical: list[str], result: DockerfileSource) -> int:
    """Directives come first, after an optional line ``#!…``, one per line; the first other line ends them.
    The frontend can also be named in other comments (``//syntax=…``) and in JSON."""
    begin = 1 if physical and physical[0].startswith("#!") else 0
    for number, line in enumerate(physical[begin:], begin):
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None or found[2].lower() not in DIRECTIVES:
            break
        name, value = found[2].lower(), found[3]
        where = Location(number + 1, number + 1)
        if name in result.directives:
            raise DockerfileError(f"only one {name} parser directive can be used", where)
        if found[1]:
            if name == "syntax":
                result.directives[name] = value
            break
        if name == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{value}' does not match ` or \\", where)
        result.directives[name] = value
    else:
        number = len(physical)
    if "syntax" not in result.directives and (value := _syntax_in_json(physical[begin:])):
        result.directives["syntax"] = value
    return number


def _syntax_in_json(physical: Sequence[str]) -> str:
    if not physical or not physical[0].lstrip().startswith("{"):
        return ""
    try:
        found = json.loads("\n".join(physical))
    except (ValueError, RecursionError):
        return ""
    value = found.get("syntax") if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


class _Reader:
    def __init__(self, physical: list[str], at: int, result: DockerfileSource) -> None:
        self._physical, self._at, self._result = physical, at, result
        self._continued = _CONTINUED[result.escape]

    def read(self) -> None:
        comments: list[str] = []
        described: list[str] = []
        while self._at < len(self._physical):
            first = self._at
            line = self._physical[first].strip()
            if not line:
                self._at += 1
                comments = []
            elif line.startswith("#"):
                self._at += 1
                comment = readable(line[1:].strip())
                if comment:
                    comments.append(comment)
                    described.append(comment)
                else:
                    comments, described = [], []
            else:
                self._instruction(comments, described)
                comments, described = [], []

    def _logical(self) -> str:
        """Join an instruction's lines. Comments between them are removed; leading white space is kept."""
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

    def _instruction(self, comments: list[str], described: list[str]) -> None:
        first = self._at
        text = self._logical().strip()
        where = Location(first + 1, self._at)
        if not text:  # only an escape character
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
                described=tuple(described),
            )
        )

    def _heredocs(self, line: Line) -> Iterator[Heredoc]:
        """The contents that follow, in the order in which the instruction names them."""
        rest, keyword = line.rest, line.keyword
        if keyword == "ONBUILD":
            inner = split_line(rest, line.location) if rest else None
            keyword, rest = (inner.keyword, inner.rest) if inner else ("", "")
        if keyword not in _MAY_HAVE_HEREDOCS or "<<" not in rest or _is_exec_form(rest):
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


def _is_exec_form(rest: str) -> bool:
    try:
        return rest.startswith("[") and isinstance(json.loads(rest), list)
    except (ValueError, RecursionError):
        return False


def heredoc_marks(rest: str) -> list[Heredoc]:
    """The here-documents that a line names, with no content yet: ``<<EOF``, ``<< EOF``, ``<<-EOF``,
    ``3<<"EOF"``. A line with an unclosed quote has no here-documents."""
    return [mark for word in line_words(rest) if (mark := heredoc_mark(word)) is not None]


def line_words(rest: str) -> list[str]:
    """The words of a line with here-documents, as they were written: ``<< EOF`` is one word."""
    found: list[str] = []
    for word in words.split_closed(rest):
        if found and _HEREDOC_SIGN.fullmatch(found[-1]):
            found[-1] += " " + word
        else:
            found.append(word)
    return found


def heredoc_mark(word: str) -> Heredoc | None:
    """The here-document that ``word`` names; None if it does not name one."""
    found = _HEREDOC.fullmatch(word)
    if found is None:
        return None
    try:
        name = words.expand(found[3], {}, variables=False)
    except InvalidArgument:
        return None
    if len(name.words) != 1:
        return None
    quotes = sum(found[3].count(c) - name.text.count(c) for c in "'\"")
    return Heredoc(
        name=name.text,
        content="",
        expand=quotes == 0,
        strip_tabs=bool(found[2]),
        descriptor=int((found[1] or "0")[:9]),
    )


_BLANKS = re.compile(r"[\t\v\f\r ]+")


def split_line(text: str, where: Location) -> Line:
    """An instruction's keyword, flags and rest. :raises InvalidArgument: a flag's quote lacks its end."""
    parts = _BLANKS.split(text.strip(), maxsplit=1)
    written = parts[0]
    rest = parts[1] if len(parts) > 1 else ""
    shown = readable(f"{written.upper()} {rest}".strip())
    flags, rest = _flags(rest)
    return Line(written.upper(), written, tuple(flags), rest.strip(), shown, where)


def _flags(rest: str) -> tuple[list[str], str]:
    """Words that begin with ``--``, up to the first that does not. Their quotes and escapes are removed; the
    escape character is always the backslash here, as in Docker."""
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
