"""Which known word somebody meant, as BuildKit guesses it (util/suggest)."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 2
"""Letters that may be wrong, missing or too many."""
_LONGEST = 64


def closest(word: str, known: Iterable[str]) -> str:
    """The known word with the fewest differences; of several the first. Empty: none is similar enough, or the
    word itself is known."""
    found, fewest = "", _MOST + 1
    for one in known:
        if abs(len(one) - len(word)) > _MOST or len(one) > _LONGEST:
            continue
        if (differences := _distance(word, one)) < fewest:
            found, fewest = one, differences
    return found if fewest else ""


def _distance(one: str, other: str) -> int:
    """How many letters to change, add or take away (Levenshtein)."""
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, wanted in enumerate(other, 1):
            now.append(min(before[column] + 1, now[column - 1] + 1, before[column - 1] + (letter != wanted)))
        before = now
    return before[-1]
