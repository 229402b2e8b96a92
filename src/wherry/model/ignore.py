"""``.dockerignore``: which files of a context are left out (docs.docker.com/build/concepts/context,
"Dockerignore files"), and the wildcards of COPY and ADD.

Patterns are relative to the context's root. The last one that matches a path, or a directory the path is in,
decides; ``!`` takes back in what an earlier one left out.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.model.globs import path_pattern

_SIZE_MAX = 1 << 20
_PATTERNS_MAX = 10000


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


@dataclass(frozen=True)
class _Pattern:
    regex: re.Pattern[str]
    inverted: bool
    fixed: tuple[str, ...]
    """The leading components without any wildcard."""
    whole: bool
    """Whether there is none at all."""

    def may_match_below(self, directory: str) -> bool:
        """Whether something inside ``directory`` could match, as far as the fixed part tells."""
        parts = tuple(directory.split("/"))
        common = min(len(parts), len(self.fixed))
        return parts[:common] == self.fixed[:common] and not (self.whole and len(parts) >= len(self.fixed))


class Patterns:
    """A list of patterns as one question."""

    def __init__(self, lines: Iterable[str]) -> None:
        """:param lines: as :func:`read` returns them, or the values of ``--exclude``.
        :raises InvalidArgument: a pattern that is none, or too many."""
        self._patterns: list[_Pattern] = []
        size = 0
        for line in lines:
            size += len(line)
            if len(self._patterns) >= _PATTERNS_MAX or size > _SIZE_MAX:
                raise InvalidArgument("too many patterns in the ignore file")
            inverted = line.startswith("!")
            pattern = posixpath.normpath(line[inverted:].strip()) if line[inverted:].strip() else ""
            if not pattern:
                if inverted:
                    raise InvalidArgument(f'illegal exclusion pattern: "{line}"')
                continue
            pattern = pattern.lstrip("/") or "/"
            self._patterns.append(_compile(pattern, inverted=inverted))
        self._inverted = [p for p in self._patterns if p.inverted]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excluded(self, path: str) -> bool:
        """Whether ``path`` (relative, with slashes, cleaned) is left out."""
        if not self._patterns:
            return False
        candidates = [path]
        while "/" in path:
            path = path.rpartition("/")[0]
            candidates.append(path)
        out = False
        for pattern in self._patterns:
            # Asked only where its answer would change anything.
            if pattern.inverted == out and any(pattern.regex.fullmatch(c) for c in candidates):
                out = not pattern.inverted
        return out

    def skippable(self, directory: str) -> bool:
        """Whether a walker need not look into ``directory``: it is left out with all that is in it."""
        if not self.excluded(directory):
            return False
        return not any(p.may_match_below(directory) for p in self._inverted)


def _compile(pattern: str, *, inverted: bool) -> _Pattern:
    fixed: list[str] = []
    for part in pattern.split("/"):
        if any(c in part for c in "*?[\\"):
            break
        fixed.append(part)
    whole = len(fixed) == pattern.count("/") + 1
    return _Pattern(_regex(pattern), inverted, tuple(fixed), whole)


def _regex(pattern: str) -> re.Pattern[str]:
    # Docker takes "**name" for any path that ends in "name", as long as no other wildcard is in it.
    rest = pattern.removeprefix("**")
    if rest != pattern and rest and not rest.startswith("/") and not any(c in rest for c in "*?[\\"):
        return re.compile(f".*{re.escape(rest)}", re.DOTALL)
    return path_pattern(pattern)


def wildcard(pattern: str) -> re.Pattern[str] | None:
    """The pattern of a COPY or ADD source, to be used with ``fullmatch``; None if it is a plain path.

    :raises InvalidArgument: a class without its end.
    """
    if not any(c in pattern for c in "*?[\\"):
        return None
    return path_pattern(pattern, double_star=False)
