"""Regular expressions from outside: matching time grows only with the length of the text.

Python's :mod:`re` backtracks: ``(a+)+$`` can take exponential time, in which no other thread runs. RE2 does
not backtrack, and its syntax is that of Go, which Docker's users write (github.com/google/re2/wiki/Syntax).
All expressions from outside use this module: filters, log options, globs. ``tests/test_architecture.py``
checks that :mod:`re` is only used with expressions in the source.

RE2 is loaded when the first pattern with special characters is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from wherry.errors import InvalidArgument

LENGTH_MAX = 4096
"""The maximum length of a client's pattern, in characters."""
_MEMORY = 1 << 20
"""Bytes that a compiled pattern may take, with what RE2 remembers of earlier matches (its ``max_mem``)."""
_ANY, _NOTHING = "[\\x{0}-\\x{10ffff}]", "[^\\x{0}-\\x{10ffff}]"
_META = frozenset("\\.+*?()|[]{}^$")


class _Program(Protocol):
    """The methods of RE2's compiled expressions that are used; RE2 has no type annotations."""

    def search(self, text: str) -> Any: ...
    def match(self, text: str) -> Any: ...
    def fullmatch(self, text: str) -> Any: ...
    def sub(self, repl: Callable[[Any], str], text: str, count: int) -> str: ...


class Pattern:
    """A compiled pattern. Undecodable bytes (of a file name) count as U+FFFD, as in Go."""

    __slots__ = ("_plain", "_program")

    def __init__(self, plain: str, program: _Program | None) -> None:
        self._plain = plain
        self._program = program

    @property
    def is_plain(self) -> bool:
        """Whether it contains no special characters."""
        return self._program is None

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in ``text``."""
        if self._program is None:
            return self._plain in text
        return self._program.search(_valid(text)) is not None

    def fullmatch(self, text: str) -> bool:
        """Whether it matches the whole of ``text``."""
        if self._program is None:
            return self._plain == text
        return self._program.fullmatch(_valid(text)) is not None

    def prefix(self, text: str) -> int | None:
        """How much of the beginning of ``text`` it matches, in characters."""
        if self._program is None:
            return len(self._plain) if text.startswith(self._plain) else None
        found = self._program.match(_valid(text))
        return None if found is None else found.end()

    def replaced(self, text: str, replacement: str, *, count: int) -> str:
        """Replace its matches in ``text`` from the left, at most ``count`` of them; 0: all."""
        if self._program is None:
            return text.replace(self._plain, replacement, count or -1)
        return self._program.sub(lambda _: replacement, _valid(text), count)


def compiled(pattern: str) -> Pattern:
    """A pattern in Go's syntax, as a client sends it.

    :raises InvalidArgument: it is malformed, or too large.
    """
    if len(pattern) > LENGTH_MAX:
        raise InvalidArgument(f"error parsing regexp: expression is longer than {LENGTH_MAX} characters")
    if not _META.intersection(pattern):
        return Pattern(pattern, None)
    return Pattern(pattern, _program(_valid(pattern), _MEMORY))


def one_of(expressions: Sequence[str], *, memory: int = _MEMORY) -> Pattern:
    """A pattern that matches if one of several expressions does. They are translated globs, in which a dot
    matches any character.

    :raises InvalidArgument: together they need more than ``memory`` bytes.
    """
    return Pattern("", _program(_valid("(?s)" + "|".join(expressions)), memory))


def plain(text: str) -> Pattern:
    """A pattern that matches only ``text`` itself."""
    return Pattern(text, None)


class Anywhere:
    """Docker's filter by name: each value is a regular expression, and one of them must match somewhere in
    the name. Without values everything matches.

    :raises InvalidArgument: one is malformed, or together they are too large.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        if sum(len(text) for text in wanted) > LENGTH_MAX:
            raise InvalidArgument(f"the values of a filter are longer than {LENGTH_MAX} characters together")
        found = {text: compiled(text) for text in wanted}
        self._patterns = [pattern for pattern in found.values() if pattern.is_plain]
        others = [f"(?:{text})" for text, pattern in found.items() if not pattern.is_plain]
        if others:
            self._patterns.append(Pattern("", _program(_valid("|".join(others)), _MEMORY)))

    def __call__(self, *values: str) -> bool:
        return not self._patterns or any(p.search(value) for p in self._patterns for value in values)


def escaped(text: str) -> str:
    """An expression that matches ``text`` literally."""
    return "".join(f"\\{c}" if c in _META else c for c in text)


def character_class(ranges: Sequence[tuple[str, str]], *, negated: bool) -> str:
    """An expression for one character within (else outside) the ranges; both ends belong to a range."""
    text = "".join(f"\\x{{{ord(low):x}}}-\\x{{{ord(high):x}}}" for low, high in ranges)
    return f"[{'^' if negated else ''}{text}]" if text else _ANY if negated else _NOTHING


@lru_cache(maxsize=16)
def _program(expression: str, memory: int) -> _Program:
    import re2

    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False  # otherwise RE2 writes errors to standard error
    try:
        program: _Program = re2.compile(expression, options)
        return program
    except re2.error as e:
        reason = e.args[0] if e.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidArgument(f"error parsing regexp: {text}: `{expression[:200]}`") from e
    finally:
        re2.purge()  # its own cache keeps 128 of them alive


def load() -> None:
    """Load RE2 now, for a process that cannot import anything later."""
    _program("", _MEMORY)


def _valid(text: str) -> str:
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
