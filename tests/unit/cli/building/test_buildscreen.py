"""What a build shows on a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from wherry.cli.building.screen import TreeScreen
from wherry.cli.terminal import device

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int, *messages: dict[str, Any]) -> list[str]:
    """The lines of one frame, as they stand on a terminal that is ``columns`` wide."""
    monkeypatch.setattr(device, "size", lambda: (24, columns))
    out = io.StringIO()
    screen = TreeScreen("Building", out)
    for message in messages:
        screen.put(message)
    screen.close()
    frame = out.getvalue().rpartition("\x1b[2K\x1b[34m[+]")[2]
    return _ESCAPE.sub("", frame).rstrip("\n").split("\n")[1:]


_PLAN = {"steps": [{"Number": n, "Name": f"[{n}/4] RUN step {n}"} for n in (1, 2, 3, 4)]}
_STEPS = [
    {"step": {"Number": n, "Status": status, "Started": 1_000_000_000, "Finished": 2_500_000_000}}
    for n, status in enumerate(("running", "done", "cached", "failed"), 1)
]


def test_times_of_all_states_end_at_the_right_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, 60, _PLAN, *_STEPS)
    assert [line[: line.rindex("  ")].rstrip() for line in lines] == [
        " => [1/4] RUN step 1",
        " => [2/4] RUN step 2",
        " => CACHED [3/4] RUN step 3",
        " => ERROR [4/4] RUN step 4",
    ]
    assert [(len(line), line[-4:]) for line in lines] == [(60, "1.5s")] * 4


def test_a_name_too_long_is_cut_before_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"steps": [{"Number": 1, "Name": "RUN " + "x" * 100}, {"Number": 2, "Name": "RUN " + "y" * 100}]}
    lines = drawn(monkeypatch, 40, plan, *_STEPS[:2])
    assert [len(line) for line in lines] == [40, 40]
    assert all(line.endswith(" 1.5s") for line in lines)
