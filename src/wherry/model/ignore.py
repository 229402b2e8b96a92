"""``.dockerignore``: which files of a context are left out (docs.docker.com/build/concepts/context,
"Dockerignore files"), and the wildcards of COPY and ADD.

Patterns are relative to the context's root. The last pattern that matches a path, or a directory above it,
decides; a pattern with ``!`` includes again what an earlier one excluded.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from wherry.errors import InvalidArgument
from wherry.model import globs, patterns
from wherry.model.patterns import Pattern

_SIZE_MAX = 1 << 20
_PATTERNS_MAX = 10000
_RUN_MAX = 200
_RUN_MEMORY = 8 << 20
"""The maximum number of patterns, and of bytes that their compiled form may take together."""
_REMEMBERED = 1024


def read(text: str) -> list[str]:
    """The patterns of a ``.dockerignore``, cleaned: comments and empty lines gone, ``.`` and ``..`` resolved,
    no slash in front or at the end."""
    patterns: list[str] = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        pattern = pattern[inverted:].strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.lstrip("/")
        patterns.append("!" * inverted + pattern)
    return patterns


_WILD = frozenset("*?[\\")


@dataclass(frozen=True)
class _Line:
    pattern: str
    inverted: bool
    fixed: tuple[str, ...]
    """The leading components without any wildcard."""
    whole: bool
    """Whether it contains no wildcard."""

    def may_match_below(self, directory: str) -> bool:
        """Whether something inside ``directory`` could match, judging by the fixed part."""
        parts = tuple(directory.split("/"))
        common = min(len(parts), len(self.fixed))
        return parts[:common] == self.fixed[:common] and not (self.whole and len(parts) >= len(self.fixed))


class _Run:
    """Consecutive lines that all exclude or all include: it does not matter which of them matches, so they
    are matched together."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self.inverted = lines[0].inverted
        self._plain = frozenset(line.pattern for line in lines if line.whole)
        wild = [_expression(line.pattern) for line in lines if not line.whole]
        parts = [wild[at : at + _RUN_MAX] for at in range(0, len(wild), _RUN_MAX)]
        self._wild = [pattern for part in parts for pattern in _joined(part)]
        self._known: dict[str, bool] = {}

    def matches(self, path: str) -> bool:
        return path in self._plain or any(pattern.fullmatch(path) for pattern in self._wild)

    def matches_directory(self, path: str) -> bool:
        """As :meth:`matches`, with a cache, because directories are asked about again for
        everything in them."""
        found = self._known.get(path)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[path] = self.matches(path)
        return found


def _joined(expressions: list[str]) -> list[Pattern]:
    """Combine the patterns into as few expressions as the memory limit allows."""
    try:
        return [patterns.one_of(expressions, memory=_RUN_MEMORY)]
    except InvalidArgument:
        if len(expressions) == 1:
            raise
        half = len(expressions) // 2
        return _joined(expressions[:half]) + _joined(expressions[half:])


class Patterns:
    """A list of patterns that is matched at once."""

    def __init__(self, lines: Iterable[str]) -> None:
        """:param lines: as :func:`read` returns them, or the values of ``--exclude``.
        :raises InvalidArgument: a malformed pattern, or too many patterns."""
        found: list[_Line] = []
        size = 0
        for line in lines:
            size += len(line)
            if len(found) >= _PATTERNS_MAX or size > _SIZE_MAX:
                raise InvalidArgument("too many patterns in the ignore file")
            inverted = line.startswith("!")
            pattern = posixpath.normpath(line[inverted:].strip()) if line[inverted:].strip() else ""
            if not pattern:
                if inverted:
                    raise InvalidArgument(f'illegal exclusion pattern: "{line}"')
                continue
            pattern = pattern.lstrip("/") or "/"
            found.append(_line(pattern, inverted=inverted))
        self._runs = [_Run(list(lines)) for _, lines in groupby(found, key=lambda line: line.inverted)]
        self._inverted = [line for line in found if line.inverted]

    def __bool__(self) -> bool:
        return bool(self._runs)

    def excluded(self, path: str) -> bool:
        """Whether ``path`` (relative, with slashes, cleaned) is left out."""
        out = False
        for run in self._runs:
            # Only match if the result could change.
            if run.inverted == out and (run.matches(path) or _above(run, path)):
                out = not run.inverted
        return out

    def skippable(self, directory: str) -> bool:
        """Whether a walk can skip ``directory``: everything in it is excluded."""
        if not self.excluded(directory):
            return False
        return not any(p.may_match_below(directory) for p in self._inverted)


def _above(run: _Run, path: str) -> bool:
    """Whether a directory above ``path`` matches."""
    while "/" in path:
        path = path.rpartition("/")[0]
        if run.matches_directory(path):
            return True
    return False


def _line(pattern: str, *, inverted: bool) -> _Line:
    fixed: list[str] = []
    for part in pattern.split("/"):
        if _WILD.intersection(part):
            break
        fixed.append(part)
    return _Line(pattern, inverted, tuple(fixed), whole=len(fixed) == pattern.count("/") + 1)


def _expression(pattern: str) -> str:
    # In Docker "**name" matches any path that ends in "name", if it contains no other wildcard.
    rest = pattern.removeprefix("**")
    if rest != pattern and rest and not rest.startswith("/") and not _WILD.intersection(rest):
        return f".*{patterns.escaped(rest)}"
    return globs.path_expression(pattern)


def wildcard(pattern: str) -> Pattern | None:
    """The pattern of a COPY or ADD source, to be used with ``fullmatch``; None if it is a plain path.

    :raises InvalidArgument: a class without its end.
    """
    if not _WILD.intersection(pattern):
        return None
    return globs.path_pattern(pattern, double_star=False)
