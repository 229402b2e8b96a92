"""How wrong passwords are counted."""

from __future__ import annotations

import pytest

from wherry.hub.auth import guesses
from wherry.hub.auth.guesses import FROM_ALL, FROM_ONE, WINDOW, Guesses


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(guesses, "time", made)
    return made


def test_who_guesses_is_kept_out_and_the_owner_is_not(clock: Clock) -> None:
    counted = Guesses()
    for number in range(FROM_ONE):
        assert counted.wait("alice", "203.0.113.0/24") == 0, number
        counted.wrong("alice", "203.0.113.0/24")
    assert counted.wait("alice", "203.0.113.0/24") == int(WINDOW) + 1
    assert counted.wait("alice", "198.51.100.0/24") == 0
    assert counted.wait("bob", "203.0.113.0/24") == 0
    clock.now += WINDOW + 1
    assert counted.wait("alice", "203.0.113.0/24") == 0


def test_guesses_from_everywhere_are_stopped_too(clock: Clock) -> None:
    counted = Guesses()
    for number in range(FROM_ALL):
        assert counted.wait("alice", f"network {number}") == 0
        counted.wrong("alice", f"network {number}")
    assert counted.wait("alice", "a new network") > 0
    assert counted.wait("bob", "a new network") == 0


def test_the_right_password_starts_anew(clock: Clock) -> None:
    counted = Guesses()
    for _ in range(3):
        for _ in range(FROM_ONE - 1):
            counted.wrong("alice", "here")
        counted.right("alice", "here")
        assert counted.wait("alice", "here") == 0


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_KEYS_MAX", 100)
    counted = Guesses()
    for number in range(1000):
        counted.wrong(f"account {number}", "here")
    assert len(counted._failures) <= 100
