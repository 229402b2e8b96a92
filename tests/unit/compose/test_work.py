from __future__ import annotations

import threading
from typing import Any

import pytest

from wherry.compose.work import DaemonSessions, Failures, in_order, run_all
from wherry.errors import Conflict, WherryError


class Session:
    """Stands where an ``Api`` does: it is only lent."""

    def close(self) -> None:
        pass


def sessions(limit: int = 8) -> DaemonSessions:
    return DaemonSessions(Session, limit)  # type: ignore[arg-type]


NEEDS = {"web": ["db", "cache"], "db": [], "cache": ["db"], "alone": []}


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_each_comes_after_what_it_needs(limit: int) -> None:
    done: list[str] = []
    found = in_order(sessions(limit), NEEDS, lambda _api, key: done.append(key) or key.upper())
    assert found == {key: key.upper() for key in NEEDS}
    for key, needs in NEEDS.items():
        assert all(done.index(need) < done.index(key) for need in needs), done


def test_what_needs_nothing_runs_side_by_side() -> None:
    meeting = threading.Barrier(3)
    met: list[int] = []
    run_all(sessions(), [lambda _api: met.append(meeting.wait(20))] * 3)
    assert sorted(met) == [0, 1, 2]


def test_no_more_at_once_than_allowed() -> None:
    running, most, lock = [0], [0], threading.Lock()

    def work(_api: Any) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        with lock:
            running[0] -= 1

    run_all(sessions(2), [work] * 20)
    assert most[0] <= 2


@pytest.mark.parametrize("limit", [1, 8])
def test_what_needs_a_failure_is_not_begun_and_others_go_on(limit: int) -> None:
    begun: list[str] = []

    def work(_api: Any, key: str) -> None:
        begun.append(key)
        if key == "cache":
            raise Conflict("cache: no")

    with pytest.raises(Conflict, match="cache: no"):
        in_order(sessions(limit), NEEDS, work)
    assert sorted(begun) == ["alone", "cache", "db"]


def test_several_failures_are_all_told() -> None:
    def fail(text: str) -> Any:
        def work(_api: Any) -> None:
            raise Conflict(text)

        return work

    with pytest.raises(Failures) as caught:
        run_all(sessions(), [fail("one"), fail("two"), fail("one")])
    assert sorted(caught.value.message.splitlines()) == ["one", "two"]
    assert isinstance(caught.value, WherryError)


def test_a_defect_is_not_swallowed() -> None:
    def work(_api: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all(sessions(), [work, work])


def test_connections_are_lent_to_one_at_a_time_and_used_again() -> None:
    pool = sessions()
    with pool.lend() as one, pool.lend() as other:
        assert one is not other
    with pool.lend() as again:
        assert again in (one, other)
