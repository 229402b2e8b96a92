"""Which word somebody meant."""

from __future__ import annotations

import pytest

from wherry.dockerfile.suggestions import closest

_KNOWN = ("FROM", "RUN", "COPY", "CMD")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("FOO", "FROM"),
        ("RUNN", "RUN"),
        ("COPPY", "COPY"),
        ("CP", "COPY"),
        ("XXXX", ""),
        ("RUN", ""),
        ("", ""),
        ("R" * 100_000, ""),
    ],
)
def test_closest(word: str, meant: str) -> None:
    assert closest(word, _KNOWN) == meant
