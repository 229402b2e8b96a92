"""How far the limits of tests stretch: with the machine, but not without end."""

from __future__ import annotations

from types import SimpleNamespace

import patience
import pytest


def machine(monkeypatch: pytest.MonkeyPatch, *, slow: float, crowded: float, declared: str = "") -> None:
    monkeypatch.setattr(patience, "slowness", lambda: slow)
    monkeypatch.setattr(patience, "crowd", lambda: crowded)
    if declared:
        monkeypatch.setenv("WHERRY_TEST_PATIENCE", declared)
    else:
        monkeypatch.delenv("WHERRY_TEST_PATIENCE", raising=False)


@pytest.mark.parametrize(
    ("slow", "crowded", "declared", "stretch"),
    [
        (1, 1, "", 1),
        (1.5, 3, "", 4.5),
        (1, 30, "", 6),  # a hang of 90 s is told after nine minutes, not after 45
        (3, 10, "", 6),
        (10, 2, "10", 20),
        (10, 30, "10", 30),
    ],
)
def test_limits_stretch_with_the_machine_and_end(
    monkeypatch: pytest.MonkeyPatch, slow: float, crowded: float, declared: str, stretch: float
) -> None:
    machine(monkeypatch, slow=slow, crowded=crowded, declared=declared)
    assert patience.patiently(90) == 90 * stretch
    assert patience.Deadline(90).left() == pytest.approx(90 * stretch, rel=0.01)


def test_a_deadline_passes_in_a_crowd_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 300.0, 539.0, 541.0])
    with monkeypatch.context() as changed:  # the limit of this test asks the same clock before and after
        machine(changed, slow=1, crowded=1000)
        changed.setattr(patience, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        deadline = patience.Deadline(90)
        left = [bool(deadline.left()) for _ in range(3)]
    assert left == [True, True, False]
