"""What ``--chmod`` of COPY and ADD says."""

from __future__ import annotations

import pytest

from wherry.storage.confined.child.copy import parse_mode
from wherry.storage.confined.child.extract import Refused


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("0750", 0o644, False, 0o750),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("+x", 0o644, False, 0o755),
        ("g-w,o=", 0o666, False, 0o640),
        ("g=u", 0o640, False, 0o660),
        ("u+s,+t", 0o755, False, 0o5755),
    ],
)
def test_modes(text: str, mode: int, directory: bool, expected: int) -> None:
    change = parse_mode(text)
    assert change is not None and change(mode, directory) == expected


@pytest.mark.parametrize("text", ["99", "u=q", "rw", "77777", "=,"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(Refused):
        parse_mode(text)
