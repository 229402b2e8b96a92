"""An error of one object ends where it is contained, is logged, and becomes that object's state."""

from __future__ import annotations

import asyncio

import pytest

from wherry.errors import Conflict
from wherry.mishaps import contained


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Conflict("it is taken"), "it is taken"), (KeyError("runtime"), "KeyError: 'runtime'")],
)
def test_an_error_becomes_a_state_and_a_line(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    with contained("start container 01", told.append):
        raise error
    assert told == [reason]
    assert f"cannot start container 01: {reason}" in caplog.text


def test_what_cannot_be_noted_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def told(_reason: str) -> None:
        raise OSError("no disk")

    with contained("start container 01", told):
        raise ValueError("first")
    assert "first" in caplog.text and "no disk" in caplog.text


def test_a_cancellation_goes_through() -> None:
    with pytest.raises(asyncio.CancelledError), contained("anything"):
        raise asyncio.CancelledError
