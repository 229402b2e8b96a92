"""Errors in a Dockerfile, with the faulty lines."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.errors import InvalidArgument, WherryError
from wherry.solver.graph import Location

_AROUND = 2
"""The number of lines in an excerpt before and after the marked ones."""
_MARKED_MAX = 20
_WIDTH_MAX = 200


class DockerfileError(InvalidArgument):
    """``reason`` is the error alone; the text is the reason with the excerpt below it."""

    def __init__(self, reason: str, location: Location | None, *, name: str = "", source: str = "") -> None:
        self.reason, self.location, self.name, self.source = reason, location, name, source
        text = reason
        if location is not None:
            text = f"dockerfile parse error on line {location.first}: {reason}"
            if source:
                text += "\n" + excerpt(source, location, name or "Dockerfile")
        super().__init__(text)

    def within(self, name: str, source: str) -> DockerfileError:
        """The same error with the Dockerfile in which it occurred."""
        return DockerfileError(self.reason, self.location, name=name, source=source)


@dataclass(frozen=True)
class ErrorLines:
    """Lines of a Dockerfile that an error is about; ``reason`` is the error without an excerpt of them."""

    reason: str
    name: str
    source: str
    location: Location


def located(error: WherryError, name: str, source: str, location: Location) -> WherryError:
    """The same error with the lines below it; :func:`place_of` returns those lines."""
    shown = DockerfileError("", location).within(name, source).message
    # Error types of other rooms may need more than a text, so use the base type of errors.py.
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == WherryError.__module__)
    made: WherryError = kind(f"{error.message}\n{shown.partition(chr(10))[2]}")
    made.as_expected(error.expected)
    made.place = ErrorLines(error.message, name, source, location)  # type: ignore[attr-defined]
    return made


def place_of(error: BaseException) -> ErrorLines | None:
    """The lines that an error is about, if known."""
    if isinstance(error, DockerfileError):
        if error.location is None or not error.source:
            return None
        reason = error.message.partition("\n")[0]
        return ErrorLines(reason, error.name or "Dockerfile", error.source, error.location)
    place = getattr(error, "place", None)
    return place if isinstance(place, ErrorLines) else None


def excerpt(source: str, location: Location, name: str) -> str:
    """The lines at ``location``, marked with ``>>>``, and some lines around them::

    Dockerfile:2
    --------------------
       1 |     FROM busybox
       2 | >>> RUNN true
    --------------------
    """
    lines = source.removesuffix("\n").split("\n")
    first, last = location.first, min(location.last, location.first + _MARKED_MAX - 1)
    rows = [f"{name}:{first}", "-" * 20]
    for number in range(max(1, first - _AROUND), min(len(lines), last + _AROUND) + 1):
        mark = ">>>" if first <= number <= last else "   "
        line = printable(lines[number - 1].removesuffix("\r"))
        rows.append(f"{number:4d} | {mark} {line}".rstrip())
    rows.append("-" * 20)
    return "\n".join(rows)


def readable(text: str) -> str:
    """Text for people and documents: bytes that are not UTF-8 are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_text(text: str) -> bool:
    """Whether the whole text is valid UTF-8."""
    return not any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else True


def printable(line: str) -> str:
    """A Dockerfile may be hostile: it must not control the terminal that shows it."""
    cut = line[:_WIDTH_MAX] + ("…" if len(line) > _WIDTH_MAX else "")
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in cut)
