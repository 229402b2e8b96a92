"""Which containers ``up`` still waits for when the start of all is over."""

from __future__ import annotations

import pytest

from wherry.compose.state import may_still_end

CREATED = {"Running": False, "StartedAt": "0001-01-01T00:00:00Z"}
RUNS = {"Running": True, "StartedAt": "2024-01-01T00:00:00Z"}
WAITS = {"Running": False, "Restarting": True, "StartedAt": "2024-01-01T00:00:00Z"}
ENDED = {"Running": False, "StartedAt": "2024-01-01T00:00:00Z"}
ENDED_AGAIN = {"Running": False, "StartedAt": "2024-01-01T00:00:09Z"}


@pytest.mark.parametrize(
    ("before", "now", "reported", "wanted"),
    [
        pytest.param(CREATED, RUNS, False, True, id="runs"),
        pytest.param(ENDED, WAITS, True, True, id="will be restarted"),
        pytest.param(ENDED, RUNS, True, True, id="ended once and was started again"),
        pytest.param(CREATED, ENDED, False, True, id="ended at once, its event is on the way"),
        pytest.param(CREATED, ENDED, True, False, id="ended at once, its event is here"),
        pytest.param(ENDED, ENDED_AGAIN, False, True, id="was started again and ended at once"),
        pytest.param(ENDED, ENDED, False, False, id="was not started"),
        pytest.param(CREATED, CREATED, False, False, id="was never started"),
        pytest.param(RUNS, ENDED, False, True, id="ran already and ended meanwhile"),
        pytest.param(RUNS, ENDED, True, False, id="ran already, ended, reported"),
        pytest.param(CREATED, None, False, True, id="removed itself, its event is on the way"),
        pytest.param(CREATED, None, True, False, id="removed itself, its event is here"),
        pytest.param(None, None, False, False, id="was gone before"),
    ],
)
def test_what_may_still_end(
    before: dict[str, object] | None, now: dict[str, object] | None, reported: bool, wanted: bool
) -> None:
    assert may_still_end(before, now, reported=reported) is wanted
